"""Files that are there whole or not at all, and that replace nothing but files of their own kind."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# Enough of a file to tell its kind.
_BEGINNING = 4096


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file of the same suffix beside it, which then takes its place and permissions.

    A symbolic link stays, and what it leads to is replaced.
    """
    target = Path(os.path.realpath(file))
    unfinished = target.with_name(f".{uuid.uuid4().hex}{target.suffix}")
    try:
        write(unfinished)
        with suppress(FileNotFoundError):
            shutil.copymode(target, unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def check_writable(file: Path, kind: str, is_of_kind: Callable[[bytes], bool]) -> None:
    """Looks whether a file can be written, and whether what stands there may be replaced; leaves nothing behind.

    Args:
        kind: what is written, in words.
        is_of_kind: tells by its first bytes whether a file is that; an empty one is replaced, too.

    Raises:
        OSError: with the remedy, if it cannot or may not.
    """
    if file.is_dir():
        raise OSError(f"{file} is a folder. Give the path of a file.")
    if not file.parent.is_dir():
        raise OSError(f"the folder {file.parent} does not exist. Make it first, or give another path.")
    try:
        tempfile.TemporaryFile(dir=Path(os.path.realpath(file)).parent).close()
    except OSError as error:
        raise OSError(
            f"the folder {file.parent} cannot be written to ({error.strerror}). Give another path."
        ) from error
    if file.exists() and not _may_be_replaced(file, is_of_kind):
        raise OSError(f"{file} is no {kind}, and is not replaced. Give another path.")


def _may_be_replaced(file: Path, is_of_kind: Callable[[bytes], bool]) -> bool:
    if not file.is_file():
        return False
    with open(file, "rb") as opened:
        beginning = opened.read(_BEGINNING)
    return not beginning or is_of_kind(beginning)
