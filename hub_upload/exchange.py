"""Renames that replace nothing by mistake: two paths changing places at once, and a move to where nothing stands."""

import ctypes
import errno
import os
from pathlib import Path

# renameat2(2)
_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
_NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}


def exchange(one: Path, other: Path) -> bool:
    """Lets two paths change places, so that neither is ever missing; False where the system cannot do that."""
    return _rename(one, other, _EXCHANGE)


def move(source: Path, target: Path) -> None:
    """Renames a file or folder.

    Raises:
        FileExistsError: if something stands at the target, be it an empty folder.
    """
    if _rename(source, target, _NOREPLACE):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)


def _rename(source: Path, target: Path, flag: int) -> bool:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if function is None:
        return False
    if function(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_SUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))
