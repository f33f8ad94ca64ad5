"""Brings branches on the Hub up to date: one commit each, from what is there to what should be."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError

from .base import Base
from .errors import PushError, diagnose, is_refused_copy
from .files import File, FileOnHub, readable_size
from .history import commit_title
from .hub import Hub
from .operating_point import Checkpoint, load_without_weights
from .publication import Publication
from .repository_guard import RepositoryGuard
from .target import BranchState, Changes, read_branch


def can_copy_between_repositories() -> bool:
    """Whether this huggingface_hub can ask the Hub to copy files from another repository."""
    return "src_repo_id" in {field.name for field in dataclasses.fields(CommitOperationCopy)}


class Publisher:
    """Publishes to one repository.

    Every step looks at what is there before it changes anything, so that it can be repeated after any interruption,
    and a branch changes in one commit or not at all.

    Args:
        hub: the connection.
        repo_id: the repository.
        base: where the weights come from.
        overwrite: whether a branch that holds something else may be replaced.
        say: called with a line of text for the user.
        private: whether nothing may go to a repository that is not private.
    """

    def __init__(
        self,
        hub: Hub,
        repo_id: str,
        base: Base,
        overwrite: bool,
        say: Callable[[str], None],
        private: bool = False,
    ):
        self._hub = hub
        self._repo_id = repo_id
        self._base = base
        self._say = say
        self._private = private
        self._guard = RepositoryGuard(hub, repo_id, base, overwrite, self._is_same)
        self.can_copy_from_base = base.is_on_hub and can_copy_between_repositories()
        self._large_files: dict[str, FileOnHub] = {}

    def look_at(self, branch: str) -> BranchState:
        """Reads a branch, and refuses to go on if it holds something that is not to be overwritten."""
        return self._hub.call(f"Looking at {self._repo_id}, branch {branch}", self._look_at, branch)

    def plan(self, publication: Publication, state: BranchState) -> Changes:
        """What publishing would change.

        Raises:
            PushError: if something would go that is not to be overwritten.
        """
        doing = f"Looking at {self._repo_id}, branch {publication.branch}"
        changes = self._hub.call(doing, self._guard.changes, publication, state)
        self._guard.agree(publication.branch, changes)
        return changes

    def create_repository(self) -> None:
        """Creates the repository, unless it is there."""
        self._hub.call(f"Creating {self._repo_id}", self._create_repository)

    def publish(self, publication: Publication) -> str:
        """Brings one branch up to date, compares every file with what it should be, and returns the commit.

        Raises:
            PushError: if it cannot be done, or something is not as it should be.
        """
        doing = f"Publishing {self._repo_id}, branch {publication.branch}"
        commit, changes = self._hub.call(doing, self._bring_up_to_date, publication)
        if changes:
            verifying = f"Verifying {self._repo_id}, branch {publication.branch}"
            self._hub.call(verifying, self._verify, publication, commit, changes)
        kept = f" {', '.join(changes.keep)} is kept as you edited it." if changes.keep else ""
        done = f"published as commit {commit}." if changes else "was there already."
        self._say(f"{publication.branch}: {done}{kept}")
        return commit

    def load(self, publications: Sequence[Publication], commits: Sequence[str]) -> None:
        """Loads config and code as a user would, without the weights.

        Raises:
            PushError: if something does not load.
        """
        checkpoints = [
            Checkpoint(
                f"{self._repo_id}, branch {publication.branch}, was published but does not load",
                self._repo_id,
                publication.variant.num_frames,
                commit,
            )
            for publication, commit in zip(publications, commits)
        ]
        load_without_weights(checkpoints, self._hub.api)

    def _look_at(self, branch: str) -> BranchState:
        state = read_branch(self._hub.api, self._repo_id, branch)
        if state.repository_exists:
            self._check_visibility()
        if state.commit is not None:
            self._guard.check_content(branch, state)
        elif state.repository_exists:
            self._guard.beginning()
        return state

    def _create_repository(self) -> None:
        # The Hub's own default may be private for an organisation.
        visibility = {"private": True} if self._private else {}
        try:
            self._hub.api.create_repo(self._repo_id, **visibility)
        except HfHubHTTPError as error:
            if error.response.status_code != 409 or not self._hub.api.repo_exists(self._repo_id):
                raise
        self._check_visibility()

    def _check_visibility(self, what: str = "nothing was published") -> None:
        """Somebody may have made the repository, or made it public, since it was looked at."""
        if self._private and self._hub.api.model_info(self._repo_id).private is not True:
            raise PushError(
                f"{self._repo_id} is public, and --private was given: {what}. Make it private (in its settings on the "
                "Hub), give another --repo-id, or leave --private out."
            )

    def _bring_up_to_date(self, publication: Publication) -> tuple[str, Changes]:
        """Returns the branch's commit and what was changed."""
        self._check_visibility()
        state = read_branch(self._hub.api, self._repo_id, publication.branch)
        has_begun_now = state.commit is None
        if has_begun_now:
            state = self._begin_branch(publication.branch)
        self._remember(state)
        changes = self._guard.changes(publication, state, has_begun_now)
        self._guard.check_agreed(publication.branch, changes)
        if not changes:
            return state.commit, changes
        try:
            return self._commit(publication, state, changes), changes
        except Exception as error:
            if not (self.can_copy_from_base and is_refused_copy(error)):
                raise
            self._fall_back(error)
            return self._bring_up_to_date(publication)

    def _begin_branch(self, branch: str) -> BranchState:
        """A new branch begins where the repository did, with nothing in it: no variant stands there by mistake."""
        api = self._hub.api
        api.create_branch(self._repo_id, branch=branch, revision=self._guard.beginning())
        return read_branch(api, self._repo_id, branch)

    def _commit(self, publication: Publication, state: BranchState, changes: Changes) -> str:
        base = self._base
        # The name of a folder is nobody's business.
        source = f"{base.location.split('/')[-1]}@{base.revision[:7]}" if base.is_on_hub else "a local checkpoint"
        operations = [
            *(self._operation(file) for file in changes.write),
            *(CommitOperationDelete(path, is_folder=False) for path in changes.delete),
        ]
        target: dict[str, Any] = {"repo_id": self._repo_id, "revision": publication.branch}
        if self._private:
            # What takes long comes first, so that the last look is just before the commit.
            additions = [operation for operation in operations if isinstance(operation, CommitOperationAdd)]
            self._hub.api.preupload_lfs_files(additions=additions, **target)
            self._check_visibility()
        return self._hub.api.create_commit(
            operations=operations,
            commit_message=commit_title(publication.variant.name, source),
            parent_commit=state.commit,
            **target,
        ).oid

    def _operation(self, file: File) -> CommitOperationAdd | CommitOperationCopy:
        """Copies within the repository where it has the file, else from the base, else uploads it."""
        if isinstance(file, FileOnHub) and not file.is_large:
            return self._hub.fetch(file).operation()
        there = self._large_files.get(file.sha256)
        if there is not None:
            return there.operation(file.path, is_from_elsewhere=False)
        if not isinstance(file, FileOnHub):
            return file.operation()
        if self.can_copy_from_base:
            return file.operation(file.path, is_from_elsewhere=True)
        return self._hub.fetch(file).operation()

    def _fall_back(self, error: Exception) -> None:
        self.can_copy_from_base = False
        size = readable_size(sum(file.size for file in self._base.files))
        self._say(
            f"The Hub does not copy from {self._base.location}: {diagnose(error).cause}. So {size} are downloaded "
            "(into huggingface_hub's cache) and uploaded again."
        )

    def _remember(self, state: BranchState) -> None:
        self._large_files.update({file.sha256: file for file in state.files.values() if file.is_large})

    def _is_same(self, there: FileOnHub, file: File) -> bool:
        if there.is_same_as(file):
            return True
        if isinstance(file, FileOnHub) and not file.is_large and there.is_large and there.size == file.size:
            # The target keeps in LFS what the base does not: only the content tells.
            return there.is_same_as(self._hub.fetch(file))
        return False

    def _verify(self, publication: Publication, commit: str, changes: Changes) -> None:
        self._check_visibility("it became so while this was published, and its files can be seen")
        state = read_branch(self._hub.api, self._repo_id, commit)
        self._remember(state)
        there, wanted = state.files, [file for file in publication.files if file.path not in changes.keep]
        missing = [file.path for file in wanted if file.path not in there]
        different = [file.path for file in wanted if file.path in there and not self._is_same(there[file.path], file)]
        for paths, what in ((missing, "lacks"), (different, "has another content than it should in")):
            if paths:
                raise PushError(
                    f"{self._repo_id}, branch {publication.branch}, was published but {what} {', '.join(paths)}: "
                    "run the same command again, which replaces what is wrong."
                )
