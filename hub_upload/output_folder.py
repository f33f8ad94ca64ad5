"""Writes a variant to a folder instead of the Hub: whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .conversion import RenamedWeights
from .errors import PushError, PushUsageError, diagnose
from .files import File, FileOnHub
from .hub import Hub


def check_output(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that holds something or cannot be written; leaves nothing behind."""
    if folder.exists() and not folder.is_dir():
        raise PushUsageError(f"--output {folder} is a file: give a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise PushError(f"--output {folder} is not empty: give another folder, or --overwrite to replace it.")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    try:
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        raise PushUsageError(
            f"--output {folder} cannot be written: {above} takes no files ({error.strerror}). Give another folder."
        ) from error


def write_folder(folder: Path, files: Iterable[File | RenamedWeights], hub: Hub) -> None:
    """Writes into a temporary folder beside it, which is then renamed: an interrupted run leaves nothing."""
    # Downloads first: they are kept in the cache, so that a second run goes on where this one stopped.
    on_disk = [_on_disk(file, hub) for file in files]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            for file in on_disk:
                file.place_in(unfinished)
            unfinished.chmod(0o755)
            _replace(folder, unfinished)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        diagnosis = diagnose(error)
        raise PushError(f"Writing {folder}: {diagnosis.cause}. {diagnosis.remedy}") from error


def _on_disk(file: File | RenamedWeights, hub: Hub) -> File | RenamedWeights:
    if isinstance(file, RenamedWeights):
        return file.fetched(hub)
    return hub.fetch(file) if isinstance(file, FileOnHub) else file


def _replace(folder: Path, new: Path) -> None:
    """Renames the new folder; what was there before goes only once the new one stands."""
    old = None
    if folder.exists():
        old = new.with_name(f"{new.name}-old")
        folder.rename(old)
    new.rename(folder)
    if old is not None:
        shutil.rmtree(old)
