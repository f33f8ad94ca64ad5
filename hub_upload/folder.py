"""The files of a local checkpoint; links may lead into the folder itself, or the Hub cache that it is part of."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from .errors import PushError, in_one_line
from .files import FileOnDisk
from .selection import TEMPLATES, is_loadable

_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def list_folder(folder: Path) -> dict[str, FileOnDisk]:
    """The files by their paths in the folder, without hidden ones: these are huggingface_hub's, git's, and secrets.

    Raises:
        PushError: if a file that would be read, or lies beside those, is a link that leaves the folder.
    """
    root = folder.resolve()
    return {name: FileOnDisk.at(name, path) for name, path in _walk(root) if _is_own(root, name, path)}


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    for above, folders, names in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in folders if Path(above, name).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(above, name)
            if not name.startswith("."):
                yield path.relative_to(root).as_posix(), path


def _is_own(root: Path, name: str, path: Path) -> bool:
    """Whether it is a file whose content is the checkpoint's own."""
    if not path.is_symlink():
        return path.is_file()
    is_near = "/" not in name or name.startswith(f"{TEMPLATES}/")
    target = _resolved(path)
    if target is not None and target.is_dir():
        if name == TEMPLATES:
            _refuse(root, name, path)
        return False
    if target is not None and (_stays_in(root, target) or _is_of_the_cache(root, path, target)):
        return path.is_file()
    if is_near or is_loadable(name):
        _refuse(root, name, path)
    return False


def _resolved(path: Path) -> Path | None:
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):  # it leads nowhere, or in a circle
        return None


def _stays_in(root: Path, target: Path) -> bool:
    if not target.is_relative_to(root):
        return False
    return not any(part.startswith(".") for part in target.relative_to(root).parts)


def _is_of_the_cache(root: Path, path: Path, target: Path) -> bool:
    """Whether it is a link of huggingface_hub's cache: from `snapshots/COMMIT` to `blobs` of the same repository.

    Newer releases keep there a link to a store that all repositories share, `blobs` beside them.
    """
    repository = root.parent.parent
    if root.parent.name != "snapshots" or not repository.name.startswith("models--"):
        return False
    blobs = repository / "blobs"
    blob = Path(os.path.normpath(path.parent / os.readlink(path)))
    if blobs.is_symlink() or blob.parent != blobs or not _BLOB.fullmatch(blob.name):
        return False
    shared = repository.parent / "blobs" / target.name[:2] / target.name
    return target == blob or (target == shared and bool(_BLOB.fullmatch(target.name)))


def _refuse(root: Path, name: str, path: Path) -> None:
    raise PushError(
        f"{in_one_line(name)} in {root} is a link to {in_one_line(os.readlink(path))}, outside of the folder, and "
        "what lies there may be meant for nobody: put the file itself in its place, or take the link away."
    )
