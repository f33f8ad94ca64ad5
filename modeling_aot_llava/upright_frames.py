"""Runs for each frame that is decoded: makes it an upright RGB picture, of the first one's size and orientation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from .video_limits import VideoLimits
from .video_sources import VideoFile

try:  # optional, see video_stream.py
    import av
    from av.sidedata.sidedata import SideDataContainer
    from av.video.reformatter import VideoReformatter
    from PIL import Image
except ImportError:
    av = None

# Takes the picture (height, width, 3) uint8 at a position: that at 0 before all others, which come in any order.
Store = Callable[[int, np.ndarray], None]


# PyAV brings an FFmpeg from 17 on that reads the EXIF of these pictures; the one before reads that of JPEG alone.
_FIRST_WITH_ALL_EXIF = 17
_BEGINNINGS_WITH_EXIF = (b"\x89PNG", b"RIFF", b"II*\0", b"MM\0*")  # PNG, WebP, TIFF
_ORIENTATION_TAG = 0x0112
# By EXIF's number the a, b, c, d of a display matrix.
_MATRICES = {
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


class StoppedError(Exception):
    """Another thread has failed."""


class UprightFrames:
    """Takes the frames of a video, from several threads, and stores each as a picture at once.

    Args:
        file: that the first one is from; it is not kept.
    """

    def __init__(self, num_frames: int, name: str, file: VideoFile, limits: VideoLimits, store: Store):
        self._num_frames = num_frames
        self._name = name
        self._matrix_by_exif = _matrix_by_exif(file)
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
            self._orient = _turn(_display_matrix(frame) or self._matrix_by_exif)
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
    return {"threads": 1} if _pyav_release() >= 17 else {}


def _pyav_release() -> int:
    return int(av.__version__.split(".")[0])


def _turn(matrix: tuple[int, int, int, int] | None) -> Callable[[np.ndarray], np.ndarray]:
    """How an image (height, width, 3) is turned and mirrored; its pixel at (x, y) is shown at (a x + c y, b x + d y),
    but for a shift."""
    if matrix is None:
        return lambda image: image
    a, b, c, d = matrix
    is_transposed = abs(b) > abs(a)
    if is_transposed:
        a, d = c, b
    rows, columns = slice(None, None, -1 if d < 0 else 1), slice(None, None, -1 if a < 0 else 1)
    return lambda image: (image.swapaxes(0, 1) if is_transposed else image)[rows, columns]


def _display_matrix(frame: Any) -> tuple[int, int, int, int] | None:
    """The a, b, c, d of the matrix that says how a frame is to be shown, as phones write it."""
    # Not `frame.side_data`, which the frame keeps and which keeps the frame: only a garbage collector frees the two.
    side_data = SideDataContainer.__new__(SideDataContainer)
    with suppress(ValueError):  # where PyAV's table is older than one of the kinds, as EXIF, the list ends with it
        side_data.__init__(frame)
    for each in side_data:
        if _kind(each) == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(each), dtype=np.int32)[:5].tolist()
            return a, b, c, d
    return None


def _matrix_by_exif(file: VideoFile) -> tuple[int, int, int, int] | None:
    if _pyav_release() >= _FIRST_WITH_ALL_EXIF:
        return None
    with file.open() as content:
        if not content.read(4).startswith(_BEGINNINGS_WITH_EXIF):
            return None
        content.seek(0)
        try:
            with Image.open(content, formats=("PNG", "WEBP", "TIFF")) as picture:
                return _MATRICES.get(picture.getexif().get(_ORIENTATION_TAG))
        except Exception:  # whatever a stranger's bytes do to it: FFmpeg has read the picture
            return None


def _kind(side_data: Any) -> str | None:
    try:
        return side_data.type.name
    except ValueError:
        return None
