"""Runs for each frame that is decoded: makes it an upright RGB picture, of the first one's size and orientation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from .video_limits import VideoLimits

try:  # optional, see video_stream.py
    import av
    from av.sidedata.sidedata import SideDataContainer
    from av.video.reformatter import VideoReformatter
except ImportError:
    av = None

# Takes the picture (height, width, 3) uint8 at a position: that at 0 before all others, which come in any order.
Store = Callable[[int, np.ndarray], None]


class StoppedError(Exception):
    """Another thread has failed."""


class UprightFrames:
    """Takes the frames of a video, from several threads, and stores each as a picture at once."""

    def __init__(self, num_frames: int, name: str, limits: VideoLimits, store: Store):
        self._num_frames = num_frames
        self._name = name
        self._limits = limits
        self._store = store
        self._is_stopped = False
        self._has_first = threading.Event()
        self._size = self._orient = None

    def add(self, position: int, frame: Any, reformatter: Any) -> None:
        """Stores PyAV's frame; where the first is yet to come, after it.

        Args:
            reformatter: a `VideoReformatter` of the thread's own.

        Raises:
            StoppedError: another thread has called `stop`.
            ValueError: the frames have more pixels than the limits allow.
        """
        self._limits.check_frame(frame.width, frame.height, self._name)
        if position == 0:
            self._limits.check_frames(self._num_frames, frame.width, frame.height, self._name)
            self._size = frame.width, frame.height
            self._orient = _orientation(frame)
        else:
            self._has_first.wait()
        self.check_running()
        image = self._orient(reformatter.reformat(frame, *self._size, "rgb24", **_without_threads()).to_ndarray())
        self._store(position, image)
        if position == 0:
            self.height, self.width = image.shape[:2]
            self._has_first.set()

    def stop(self) -> None:
        """Has all other threads end."""
        self._is_stopped = True
        self._has_first.set()

    def check_running(self) -> None:
        """Raises `StoppedError` if another thread has called `stop`."""
        if self._is_stopped:
            raise StoppedError


class StackedFrames:
    """A store that keeps the pictures as one array: `frames`, (n, height, width, 3)."""

    def __init__(self, num_frames: int):
        self._num_frames = num_frames
        self.frames: np.ndarray | None = None

    def __call__(self, position: int, image: np.ndarray) -> None:
        if self.frames is None:
            self.frames = np.empty((self._num_frames, *image.shape), dtype=np.uint8)
        self.frames[position] = image


def make_reformatter() -> Any:
    """What converts frames to RGB, for one thread."""
    return VideoReformatter()


def _without_threads() -> dict[str, int]:
    """Options with which the conversion to RGB starts no threads; PyAV before 17 never does."""
    return {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


def _orientation(frame: Any):
    """How an image (height, width, 3) is turned and mirrored, as the display matrix of phone videos says."""
    display_matrix = _display_matrix(frame)
    if display_matrix is None:
        return lambda image: image
    # A pixel at (x, y) is shown at (a x + c y, b x + d y), but for a shift.
    a, b, _, c, d = np.frombuffer(display_matrix, dtype=np.int32)[:5].tolist()
    is_transposed = abs(b) > abs(a)
    if is_transposed:
        a, d = c, b
    rows, columns = slice(None, None, -1 if d < 0 else 1), slice(None, None, -1 if a < 0 else 1)
    return lambda image: (image.swapaxes(0, 1) if is_transposed else image)[rows, columns]


def _display_matrix(frame: Any) -> bytes | None:
    """The nine numbers that say how a frame is to be shown."""
    # Not `frame.side_data`, which the frame keeps and which keeps the frame: only a garbage collector frees the two.
    side_data = SideDataContainer.__new__(SideDataContainer)
    with suppress(ValueError):  # where PyAV's table is older than one of the kinds, as EXIF, the list ends with it
        side_data.__init__(frame)
    for each in side_data:
        if _kind(each) == "DISPLAYMATRIX":
            return bytes(each)
    return None


def _kind(side_data: Any) -> str | None:
    try:
        return side_data.type.name
    except ValueError:
        return None
