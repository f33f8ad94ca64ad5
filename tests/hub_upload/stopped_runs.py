"""Stops a run that writes a folder at every line of its code, and says what stood on the disk then and afterwards.

A program of its own, without torch, so that thousands of processes can be forked from it: `python stopped_runs.py
FOLDER SCENARIO WAY`. Every line of its output is one stop, as JSON. A scenario names what happens besides:

    replaced    a folder that the command wrote is replaced
    added       a file is put into it just before
    remade      where the stop leaves nothing in the folder's place, the user puts something there

With `-renames` behind it, the system cannot let two folders change places. The way is `kill`, or `interrupt` for
Ctrl-C, which the run survives long enough to put things in order itself.
"""

import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from hub_upload import exchange, output_folder, output_marker, placing, work_folder
from hub_upload.errors import PushError
from hub_upload.files import GeneratedFile
from hub_upload.output_folder import claim_output

WATCHED = {module.__file__ for module in (exchange, output_folder, output_marker, placing, work_folder, shutil)}
STOPPED = 77


def main(folder: Path, scenario: str, way: str) -> None:
    if scenario.endswith("-renames"):
        exchange._rename = lambda *_: False
    for step in range(1, 10_000):
        shutil.rmtree(folder, ignore_errors=True)
        output = folder / "out"
        folder.mkdir()
        _write(output, "old", scenario="")
        code = _fork(lambda output=output: _write(output, "new", scenario), step, way)
        stop = {"step": step, "code": code, "then": _content(output)}
        if scenario.startswith("remade") and not output.exists():
            output.mkdir()
            (output / "theirs.txt").write_text("theirs")
        told = []
        with suppress(PushError):
            try:
                with claim_output(output, "variant", None, True, told.append):
                    pass
            except PushError as error:
                # Whatever stands there, with files of the user's, is not replaced: that is said before anything else.
                stop["refused"] = str(error)
        stop |= {"told": told, "later": _content(output), "beside": _beside(folder)}
        print(json.dumps(stop))
        if code == 0:
            return


def _write(output: Path, content: str, scenario: str) -> None:
    def fill(building: Path) -> None:
        files = [GeneratedFile("a.txt", content.encode()), GeneratedFile("below/b.txt", content.encode())]
        placing.place_files(files, building, hard_links=False)
        if scenario.startswith("added"):
            (output / "notes.txt").write_text("mine")

    with claim_output(output, "variant", None, True, lambda _: None) as claimed:
        claimed.write(fill)


def _fork(action, step: int, way: str) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.settrace(_stop_at(step, way))
    try:
        action()
    except KeyboardInterrupt:
        os._exit(STOPPED)
    except PushError:
        os._exit(0)
    except BaseException:
        os._exit(1)
    os._exit(0)


def _stop_at(step: int, way: str):
    lines = 0

    def trace(frame, event, _):
        nonlocal lines
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            lines += 1
            if lines == step:
                if way == "kill":
                    os._exit(STOPPED)
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    return trace


def _content(output: Path) -> dict[str, str] | None:
    if not output.exists():
        return None
    files = [file for file in output.rglob("*") if file.is_file() and file.name != output_marker.MARKER]
    return {file.relative_to(output).as_posix(): file.read_text() for file in files}


def _beside(folder: Path) -> list[str]:
    others = (file for file in folder.rglob("*") if file.is_file() and (folder / "out") not in file.parents)
    return sorted(f"{file.name}: {file.read_text()}" for file in others if file.name != output_marker.MARKER)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
