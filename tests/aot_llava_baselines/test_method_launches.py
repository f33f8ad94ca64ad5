"""The kernels and waits of the methods are counted in a process of their own.

What other tests have left behind in PyTorch changes how often a value is counted as read (seen on transformers 5.20).
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_each_method_puts_on_a_gpu_what_was_counted():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "method_launches.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-2000:]
    assert " passed" in process.stdout
