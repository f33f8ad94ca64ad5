"""How files get into a folder: as clones where the file system shares blocks until one side changes, else as copies.

A clone or a copy is a file of its own: whatever is written to it later leaves the file that it was made of alone.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm

from .conversion import RenamedWeights
from .errors import PushError
from .files import CHUNK, FileOnDisk, GeneratedFile, readable_size, target_in
from .selection import is_weights

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# ioctl_ficlone(2), the same on every architecture that has file systems with clones.
_FICLONE = 0x40049409


def place_files(files: Iterable[GeneratedFile | FileOnDisk | RenamedWeights], folder: Path, hard_links: bool) -> None:
    """Places files in a new folder.

    Args:
        hard_links: make weights other names of the base's own files.

    Raises:
        PushError: if the disk has no room, or hard links are wanted and not possible.
        OSError: if something cannot be read or written.
    """
    to_copy = [file for file in files if not _placed_at_once(file, folder, hard_links)]
    _check_space(folder, sum(file.size for file in to_copy))
    total = sum(file.size for file in to_copy)
    with tqdm(
        total=total,
        desc="Copying",
        unit="B",
        unit_scale=True,
        file=sys.stderr,
        disable=not to_copy,
        dynamic_ncols=True,
    ) as bar:
        for file in to_copy:
            if isinstance(file, RenamedWeights):
                file.place_in(folder, bar.update)
            else:
                copy(file.file, target_in(folder, file.path), bar.update)


def _placed_at_once(file: GeneratedFile | FileOnDisk | RenamedWeights, folder: Path, hard_links: bool) -> bool:
    if isinstance(file, RenamedWeights):
        return False
    if isinstance(file, GeneratedFile):
        file.place_in(folder)
        return True
    target = target_in(folder, file.path)
    if hard_links and is_weights(file.path):
        _link(file.file, target)
        return True
    return clone(file.file, target)


def clone(source: Path, target: Path) -> bool:
    """Makes a new file that shares the other's blocks until either is written to; False where that cannot be done."""
    if fcntl is None:
        return False
    with open(source, "rb") as old, open(target, "wb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:
            return False
    return True


def copy(source: Path, target: Path, advance: Callable[[int], object]) -> None:
    """Copies the content alone: the new file may be changed and removed, whatever the other's permissions are."""
    with open(source, "rb") as old, open(target, "wb") as new:
        while chunk := old.read(CHUNK):
            new.write(chunk)
            advance(len(chunk))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        raise PushError(f"{source} cannot be hard-linked ({error.strerror}): leave out --hard-links.") from error


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise PushError(
            f"the disk is too full: {readable_size(needed)} are to be copied, and {readable_size(free)} are free. "
            "Free some space, or let --output name a larger disk."
        )
