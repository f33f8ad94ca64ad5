"""Stops runs that write a folder at every system call that changes a disk, and says what stood there.

A program of its own, without torch, so that many processes can be forked from it: `python stopped_runs.py FOLDER`.
Every line of its output is one stop, as JSON. It is stopped by `kill`, by Ctrl-C (`interrupt`) or by an `error` of the
system call; after the last two the run lives long enough to put things in order itself. A scenario says what happens:

    replaced    a folder that the command wrote is replaced
    added       somebody puts a file into it at the last moment
    remade      where a stop leaves nothing in the folder's place, somebody makes another folder there

and whether two folders can change places at once, or have to be renamed one after the other.
"""

import errno
import json
import os
import shutil
import sys
from contextlib import suppress
from itertools import count, product
from pathlib import Path

from hub_upload import exchange, output_marker, placing
from hub_upload.errors import PushError
from hub_upload.files import GeneratedFile
from hub_upload.output_folder import claim_output

# Only a killed run leaves nothing in the folder's place, and only where two folders cannot change places at once.
RUNS = (
    *product(["replaced"], (True, False), ("kill", "interrupt")),
    *product(["added"], (True, False), ("kill", "error")),
    ("remade", False, "kill"),
)
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "ctypes.dlsym"}
STOPPED = 77

rename_with_flags = exchange._rename


def main(folder: Path) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for scenario, at_once, way in RUNS:
        for step in count(1):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            told = _stop(folder / "out", scenario, at_once, way, step)
            print(json.dumps({"scenario": scenario, "at_once": at_once, "way": way, "step": step, **told}))
            if not told["was_stopped"]:
                break


def _stop(output: Path, scenario: str, at_once: bool, way: str, step: int) -> dict:
    _write(output, "old")
    inode = output.stat().st_ino

    def write() -> None:
        exchange._rename = lambda *arguments: _rename(output, scenario, at_once, *arguments)
        _write(output, "new")

    told = {"was_stopped": _fork(write, step, way), "then": _content(output)}
    if scenario == "remade" and not output.exists():
        output.mkdir()
        (output / "theirs.txt").write_text("theirs")
    said, refusal = [], None
    try:
        with claim_output(output, "variant", None, True, said.append):
            pass
    except PushError as error:
        refusal = str(error)
    later = {"later": _content(output), "is_same_folder": output.stat().st_ino == inode, "beside": _beside(output)}
    return {**told, "said": said, "refusal": refusal, **later}


def _rename(output: Path, scenario: str, at_once: bool, source: Path, target: Path, flag: int) -> bool:
    if scenario == "added" and output in (source, target) and not output.parent.joinpath("added").exists():
        output.parent.joinpath("added").mkdir()
        (output / "notes.txt").write_text("mine")
    return at_once and rename_with_flags(source, target, flag)


def _write(output: Path, content: str) -> None:
    files = [GeneratedFile("a.txt", content.encode()), GeneratedFile("below/b.txt", content.encode())]
    with claim_output(output, "variant", None, True, lambda _: None) as claimed:
        claimed.write(lambda folder: placing.place_files(files, folder, hard_links=False))


def _fork(action, step: int, way: str) -> bool:
    """Runs in a process of its own; whether it was stopped before it came to its end."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == STOPPED
    stop = _StopAt(step, way)
    sys.addaudithook(stop)
    with suppress(KeyboardInterrupt, PushError, OSError):
        action()
    os._exit(STOPPED if stop.changes >= step else 0)


class _StopAt:
    """An audit hook that lets all system calls pass that change the disk, but for one."""

    def __init__(self, step: int, way: str):
        self.step, self.way, self.changes = step, way, 0

    def __call__(self, event: str, arguments: tuple) -> None:
        is_writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event not in CHANGES and not is_writing:
            return
        self.changes += 1
        if self.changes == self.step:
            if self.way == "kill":
                os._exit(STOPPED)
            raise KeyboardInterrupt if self.way == "interrupt" else OSError(errno.EIO, os.strerror(errno.EIO))


def _content(output: Path) -> dict[str, str] | None:
    if not output.exists():
        return None
    files = [file for file in output.rglob("*") if file.is_file() and file.name != output_marker.MARKER]
    return {file.relative_to(output).as_posix(): file.read_text() for file in files}


def _beside(output: Path) -> list[str]:
    others = [file for file in output.parent.rglob("*") if file.is_file() and output not in file.parents]
    return sorted(f"{file.name}: {file.read_text()}" for file in others if file.name != output_marker.MARKER)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
