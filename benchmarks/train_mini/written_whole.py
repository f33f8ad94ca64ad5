"""Files that are there whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(file: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a temporary file of the same suffix, then renames it."""
    temporary = file.with_name(f".{os.getpid()}-{file.name}")
    try:
        write(temporary)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
