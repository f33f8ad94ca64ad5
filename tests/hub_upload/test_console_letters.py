"""No letter stops a program: on consoles that have few, and with names that are no text."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aot_llava_cli.__main__ import app
from hub_upload.console import never_stop_at_a_letter

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
def test_a_letter_that_a_stream_lacks_is_written_as_its_number(encoding, monkeypatch):
    buffers = io.BytesIO(), io.BytesIO()
    streams = [io.TextIOWrapper(buffer, encoding=encoding, errors="strict") for buffer in buffers]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    never_stop_at_a_letter()
    for stream, buffer in zip(streams, buffers):
        stream.write("6,272 → 627 \udcff")
        stream.flush()
        arrow = "→" if encoding == "utf-8" else "\\u2192"
        assert buffer.getvalue().decode(encoding) == f"6,272 {arrow} 627 \\udcff"


def test_a_stream_that_is_none_of_pythons_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    never_stop_at_a_letter()
    print("→")
    assert sys.stdout.getvalue() == "→\n"


PROGRAMS = {
    "aot-llava": ["aot_llava_cli", "push", "--variant", "no→where"],
    "hub_upload": ["hub_upload", "--variant", "no→where"],
    "benchmarks": ["benchmarks", "--frames", "no→where"],
}


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize(("module", "arguments"), [(words[0], words[1:]) for words in PROGRAMS.values()], ids=PROGRAMS)
def test_programs_say_what_is_wrong_on_any_console(module, arguments, encoding):
    process = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        check=False,
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding, "HF_TOKEN": ""},
    )
    assert process.returncode in (1, 2)
    assert b"Traceback" not in process.stderr
    assert b"where" in process.stderr


def test_every_command_begins_with_it(monkeypatch):
    called = []
    monkeypatch.setattr("hub_upload.plain_errors.never_stop_at_a_letter", lambda: called.append(True))
    CliRunner().invoke(app, ["push"])
    assert called
