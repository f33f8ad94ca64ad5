"""Seconds of calls that follow each other or lie within each other."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch


class Stopwatch:
    """Adds up seconds by name: by the clock on a CPU, between two events each on a GPU."""

    def __init__(self, device: torch.device):
        self._device = device
        self._spans: list[tuple[str, Any, Any]] = []

    def start(self) -> Any:
        """A moment, to be handed to `stop`."""
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def stop(self, name: str, started: Any) -> None:
        """The time since then was spent in something of this name."""
        self._spans.append((name, started, self.start()))

    def seconds(self) -> dict[str, float]:
        """What each name took. Waits for the device."""
        synchronise(self._device)
        spent: dict[str, float] = defaultdict(float)
        for name, started, stopped in self._spans:
            is_event = self._device.type == "cuda"
            spent[name] += started.elapsed_time(stopped) / 1000 if is_event else stopped - started
        return spent


@contextmanager
def timed_functions(functions: Iterable[tuple[Any, str]], device: torch.device) -> Iterator[dict[str, float]]:
    """Replaces functions of modules or classes by timed ones; the dict has their seconds once the block is left."""
    stopwatch, spent = Stopwatch(device), {}

    def timed(name: str, function: Callable) -> Callable:
        @wraps(function)
        def run(*args, **kwargs):
            started = stopwatch.start()
            result = function(*args, **kwargs)
            stopwatch.stop(name, started)
            return result

        return run

    with ExitStack() as stack:
        for owner, name in functions:
            spent[name] = 0.0
            stack.enter_context(patch.object(owner, name, timed(name, getattr(owner, name))))
        yield spent
    spent |= stopwatch.seconds()


def synchronise(device: torch.device) -> None:
    """Waits for the work that was given to a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
