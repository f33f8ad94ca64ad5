"""What a folder says about who wrote it: the variant and every file's hash. What is not as told there is the user's.

Only what is told is ever removed, so a file that somebody put beside it cannot go with it.
"""

import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from .files import FileOnDisk, as_json

# Hidden, so that neither transformers nor a later push takes it for a part of the checkpoint.
MARKER = ".aot-llava-output.json"
_WRITTEN_BY = "aot-llava"
_LARGEST_MARKER = 1 << 24


@dataclass(frozen=True)
class Marker:
    """What was written to a folder.

    Attributes:
        variant: the name of the variant.
        run: a name of the run that wrote it, which no other has.
        hashes: the sha256 of every file by its path in the folder, but for the marker's own.
    """

    variant: str
    run: str
    hashes: Mapping[str, str]
    written_by: str = _WRITTEN_BY


def write_marker(folder: Path, variant: str, run: str) -> None:
    """Tells of all that the folder holds now."""
    paths = [path for path, entry in _entries(folder) if stat.S_ISREG(entry.st_mode)]
    # Read from the disk, not from where they came from: this is what must be recognised later.
    marker = Marker(variant, run, _hashes(folder, paths, "Hashing"))
    (folder / MARKER).write_bytes(as_json(asdict(marker)))


def read_marker(folder: Path) -> Marker | None:
    """The folder's marker; None if there is none, or one that this project did not write."""
    file = folder / MARKER
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_MARKER or folder.is_symlink():
            return None
        marker = Marker(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    is_sound = (
        marker.written_by == _WRITTEN_BY
        and isinstance(marker.variant, str)
        and isinstance(marker.run, str)
        and isinstance(marker.hashes, dict)
        and all(isinstance(value, str) for value in marker.hashes.values())
    )
    return marker if is_sound else None


def not_written_by_us(folder: Path, marker: Marker) -> list[str]:
    """What stands in the folder that the marker does not tell of, or that was changed since: all that is not ours."""
    folders = _folders_of(marker)
    others, files = [], []
    for path, status in _entries(folder):
        if stat.S_ISREG(status.st_mode) and path in marker.hashes:
            files.append(path)
        elif path != MARKER and not (stat.S_ISDIR(status.st_mode) and path in folders):
            others.append(path)
    found = _hashes(folder, files, f"Checking {folder.name}")
    return sorted([*others, *(path for path in files if found[path] != marker.hashes[path])])


def snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """Tells without reading whether anything in a folder has changed since; also of what is no folder."""
    return {
        path: (status.st_mode, status.st_ino)
        + ((status.st_size, status.st_mtime_ns, status.st_ctime_ns) if not stat.S_ISDIR(status.st_mode) else ())
        for path, status in _entries(folder)
    }


def remove_written(folder: Path) -> bool:
    """Removes what the folder's marker tells of, the marker last, and then the folder; whether nothing was left."""
    marker = read_marker(folder)
    if marker is not None:
        entries = list(_entries(folder))
        for path, status in entries:
            if path in marker.hashes and not stat.S_ISDIR(status.st_mode):
                (folder / path).unlink()
        for path, status in reversed(entries):
            if stat.S_ISDIR(status.st_mode) and path in _folders_of(marker):
                _remove_if_empty(folder / path)
        if [path for path, _ in _entries(folder)] == [MARKER]:
            (folder / MARKER).unlink()
    return _remove_if_empty(folder)


def _folders_of(marker: Marker) -> set[str]:
    return {parent.as_posix() for path in marker.hashes for parent in Path(path).parents}


def _entries(folder: Path, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """The paths of all in it with their status, a folder before what is in it; links are not followed."""
    for entry in sorted(os.scandir(folder / below), key=lambda entry: entry.name):
        path = f"{below}{entry.name}"
        status = entry.stat(follow_symlinks=False)
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            yield from _entries(folder, f"{path}/")


def _hashes(folder: Path, paths: list[str], doing: str) -> dict[str, str]:
    files = [FileOnDisk(path, folder / path) for path in paths]
    total = sum(file.size for file in files)
    hashes = {}
    with tqdm(total=total, desc=doing, unit="B", unit_scale=True, file=sys.stderr, dynamic_ncols=True) as bar:
        for file in files:
            hashes[file.path] = file.sha256
            bar.update(file.size)
    return hashes


def _remove_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True
