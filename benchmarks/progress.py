"""A line on stderr that says what is being measured, and how much is left."""

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_TICKS = 1


class Progress:
    """Says what a long run is doing: on a terminal in one line whose clock goes on, elsewhere a line for each step.

    Args:
        what: is done first; told on a terminal alone, since it may end in a complaint of one line.
    """

    def __init__(self, what: str):
        self._started_at = time.monotonic()
        self._done, self._total, self._what = 0, 0, ""
        self._is_terminal = sys.stderr.isatty()
        self._stop = threading.Event()
        if self._is_terminal:
            self.say(what)
            threading.Thread(target=self._tick, daemon=True).start()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error) -> None:
        self._stop.set()
        if error[0] is None:
            self.say("done")
        if self._is_terminal:
            print(file=sys.stderr)

    def count_to(self, total: int) -> None:
        """Says how many steps there will be."""
        self._total = total

    def say(self, what: str) -> None:
        """What is done from now on."""
        self._what = what
        self._show()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """One of the steps; it counts once it is through."""
        self.say(what)
        yield
        self._done += 1

    def _show(self) -> None:
        seconds = time.monotonic() - self._started_at
        counted = f"{self._done}/{self._total}, " if self._total else ""
        left = (self._total - self._done) * seconds / self._done if self._done else 0
        line = f"[{counted}{_clock(seconds)}{f', about {_clock(left)} left' if left else ''}] {self._what}"
        if self._is_terminal:
            print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _tick(self) -> None:
        while not self._stop.wait(SECONDS_BETWEEN_TICKS):
            self._show()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
