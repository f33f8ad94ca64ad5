"""Test files that run in a process of their own, since other tests leave things behind in PyTorch."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def assert_passes_alone(file: Path) -> None:
    """Runs the tests of a file in a fresh process; at least one has to pass, and none may fail."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-2000:]
    assert " passed" in process.stdout
