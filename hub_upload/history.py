"""Which of a branch's files this command has written: what its own commits changed, as the Hub's history tells."""

import re

from huggingface_hub import HfApi

from .errors import in_one_line
from .files import FileOnHub

_TITLE = re.compile(r"AOT variant .+ of .+")


def commit_title(variant: str, source: str) -> str:
    """By which the commits of this command are known."""
    return in_one_line(f"AOT variant {variant} of {source}")


class History:
    """The commits that lead to one of a repository; nothing is asked of the Hub before it is needed.

    A squashed history has forgotten what was written by whom: then nothing is this command's.
    """

    def __init__(self, api: HfApi, repo_id: str, commit: str):
        self._api = api
        self._repo_id = repo_id
        self._commit = commit
        self._commits: list[tuple[str, bool]] | None = None
        self._trees: dict[str | None, dict[str, FileOnHub]] = {None: {}}

    def has_written(self, file: FileOnHub) -> bool:
        """Whether the file has the content that a commit of this command gave it."""
        commits = self._list()
        for (commit, is_own), (parent, _) in zip(commits, [*commits[1:], (None, False)]):
            if not is_own:
                continue
            written = self._tree(commit).get(file.path)
            if written is None or not written.is_same_as(file):
                continue
            before = self._tree(parent).get(file.path)
            if before is None or not before.is_same_as(written):
                return True
        return False

    def _list(self) -> list[tuple[str, bool]]:
        if self._commits is None:
            commits = self._api.list_repo_commits(self._repo_id, revision=self._commit)
            self._commits = [(commit.commit_id, bool(_TITLE.fullmatch(commit.title))) for commit in commits]
        return self._commits

    def _tree(self, commit: str | None) -> dict[str, FileOnHub]:
        if commit not in self._trees:
            self._trees[commit] = files_at(self._api, self._repo_id, commit)
        return self._trees[commit]


def files_at(api: HfApi, repo_id: str, revision: str) -> dict[str, FileOnHub]:
    """Names, sizes and hashes of a repository's files, by path."""
    info = api.model_info(repo_id, revision=revision, files_metadata=True)
    siblings = info.siblings or ()
    return {sibling.rfilename: FileOnHub.from_sibling(sibling, repo_id, info.sha) for sibling in siblings}
