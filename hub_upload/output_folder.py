"""A folder that is written whole or not at all, and that takes the place of nothing but what was written like it.

It is made in a hidden folder beside its place, which one run at a time holds:

    lock            held as long as the run lives
    building        what is being written
    new-RUN         written whole, on its way to its place
    old-RUN         what stood there, on its way out
    condemned-RUN   what stood there and held nothing but what this project wrote, being removed

What was there and what is new change places at once where the system can do that; else there is a moment between two
renames. So whenever a run is stopped, these names tell the next one what to do: what stood there is put back, unless
the new folder stands in its place and nothing is lost by removing the old one.
"""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import PushError, diagnose, in_one_line
from .exchange import exchange, move
from .output_marker import not_written_by_us, read_marker, remove_written, snapshot, write_marker
from .output_place import check_place
from .work_folder import check_writable, work_folder

_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}
_OF_A_RUN = re.compile(r"(?:new|old|condemned)-(\w+)")


def check_output(path: Path, variant: str, base: Path | None, overwrite: bool) -> None:
    """Refuses what `claim_output` refuses; writes nothing.

    Raises:
        PushError: if the folder cannot be written, or something of somebody else's stands there.
    """
    place = check_place(path, base)
    check_writable(place, path)
    _check_contents(path, place, variant, overwrite)


@contextmanager
def claim_output(
    path: Path, variant: str, base: Path | None, overwrite: bool, warn: Callable[[str], None]
) -> Iterator["OutputFolder"]:
    """Holds the place of a folder while it is made; what an interrupted run left there is put in order first.

    Args:
        path: where to, as the user named it.
        variant: what is written; a folder that holds another variant is not replaced.
        base: the folder that it is made of, if that is one.
        overwrite: whether a folder of the same variant may be replaced.
        warn: called with a line of text for the user.

    Raises:
        PushError: if the folder cannot be written, something of somebody else's stands there, or another run holds it.
    """
    place = check_place(path, base)
    with work_folder(place, path) as work:
        output = OutputFolder(path, place, work, variant, warn)
        try:
            output.settle()
            output.seen = _check_contents(path, place, variant, overwrite)
            yield output
        finally:
            output.settle()


class OutputFolder:
    """A place that this run alone writes to.

    Attributes:
        path: as the user named it.
        seen: the `snapshot` of the folder that is to be replaced; None if there is none, or an empty one.
    """

    def __init__(self, path: Path, place: Path, work: Path, variant: str, warn: Callable[[str], None]):
        self.path = path
        self.seen: dict | None = None
        self._place = place
        self._work = work
        self._variant = variant
        self._warn = warn

    def write(self, fill: Callable[[Path], object]) -> None:
        """Lets `fill` make the content in an empty folder, which then takes its place.

        Raises:
            PushError: if something cannot be written, or stands there that did not when the run began: it stays.
        """
        run = uuid.uuid4().hex
        building, new = self._work / "building", self._work / f"new-{run}"
        try:
            building.mkdir()
            fill(building)
            write_marker(building, self._variant, run)
            building.rename(new)
            self._put_in_place(new, self._work / f"old-{run}")
            self.settle()
        except OSError as error:
            diagnosis = diagnose(error)
            raise PushError(f"Writing {self.path}: {diagnosis.cause}. {diagnosis.remedy}") from error
        if not self._stands(run):
            raise PushError(
                f"{self.path} was changed while the run went on: it stays as it is, and what was made to replace it "
                "is removed again. Move what is in it elsewhere and run the same command again, or give another "
                "folder."
            )

    def settle(self) -> None:
        """Brings to an end what this run or an interrupted one began, by what stands there.

        Raises:
            PushError: if a folder cannot be put back, because something else stands in its place now.
        """
        shutil.rmtree(self._work / "building", ignore_errors=True)
        runs = {match[1] for entry in os.listdir(self._work) if (match := _OF_A_RUN.fullmatch(entry))}
        for run in sorted(runs):
            self._settle_run(run)

    def _put_in_place(self, new: Path, old: Path) -> None:
        """Does so if nothing would be lost; whether it came to that, and all that is left, is for `settle` to see."""
        with suppress(FileNotFoundError):
            shutil.copymode(self._place, new)
        if self.seen is None or not os.path.lexists(self._place):
            # The system lets a folder take the place of nothing but an empty one.
            try:
                new.rename(self._place)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
        elif self._may_go(self._place) and not exchange(new, self._place):
            move(self._place, old)
            if self._may_go(old):
                move(new, self._place)

    def _settle_run(self, run: str) -> None:
        new, old, condemned = (self._work / f"{name}-{run}" for name in ("new", "old", "condemned"))
        if os.path.lexists(new) and not _is_of_run(new, run):
            move(new, old)  # They have changed places.
        elif os.path.lexists(old) and _is_of_run(old, run):
            move(old, new)  # They have changed places again.
        if os.path.lexists(old):
            if not self._stands(run):
                self._move_back(old)
            elif self._may_go(old):
                move(old, condemned)
            else:
                self._exchange_back(old, new)
        if os.path.lexists(new):
            move(new, condemned)
        if os.path.lexists(condemned) and not remove_written(condemned):
            raise PushError(f"{condemned} holds what this command did not write: move that elsewhere.")

    def _move_back(self, old: Path) -> None:
        try:
            move(old, self._place)
        except FileExistsError:
            raise PushError(
                f"a run was stopped while it replaced {self.path}, and something else stands there now: what was "
                f"there before is in {old}. Move one of the two elsewhere and run the same command again."
            ) from None
        self._warn(f"{self.path} is back in its place: the run that was to replace it did not come to its end.")

    def _exchange_back(self, old: Path, new: Path) -> None:
        """For what stood there holds something of the user's; unless what stands there now does, too."""
        marker = read_marker(self._place)
        if marker is None or not_written_by_us(self._place, marker):
            raise PushError(
                f"a run was stopped while it replaced {self.path}, and files were put into both: what was there "
                f"before is in {old}. Take from it what you need, remove it and run the same command again."
            )
        if exchange(old, self._place):
            move(old, new)
        else:
            move(self._place, new)
            move(old, self._place)
        self._warn(f"{self.path} is back in its place, because it holds files that were put into it meanwhile.")

    def _may_go(self, old: Path) -> bool:
        """Whether nothing is in it that this project did not write."""
        if old.is_symlink() or not old.is_dir():
            return False
        if self.seen is not None and snapshot(old) == self.seen:
            return True
        marker = read_marker(old)
        return marker is not None and not not_written_by_us(old, marker)

    def _stands(self, run: str) -> bool:
        return _is_of_run(self._place, run)


def _is_of_run(folder: Path, run: str) -> bool:
    marker = read_marker(folder)
    return marker is not None and marker.run == run


def _check_contents(path: Path, place: Path, variant: str, overwrite: bool) -> dict | None:
    """Refuses to replace what this project did not write; returns the snapshot of what may be replaced."""
    what = f"--output {in_one_line(path)}"
    try:
        if not place.exists():
            return None
        if not any(place.iterdir()):
            _check_writable_folders(place, what)
            return None
        marker = read_marker(place)
        if marker is None:
            hint = "" if overwrite else ", and --overwrite replaces nothing else"
            raise PushError(f"{what} is not empty, and this command did not write it{hint}: give another folder.")
        if marker.variant != variant:
            raise PushError(
                f"{what} is not empty: it holds the variant {in_one_line(marker.variant)}, not {variant}. Give "
                "another folder, or remove this one."
            )
        if not overwrite:
            raise PushError(f"{what} is not empty: give another folder, or --overwrite to replace it.")
        _check_writable_folders(place, what)
        seen = snapshot(place)
        others = not_written_by_us(place, marker)
    except OSError as error:
        raise PushError(f"{what} cannot be read ({error}): give another folder.") from error
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise PushError(
            f"{what} is not empty: it holds what this command did not write, or what was changed since "
            f"({in_one_line(', '.join(others[:3]))}{more}), and is not replaced. Move that elsewhere, or give another "
            "folder."
        )
    return seen


def _check_writable_folders(place: Path, what: str) -> None:
    """What is protected is not replaced, and could not be removed whole."""
    for folder in (Path(folder) for folder, _, _ in os.walk(place)):
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PushError(f"{what} is write-protected: give another folder, or permission to write to {folder}.")
