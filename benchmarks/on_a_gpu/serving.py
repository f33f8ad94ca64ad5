"""Requests a second of vLLM, where it is installed, in a process of its own: it takes the card's memory."""

import importlib.util
import json
import subprocess
import sys
from typing import Any

import torch

SECONDS = 240


def measure_serving(options, device: torch.device) -> dict[str, Any]:
    """`python -m benchmarks.serving` under 1 to 64 requests at once."""
    if importlib.util.find_spec("vllm") is None:
        return {"says": "not run: vLLM is not installed"}
    results = options.output / "serving.json"
    at_once = "1,4" if device.type == "cpu" else "1,4,16,32,64"
    command = [sys.executable, "-m", "benchmarks.serving", "--at-once", at_once, "--json", str(results)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if run.returncode:
        raise RuntimeError(run.stderr[-1000:])
    return {"rows": json.loads(results.read_text())["rows"], "says": run.stdout.strip().splitlines()[-1]}
