#!/usr/bin/env python3
"""Fetches transformers' own tests for the release that is installed: its source distribution has them, its wheel not.

    python tests/transformers_suite/fetch.py

Run it with the interpreter that has transformers. What it fetches lies in a folder that git ignores, a folder a
release, and is fetched once.
"""

import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path, PurePosixPath

FETCHED = Path(__file__).parent / ".fetched"


def folder_of_release(release: str) -> Path:
    """Where the tests of a release lie once they are fetched."""
    return FETCHED / f"transformers-{release}"


def fetch(release: str) -> Path:
    """Downloads the source distribution and unpacks the Python files of its `tests` folder.

    Raises:
        subprocess.CalledProcessError: if pip cannot have it.
    """
    folder = folder_of_release(release)
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory() as downloads:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        options = ["--no-deps", "--no-binary", ":all:", "--dest", downloads]
        subprocess.run([*pip, *options, f"transformers=={release}"], check=True)
        (archive,) = Path(downloads).glob("*.tar.gz")
        FETCHED.mkdir(exist_ok=True)
        # Complete or not there at all: the folder gets its name last.
        with tempfile.TemporaryDirectory(dir=FETCHED) as unfinished:
            unpacked = Path(unfinished, "tests")
            _unpack_tests(archive, unpacked)
            unpacked.rename(folder)
    return folder


def _unpack_tests(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as members:
        for member in members:
            path = PurePosixPath(member.name)
            if member.isfile() and path.suffix == ".py" and path.parts[1] == "tests" and ".." not in path.parts:
                target = folder.joinpath(*path.parts[2:])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(members.extractfile(member).read())


if __name__ == "__main__":
    print(fetch(version("transformers")))
