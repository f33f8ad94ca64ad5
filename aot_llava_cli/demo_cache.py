"""Folders that are made once and kept in the user's cache, whole or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_root() -> Path:
    """The project's folder in the user's cache; `XDG_CACHE_HOME` moves it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aot-llava"


def cached_folder(name: str, version: str, make: Callable[[Path], None]) -> Path:
    """Returns the cached folder of this name and version; `make` fills it if there is none yet.

    `make` gets a temporary folder, which is then renamed: an interrupted run leaves nothing, and
    of two processes at once the first to finish wins and the other takes over its result.
    """
    folder = cache_root() / f"{name}-{version}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        make(unfinished)
        _rename_unless_taken(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def content_version(*parts: str | Path) -> str:
    """A short hash of texts and files: what other code made is never taken for this one's."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
    return digest.hexdigest()[:12]


def _rename_unless_taken(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
