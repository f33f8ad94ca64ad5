"""One run of a model: seconds, tokens a second, bytes."""

import ctypes
import gc
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import torch
from torch import nn

from modeling_aot_llava.cache_name import CACHE

from .parts import timed_parts
from .stopwatch import synchronise

SECONDS_BETWEEN_SAMPLES = 0.002


def measure_first_token(model: nn.Module, prompt: dict[str, Any]) -> dict[str, float]:
    """Time and memory from pixels and ids to the first token of the answer, and how the time is divided."""
    device = prompt["input_ids"].device
    with PeakMemory(device) as memory, timed_parts(model, device) as parts:
        elapsed = seconds(lambda: model.generate(**prompt, max_new_tokens=1), device)
    return {
        "first_token_seconds": elapsed,
        **parts,
        "rest_seconds": elapsed - sum(parts.values()),
        "peak_memory_bytes": memory.peak,
        "memory_growth_bytes": memory.peak - memory.before,
    }


@torch.inference_mode()
def measure_language_model(model: nn.Module, num_tokens: int, batch: int, decode_tokens: int) -> dict[str, float]:
    """Prefill of n embeddings a row without any video, then the speed of writing."""
    embeds = model.model.image_newline.expand(batch, num_tokens, -1)
    outputs: Any = None

    def step(**inputs) -> None:
        nonlocal outputs
        outputs = model(**inputs, use_cache=True, logits_to_keep=1)

    def decode() -> None:
        for _ in range(decode_tokens):
            step(input_ids=outputs.logits.argmax(-1), **{CACHE: getattr(outputs, CACHE)})

    prefill_seconds = seconds(lambda: step(inputs_embeds=embeds), embeds.device)
    return {
        "prefill_seconds": prefill_seconds,
        "decode_tokens_per_second": batch * decode_tokens / seconds(decode, embeds.device),
    }


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Time of a call, the device's work included."""
    synchronise(device)
    started = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - started


class PeakMemory:
    """Memory in use `before` and at its `peak`, in bytes.

    On a GPU what tensors occupy; on a CPU the process's resident memory, sampled by a thread.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self.before = torch.cuda.memory_allocated(self._device)
        else:
            _give_freed_memory_back()
            self.before = self.peak = _resident_memory()
            self._sampler.start()
        return self

    def __exit__(self, *error) -> None:
        if self._device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self._device)
        else:
            self._stop.set()
            self._sampler.join()

    def _sample(self) -> None:
        while not self._stop.wait(SECONDS_BETWEEN_SAMPLES):
            self.peak = max(self.peak, _resident_memory())


def _resident_memory() -> int:
    return psutil.Process().memory_info().rss


def _give_freed_memory_back() -> None:
    # Otherwise a run takes what an earlier one has freed, and seems to need nothing. Only glibc has this.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
