"""The branch that is pushed to: what is there, what would have to change, and what may change without a question."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from .base import Base
from .errors import PushError, in_one_line
from .files import File, FileOnHub, readable_size
from .selection import INDEX, is_adapter, is_loadable, is_weights

ATTRIBUTES = ".gitattributes"
README = "README.md"
REMEDY = "Give another --repo-id or --revision, or --overwrite to replace it."
# How many files a message names.
_NAMED = 8


@dataclass(frozen=True)
class BranchState:
    """What is on the Hub; `commit` is None where there is no such branch."""

    repository_exists: bool
    commit: str | None
    files: Mapping[str, FileOnHub]

    @property
    def is_empty(self) -> bool:
        """A new repository holds nothing but .gitattributes, and so does a branch that was just begun."""
        return not set(self.files) - {ATTRIBUTES}


@dataclass(frozen=True)
class Changes:
    """What turns the branch into the variant.

    Attributes:
        write: files that are new, or have another content than there.
        delete: paths of those that go.
        keep: paths of those that the publisher has edited, and that stay as they are there.
        lost: what is replaced or deleted although this command did not write it or cannot get it again.
    """

    write: tuple[File, ...] = ()
    delete: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    lost: tuple[FileOnHub, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.write or self.delete)


@dataclass(frozen=True)
class Knowledge:
    """What is known of the files of a branch.

    Attributes:
        is_same: whether a file there has the content of a file of the variant.
        is_own: whether this command wrote a file there, in the content that it has.
        is_stock: whether a file with weights there is that of the base which the branch records.
    """

    is_same: Callable[[FileOnHub, File], bool]
    is_own: Callable[[FileOnHub], bool]
    is_stock: Callable[[FileOnHub], bool]


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


def foreign_content(state: BranchState, config: Mapping[str, object], base: Base) -> str | None:
    """What stands there instead of a variant of the base, in words; None if it is one, or nothing is there.

    That is an AOT checkpoint that records the base's Hub ID, or that has its very weights.
    """
    if state.is_empty:
        return None
    if "config.json" not in state.files:
        others = sorted(set(state.files) - {ATTRIBUTES})
        return f"is not empty and holds no model (but {in_one_line(', '.join(others[:3]))})"
    if config.get("model_type") != "aot_llava_onevision":
        return f"already holds a {in_one_line(config.get('model_type'))} model"
    recorded = config.get("aot_base_model")
    if (base.is_on_hub and recorded == base.location) or _has_weights_of(base, state):
        return None
    return f"holds an AOT variant of {in_one_line(recorded or 'another base')}, not of {base.location}"


def replace_everything(files: tuple[File, ...], state: BranchState, knowledge: Knowledge) -> Changes:
    """The branch becomes the variant and nothing else; only what begins with a dot stays, which is git's."""
    names = {file.path for file in files}
    write = _different(files, state, knowledge)
    delete = tuple(path for path in sorted(state.files) if path not in names and not path.startswith("."))
    gone = [*(file.path for file in write if file.path in state.files), *delete]
    return Changes(write, delete, lost=tuple(state.files[path] for path in gone))


def replace_what_is_ours(
    files: tuple[File, ...], state: BranchState, knowledge: Knowledge, overwrite: bool
) -> Changes:
    """The branch becomes the variant, beside files of the publisher's own.

    A card that was edited stays, unless `overwrite` says otherwise. Files that the variant does not have stay, unless
    this command wrote them, or transformers would load them in place of the variant: weights and adapters.
    """
    names = {file.path for file in files}
    differing = _different(files, state, knowledge)
    foreign = [
        file.path for file in differing if file.path in state.files and not _may_go(state, file.path, knowledge)
    ]
    keep = tuple(path for path in foreign if path == README and not overwrite)
    others = [path for path in sorted(state.files) if path not in names]
    stale = [path for path in others if _may_be_stale(path) and _may_go(state, path, knowledge)]
    in_the_way = [path for path in others if path not in stale and _is_in_the_way(path)]
    return Changes(
        write=tuple(file for file in differing if file.path not in keep),
        delete=tuple(sorted([*stale, *in_the_way])),
        keep=keep,
        lost=tuple(state.files[path] for path in [*foreign, *in_the_way] if path not in keep),
    )


def check_nothing_is_lost(where: str, changes: Changes) -> None:
    """Refuses changes by which something would go that cannot be had again.

    Raises:
        PushError: which names files and sizes.
    """
    if changes.lost:
        raise PushError(
            f"{where} holds what this command did not write or could not get again, and would lose "
            f"{with_sizes(changes.lost)}. {REMEDY}"
        )


def with_sizes(files: tuple[FileOnHub, ...]) -> str:
    """Like `README.md (3 kB), model.safetensors (1.8 GB)`; weights come first."""
    ordered = sorted(files, key=lambda file: (not is_weights(file.path), file.path))
    named = ", ".join(f"{in_one_line(file.path)} ({readable_size(file.size)})" for file in ordered[:_NAMED])
    rest = ordered[_NAMED:]
    size = readable_size(sum(file.size for file in rest))
    return named + (f" and {len(rest)} more ({size})" if rest else "")


def _different(files: tuple[File, ...], state: BranchState, knowledge: Knowledge) -> tuple[File, ...]:
    there = state.files
    return tuple(file for file in files if not (file.path in there and knowledge.is_same(there[file.path], file)))


def _may_go(state: BranchState, path: str, knowledge: Knowledge) -> bool:
    """Weights that are nobody's work: the base has them. Everything else that this command made."""
    is_known = knowledge.is_stock if is_weights(path) or path == INDEX else knowledge.is_own
    return is_known(state.files[path])


def _may_be_stale(path: str) -> bool:
    return is_loadable(path) or bool(re.fullmatch(r"[^/]+\.(py|safetensors)", path))


def _is_in_the_way(path: str) -> bool:
    return is_adapter(path) or path == INDEX or ("/" not in path and is_weights(path))


def _has_weights_of(base: Base, state: BranchState) -> bool:
    there = state.files
    return all(file.path in there and there[file.path].is_same_as(file) for file in base.weights)
