"""Stands before a repository on the Hub: tells what may be changed in it, and refuses what would lose something."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from huggingface_hub.errors import HfHubHTTPError

from .base import Base
from .errors import PushError
from .files import File, FileOnHub
from .history import History, files_at
from .hub import Hub
from .names import MAIN, repo_id_problem
from .publication import Publication
from .repository import base_model_id
from .strict_json import LARGEST, BadJsonError, parse_object
from .target import (
    ATTRIBUTES,
    README,
    REMEDY,
    BranchState,
    Changes,
    Knowledge,
    check_nothing_is_lost,
    foreign_content,
    replace_everything,
    replace_what_is_ours,
    with_sizes,
)

# What the Hub's page for new repositories puts into the first commit.
_FIRST_FILES = {ATTRIBUTES, README, "LICENSE"}


class RepositoryGuard:
    """Decides about the branches of one repository.

    Without `overwrite` nothing goes that this command did not write or could not get again; with it, nothing that was
    not told before.

    Args:
        hub: the connection; what is asked of it is not tried again here.
        repo_id: the repository.
        base: where the weights come from.
        overwrite: whether the user wants to replace what is there.
        is_same: compares a file there with a file of a variant.
    """

    def __init__(
        self, hub: Hub, repo_id: str, base: Base, overwrite: bool, is_same: Callable[[FileOnHub, File], bool]
    ):
        self._hub = hub
        self._repo_id = repo_id
        self._base = base
        self._overwrite = overwrite
        self._is_same = is_same
        self._agreed: dict[str, set[tuple[str, str | None]]] = {}
        self._beginning: tuple[str, Mapping[str, FileOnHub]] | None = None

    def check_content(self, branch: str, state: BranchState) -> None:
        """Refuses a branch with something else than a variant of the base, unless it is to be overwritten.

        Raises:
            PushError: which says what is there and what would go.
        """
        if self._overwrite or self._is_beginning(branch, state):
            return
        foreign = foreign_content(state, self._config_of(state), self._base)
        if foreign:
            files = tuple(file for path, file in state.files.items() if path != ATTRIBUTES)
            raise PushError(f"{self._where(branch)} {foreign}. {REMEDY} It would lose {with_sizes(files)}.")

    def beginning(self) -> str:
        """The commit at which a new branch can begin: the repository's first, if it holds no model.

        Raises:
            PushError: if the history was squashed, so that the first commit holds everything.
        """
        commit, files = self._first_commit()
        if not self._overwrite and not set(files) <= _FIRST_FILES:
            raise PushError(
                f"the history of {self._repo_id} begins with a commit that holds files (it was squashed), and a new "
                "branch would begin with these: give another --repo-id, or --overwrite to replace them on the new "
                "branch; other branches stay as they are."
            )
        return commit

    def changes(self, publication: Publication, state: BranchState, has_begun_now: bool = False) -> Changes:
        """What would have to change for a branch to hold the variant, and what would be lost by it."""
        knowledge = self._knowledge(state)
        if state.is_empty or has_begun_now or self._is_beginning(publication.branch, state):
            return _without_losses(replace_everything(publication.files, state, knowledge))
        config = self._config_of(state)
        recorded = config.get("aot_base_model") if config.get("model_type") == "aot_llava_onevision" else None
        is_of_its_kind = recorded == base_model_id(self._base, publication.variant)
        if self._overwrite and not is_of_its_kind and foreign_content(state, config, self._base):
            return replace_everything(publication.files, state, knowledge)
        if not self._overwrite:
            self.check_content(publication.branch, state)
        return replace_what_is_ours(publication.files, state, knowledge, self._overwrite)

    def agree(self, branch: str, changes: Changes) -> None:
        """Takes note of what the user is told will be lost.

        Raises:
            PushError: if there is something, and it is not to be overwritten.
        """
        if not self._overwrite:
            check_nothing_is_lost(self._where(branch), changes)
        self._agreed[branch] = {_identity(file) for file in changes.lost}

    def check_agreed(self, branch: str, changes: Changes) -> None:
        """Refuses changes by which more would be lost than the user was told: somebody has changed the branch since.

        Raises:
            PushError: which names it.
        """
        if not self._overwrite:
            check_nothing_is_lost(self._where(branch), changes)
        new = tuple(file for file in changes.lost if _identity(file) not in self._agreed.get(branch, set()))
        if new:
            raise PushError(
                f"{self._where(branch)} was changed by somebody while this ran, and would lose {with_sizes(new)}, "
                "too: run the same command again if that may go."
            )

    def _where(self, branch: str) -> str:
        return f"{self._repo_id}, branch {branch},"

    def _first_commit(self) -> tuple[str, Mapping[str, FileOnHub]]:
        """Asked for once: if it is squashed away meanwhile, no branch can begin there."""
        if self._beginning is None:
            api = self._hub.api
            *_, first = api.list_repo_commits(self._repo_id, revision=MAIN)
            self._beginning = first.commit_id, files_at(api, self._repo_id, first.commit_id)
        return self._beginning

    def _is_beginning(self, branch: str, state: BranchState) -> bool:
        """Whether a branch was begun by a run that was interrupted, and holds but what its first commit has."""
        if branch == MAIN or state.is_empty or not set(state.files) <= _FIRST_FILES:
            return False
        return self._first_commit()[0] == state.commit

    def _config_of(self, state: BranchState) -> dict[str, Any]:
        if "config.json" not in state.files or state.files["config.json"].size > LARGEST:
            return {}
        try:
            return parse_object(self._hub.fetch(state.files["config.json"]).file.read_bytes())
        except BadJsonError:
            return {}

    def _knowledge(self, state: BranchState) -> Knowledge:
        history = History(self._hub.api, self._repo_id, state.commit)
        stock = _StockWeights(self._hub, lambda: self._config_of(state))

        def is_own(file: FileOnHub) -> bool:
            original = self._base.originals.get(file.path)
            return (original is not None and file.is_same_as(original)) or history.has_written(file)

        return Knowledge(self._is_same, is_own, stock.has)


@dataclass(frozen=True)
class _StockWeights:
    """The weights of the base that a branch records, at the commit that it records."""

    hub: Hub
    config: Callable[[], dict[str, Any]]

    def has(self, file: FileOnHub) -> bool:
        there = self._files.get(file.path)
        return there is not None and there.is_same_as(file)

    @cached_property
    def _files(self) -> Mapping[str, FileOnHub]:
        config = self.config()
        base, revision = config.get("aot_base_model"), config.get("aot_base_revision")
        if repo_id_problem(base) or not isinstance(revision, str) or not re.fullmatch(r"[0-9a-f]{40}", revision):
            return {}
        try:
            return files_at(self.hub.api, base, revision)
        except HfHubHTTPError as error:
            if error.response.status_code in (401, 403, 404):
                return {}  # it is gone, or not for this token: then the weights cannot be had again
            raise


def _without_losses(changes: Changes) -> Changes:
    return Changes(changes.write, changes.delete)


def _identity(file: FileOnHub) -> tuple[str, str | None]:
    return file.path, file.sha256 or file.blob_id
