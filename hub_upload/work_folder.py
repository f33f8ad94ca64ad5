"""A hidden folder beside the place of another one, in which one run at a time works on it."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import PushError, PushUsageError, in_one_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_ATTEMPTS = 100
_LOCK = "lock"

# What the lock's file says: without it the folder is somebody's own, whatever its name.
_SIGNATURE = b"The folder of this file is a work folder of aot-llava.\n"


@contextmanager
def work_folder(place: Path, path: Path) -> Iterator[Path]:
    """Makes and holds the folder; it goes afterwards, unless something was left in it.

    A folder of this name that holds something is taken for an interrupted run's only if its lock says so.

    The system lets go of the lock when the process ends, however it ends, so that a killed run stops no other.

    Args:
        place: the path without links.
        path: the same, as the user named it.

    Raises:
        PushError: if another run holds it, it cannot be made, or a folder of somebody's own has its name.
    """
    if fcntl is None:
        raise PushError("--output needs file locks, which this system does not have: use Linux, macOS or WSL.")
    work = place.with_name(f".{place.name}.aot-llava")
    missing = [parent for parent in work.parents if not parent.exists()]
    try:
        lock = _hold(work)
    except OSError as error:
        _remove_empty(missing)
        raise _cannot_be_written(place, path, error) from error
    if lock is None:
        raise PushError(
            f"--output {in_one_line(path)} is being written by another run: wait until it is done, or give another "
            "folder."
        )
    try:
        yield work
    finally:
        # While it is held, so that nobody else can hold a file that has no name any more. With something left in it
        # the folder stays known by its lock.
        if os.listdir(work) == [_LOCK]:
            (work / _LOCK).unlink()
        os.close(lock)
        _remove_empty([work, *missing])


def check_writable(place: Path, path: Path) -> None:
    """Refuses a place beside which nothing can be written; leaves nothing behind.

    Raises:
        PushError: then.
    """
    try:
        tempfile.TemporaryFile(dir=_nearest_folder(place)).close()
    except OSError as error:
        raise _cannot_be_written(place, path, error) from error


def _cannot_be_written(place: Path, path: Path, error: OSError) -> PushUsageError:
    return PushUsageError(
        f"--output {in_one_line(path)} cannot be written: {_nearest_folder(place)} takes no files ({error.strerror}). "
        "Give another folder."
    )


def _nearest_folder(place: Path) -> Path:
    return next(parent for parent in place.parents if parent.exists())


def _hold(work: Path) -> int | None:
    """The descriptor of the held lock; None if another run holds it."""
    for attempt in range(_ATTEMPTS):
        try:
            work.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(work)
            _check_holds_a_lock(work)
            lock = os.open(work / _LOCK, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:  # a run that ended has just removed it
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        if not _lock(lock):
            os.close(lock)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(work / _LOCK)):
                return _signed(lock, work)
        os.close(lock)
    return None


def _signed(lock: int, work: Path) -> int:
    """The lock with its signature, which is written to an empty file only, and to none beside a stranger's files."""
    found = os.pread(lock, len(_SIGNATURE) + 1, 0)
    if not found and os.listdir(work) == [_LOCK]:
        os.pwrite(lock, _SIGNATURE, 0)
    elif found != _SIGNATURE:
        os.close(lock)
        raise _not_a_work_folder(work)
    return lock


def _check_holds_a_lock(work: Path) -> None:
    """Refuses before a lock is made in somebody's own folder."""
    names = os.listdir(work)
    if names and _LOCK not in names:
        raise _not_a_work_folder(work)


def _not_a_work_folder(work: Path) -> PushUsageError:
    return PushUsageError(
        f"{in_one_line(work)} holds what this command did not put there, and its name is what this command works "
        "under: move it elsewhere, or give another --output."
    )


def _check_owner(work: Path) -> None:
    """What another user put there could make us remove or take over what is not ours."""
    status = work.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, f"{work} belongs to somebody else")


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
