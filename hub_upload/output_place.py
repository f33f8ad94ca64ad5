"""Where a folder may be written: never where something else of the user's, or of the system's, stands or would stand.

Folders are compared by their paths without links and by device and inode, which tell the same folder through another
spelling, a link or a bind mount.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants

from .errors import PushUsageError, in_one_line

_MOUNTS = Path("/proc/self/mountinfo")
_HUB_CACHES = ("HF_HUB_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE")

Identity = tuple[int, int]


def check_place(output: Path, base: Path | None) -> Path:
    """Returns the folder's path without links.

    Args:
        output: as the user named it.
        base: the folder that it is made of, if that is one.

    Raises:
        PushUsageError: if a folder must not be written there.
    """
    what = f"--output {in_one_line(output)}"
    try:
        if output.is_symlink():
            raise PushUsageError(f"{what} is a symbolic link: give the folder that it leads to, or another one.")
        if output.exists() and not output.is_dir():
            raise PushUsageError(f"{what} is {'a file' if output.is_file() else 'no folder'}: give a folder.")
        place = Path(os.path.realpath(output))
        reason = _refusal(place, base)
    except OSError as error:
        raise PushUsageError(f"{what} cannot be written: {error.strerror}. Give another folder.") from error
    if reason:
        raise PushUsageError(f"{what} {reason}: give another folder.")
    return place


def _refusal(place: Path, base: Path | None) -> str | None:
    if place.parent == place:
        return "is the root of the file system"
    if _is_mount_point(place):
        return "is a mount point"
    if base is not None:
        for folder in _folders_of(base):
            if relation := _relation(place, folder, and_within=True):
                return f"{relation} {'the base' if folder == base else f'{folder}, where files of the base lie'}"
    for folder, name in ((Path.cwd(), "the working directory"), (Path.home(), "the home directory")):
        if relation := _relation(place, folder, and_within=False):
            return f"{relation} {name}"
    for folder in {Path(getattr(constants, name)) for name in _HUB_CACHES if hasattr(constants, name)}:
        if relation := _relation(place, folder, and_within=True):
            return f"{relation} huggingface_hub's cache, {folder}"
    return None


def _relation(place: Path, folder: Path, and_within: bool) -> str | None:
    """How the place relates to a folder that is to be left alone; None if it does not touch it."""
    real = Path(os.path.realpath(folder))
    its, own = _identity(real), _identity(place)
    if place == real or (own is not None and own == its):
        return "is"
    if place in real.parents or (own is not None and own in _lineage(real)):
        return "holds"
    if and_within and (real in place.parents or (its is not None and its in _lineage(place))):
        return "lies in"
    return None


def _folders_of(base: Path) -> Iterator[Path]:
    """The base, all folders in it, and those that its links lead to."""
    yield base
    linked = set()
    for folder, folders, files in os.walk(base):
        yield from (Path(folder, name) for name in folders)
        paths = (Path(folder, name) for name in files)
        linked |= {Path(os.path.realpath(path)).parent for path in paths if path.is_symlink()}
    yield from sorted(linked)


def _lineage(folder: Path) -> set[Identity]:
    """The identities of a folder and of all above it, as far as they exist."""
    return {identity for path in (folder, *folder.parents) if (identity := _identity(path)) is not None}


def _identity(path: Path) -> Identity | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _is_mount_point(place: Path) -> bool:
    # Within one file system `ismount` does not see a bind mount.
    return os.path.ismount(place) or str(place) in _mount_points()


def _mount_points() -> set[str]:
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return set()
    # Blanks and the like are written as three octal digits.
    return {re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split(" ")[4]) for line in lines}
