"""The scripts that make virtual environments remove nothing else to do so."""

import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "script", ["newest_transformers", "aot_llava_lmms_eval/make_environment", "serving/make_environment"]
)
def test_a_folder_that_holds_something_else_is_refused(script, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    ran = subprocess.run([TESTS / script, tmp_path], check=False, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "holds something else than a virtual environment: name another folder" in ran.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_an_older_environment_is_made_anew(tmp_path):
    (tmp_path / "pyvenv.cfg").touch()
    (tmp_path / "old").touch()
    environment = {"PATH": f"{tmp_path.parent}:/usr/bin:/bin"}
    # The interpreter's part is not what is tested.
    (tmp_path.parent / "python3").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path.parent / "python3").chmod(0o755)
    ran = subprocess.run([TESTS / "fresh_environment", tmp_path], check=True, capture_output=True, env=environment)
    assert ran.stdout.decode().split() == ["-m", "venv", "--clear", str(tmp_path)]
