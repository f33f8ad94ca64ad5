"""The branch that is pushed to: what is there, whether it may be changed, and what would have to change."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from .base import Base
from .errors import PushError
from .files import File, FileOnHub, is_weights

# Code and weights that an older version of a variant left behind.
_STALE = re.compile(r"[^/]+\.(py|safetensors)|model\.safetensors\.index\.json")


@dataclass(frozen=True)
class BranchState:
    """What is on the Hub; `commit` is None where there is no such branch."""

    repository_exists: bool
    commit: str | None
    files: Mapping[str, FileOnHub]

    @property
    def is_empty(self) -> bool:
        """A new repository holds nothing but .gitattributes, and so does a branch that was just begun."""
        return not set(self.files) - {".gitattributes"}


@dataclass(frozen=True)
class Changes:
    """What turns the branch into the variant."""

    write: tuple[File, ...]
    delete: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.write or self.delete)


def read_branch(api: HfApi, repo_id: str, branch: str) -> BranchState:
    """Looks at a branch; only names, sizes and hashes are asked for."""
    try:
        info = api.model_info(repo_id, revision=branch, files_metadata=True)
    except GatedRepoError:
        raise
    except RevisionNotFoundError:
        return BranchState(True, None, {})
    except RepositoryNotFoundError:
        return BranchState(False, None, {})
    siblings = info.siblings or ()
    files = {sibling.rfilename: FileOnHub.from_sibling(sibling, repo_id, info.sha) for sibling in siblings}
    return BranchState(True, info.sha, files)


def check_may_write(where: str, state: BranchState, base: Base, path_of: Callable[[FileOnHub], Path]) -> None:
    """Refuses to overwrite anything but a variant of the same base.

    That is an AOT checkpoint that records the base's Hub ID, or that has its very weights.

    Raises:
        PushError: if something else is there.
    """
    if state.is_empty:
        return
    remedy = "Give another --repo-id or --revision, or --overwrite to replace it."
    if "config.json" not in state.files:
        others = sorted(set(state.files) - {".gitattributes"})
        raise PushError(f"{where} is not empty and holds no model (but {', '.join(others[:3])}). {remedy}")
    try:
        config = json.loads(path_of(state.files["config.json"]).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        config = {}
    if config.get("model_type") != "aot_llava_onevision":
        raise PushError(f"{where} already holds a {config.get('model_type')} model. {remedy}")
    recorded = config.get("aot_base_model")
    is_of_same_base = base.is_on_hub and recorded == base.location
    if not is_of_same_base and not _has_weights_of(base, state):
        raise PushError(
            f"{where} holds an AOT variant of {recorded or 'another base'}, not of {base.location}. {remedy}"
        )


def needed_changes(
    files: tuple[File, ...], state: BranchState, is_same: Callable[[FileOnHub, File], bool], delete_everything: bool
) -> Changes:
    """Compares by hash.

    Of the branch's files that are not the variant's, old code and weights are deleted, all others only with
    `delete_everything`: they are the publisher's own.
    """
    names = {file.path for file in files}
    return Changes(
        write=tuple(
            file for file in files if not (file.path in state.files and is_same(state.files[file.path], file))
        ),
        delete=tuple(
            path
            for path in sorted(set(state.files) - names - {".gitattributes"})
            if delete_everything or _STALE.fullmatch(path)
        ),
    )


def _has_weights_of(base: Base, state: BranchState) -> bool:
    there = {path: file for path, file in state.files.items() if is_weights(path)}
    ours = {file.path: file for file in base.weights}
    return there.keys() == ours.keys() and all(there[path].is_same_as(ours[path]) for path in ours)
