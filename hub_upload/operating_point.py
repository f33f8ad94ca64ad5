"""What a variant costs, learnt by loading it without its weights in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi

from .errors import PushError, in_one_line
from .package_code import cost_model
from .safetensors_header import Tensor

# Importing torch from a slow disk takes most of it.
SECONDS_TO_START = 240
SECONDS_A_CHECKPOINT = 30

_PROGRAM = Path(__file__).with_name("load_in_fresh_process.py")


@dataclass(frozen=True)
class OperatingPoint:
    """Video tokens before and after, newline tokens apart from them, and the language model that reads both."""

    num_frames: int
    tokens_before: int
    tokens_after: int
    newlines_before: int
    newlines_after: int
    has_fixed_token_count: bool
    num_layers: int
    hidden_size: int
    intermediate_size: int

    @property
    def flops_before(self) -> int:
        """Prefill FLOPs by Eq. 17, of the video's tokens and newline tokens alone."""
        return self._prefill_flops(self.tokens_before + self.newlines_before)

    @property
    def flops_after(self) -> int:
        return self._prefill_flops(self.tokens_after + self.newlines_after)

    def _prefill_flops(self, num_tokens: int) -> int:
        return cost_model().prefill_flops(
            num_tokens,
            num_layers=self.num_layers,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
        )


@dataclass(frozen=True)
class Checkpoint:
    """What is to be loaded: a folder, or a repository at a commit. Messages about it begin with its name.

    Attributes:
        weights: type and shape of each tensor of the weights, to be held against the config; None to leave that out.
        tower: sizes of the vision tower that the config does not tell, as fields of `vision_config`.
    """

    name: str
    location: str
    num_frames: int
    revision: str | None = None
    weights: Mapping[str, Tensor] | None = None
    tower: Mapping[str, int] | None = None


def load_without_weights(checkpoints: Sequence[Checkpoint], api: HfApi) -> list[OperatingPoint]:
    """Loads the config and the remote code of each, with empty caches, so that nothing comes from this machine.

    Raises:
        PushError: if one does not load, or not in time; the message is the config's own where a field is wrong.
    """
    answers = _ask_fresh_process(checkpoints, api)
    for checkpoint, answer in zip(checkpoints, answers):
        if "error" in answer:
            raise PushError(f"{checkpoint.name}: {in_one_line(answer['error'])}")
    return [OperatingPoint(**answer) for answer in answers]


def _ask_fresh_process(checkpoints: Sequence[Checkpoint], api: HfApi) -> list[dict]:
    limit = SECONDS_TO_START + SECONDS_A_CHECKPOINT * len(checkpoints)
    with tempfile.TemporaryDirectory(prefix="aot-load-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM.read_text(encoding="utf-8")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            encoding="utf-8",
            errors="replace",
            env=_environment(Path(folder), api),
            # A process group of its own, so that nothing that it started outlives it.
            start_new_session=True,
        )
        try:
            output, told = process.communicate("".join(map(_question, checkpoints)), timeout=limit)
        except subprocess.TimeoutExpired:
            _end(process)
            output, told = process.communicate()
            told += f"\nno answer within {limit} seconds: a value may be far too large"
        except BaseException:
            _end(process)
            raise
    answers = [json.loads(line) for line in output.splitlines() if line.startswith("{") and line.endswith("}")]
    if len(answers) < len(checkpoints):
        *_, last_line = told.strip().splitlines() or [f"exit code {process.returncode}"]
        raise PushError(f"{checkpoints[len(answers)].name}: the fresh process ended with {in_one_line(last_line)}")
    return answers


def _question(checkpoint: Checkpoint) -> str:
    weights = checkpoint.weights
    question = {
        "location": checkpoint.location,
        "revision": checkpoint.revision,
        "num_frames": checkpoint.num_frames,
        "weights": weights and {name: (tensor.dtype, tensor.shape) for name, tensor in weights.items()},
        "tower": checkpoint.tower and dict(checkpoint.tower),
    }
    return json.dumps(question) + "\n"


def _end(process: subprocess.Popen) -> None:
    """Ends the process and all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _environment(caches: Path, api: HfApi) -> dict[str, str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": api.endpoint,
        "HF_HOME": str(caches),
        "HF_HUB_CACHE": str(caches / "hub"),
        "HF_MODULES_CACHE": str(caches / "modules"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "0",
        "PYTHONIOENCODING": "utf-8",
    }
    if isinstance(api.token, str):
        environment["HF_TOKEN"] = api.token
    return environment
