"""Files that are there whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file of the same suffix beside it, which is then renamed."""
    unfinished = file.with_name(f".{os.getpid()}-{file.name}")
    try:
        write(unfinished)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def check_writable(file: Path) -> None:
    """Raises `OSError`, with the remedy, unless the file can be written; leaves nothing behind."""
    if file.is_dir():
        raise OSError(f"{file} is a folder. Give the path of a file.")
    if not file.parent.is_dir():
        raise OSError(f"the folder {file.parent} does not exist. Make it first, or give another path.")
    try:
        tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise OSError(
            f"the folder {file.parent} cannot be written to ({error.strerror}). Give another path."
        ) from error
