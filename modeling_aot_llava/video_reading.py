"""Runs where a video is not decoded yet: reads its frames exactly, decoding little more, and leaves nothing behind.

`video_sources` says what a video may be given as, `video_index` which frames it has, `video_decoding` decodes them.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from transformers.video_utils import VideoMetadata

from .error_texts import show
from .parallel_decoding import decode_frames
from .plain_numbers import is_integer, is_number
from .upright_frames import StackedFrames, UprightFrames, make_reformatter
from .video_index import FrameIndex, TimesMisleadError, index_by_order, index_by_time
from .video_limits import DEFAULT_LIMITS, VideoLimits
from .video_sources import Source, VideoFile, local_path, name_of, open_source, pictures_in
from .video_stream import Video, check_pyav, open_video, unreadable

# Which frames to read: of a video's number of frames, its frame rate in 1/s (None where unknown), and its name.
_Choice = Callable[[int, float | None, str], np.ndarray]
MakeStore = Callable[[int], Any]


def read_video(
    source: Source, num_frames: int | None = 32, fps: float | None = None, limits: VideoLimits = DEFAULT_LIMITS
) -> tuple[np.ndarray, VideoMetadata]:
    """Reads frames spread uniformly from a video's first frame to its last.

    Nothing of PyAV, no thread and no open file is left when it returns or raises, so that a process may be forked
    afterwards.

    Args:
        source: the path of a video file, or of a folder of frame pictures, which are taken in the order of their
            names; a `file://` address; an `http://` or `https://` one, which is downloaded to a temporary file; a
            `data:` one; or the content of a video file as bytes or `io.BytesIO`.
        num_frames: frames to read; a video that has fewer gives each of them once.
        fps: frames to read for each second of video, at least one in all; needs `num_frames=None`.
            With neither, every frame is read.
        limits: what is refused; see `VideoLimits`.

    Returns:
        The frames, (n, height, width, 3) uint8 RGB, turned upright; and their metadata: the number of frames in the
        file, its frame rate in 1/s (the mean where it varies; None of pictures), width and height in pixels, duration
        in s, and the indices of the frames read.

    Raises:
        ImportError: PyAV is not installed.
        FileNotFoundError: there is no such file.
        ValueError: `num_frames` or `fps` is out of range, or both are given; the source is a directory without
            pictures, empty, cut short, damaged or no video, or it cannot be downloaded; or it goes beyond a limit.
    """
    return read_video_into(StackedFrames, source, num_frames, fps, limits)


def read_video_into(
    make_store: MakeStore,
    source: Source,
    num_frames: int | None = 32,
    fps: float | None = None,
    limits: VideoLimits = DEFAULT_LIMITS,
) -> tuple[Any, VideoMetadata]:
    """Like `read_video`, but a store takes each frame as soon as it is decoded.

    Args:
        make_store: makes a store for a number of frames: something to call with the place of a frame from 0 and the
            frame, (height, width, 3) uint8 RGB, upright; with the first before all others, then in any order and
            from several threads. What is to be returned is its attribute `frames`.
        source, num_frames, fps, limits: as with `read_video`.

    Returns:
        The store's `frames`, and the metadata.
    """
    check_sampling(num_frames, fps)
    return _read_releasing(source, partial(_uniformly, num_frames=num_frames, fps=fps), limits, make_store)


def read_frames(
    source: Source, indices: Sequence[int], limits: VideoLimits = DEFAULT_LIMITS
) -> tuple[np.ndarray, VideoMetadata]:
    """Reads the frames with these indices, rising integers from 0: the rest is as with `read_video`.

    Raises:
        ValueError: also if there is no index, they do not rise, or the video has not so many frames.
    """
    chosen = _checked(indices)
    return _read_releasing(source, partial(_as_chosen, chosen=chosen), limits, StackedFrames)


def read_chosen_frames(
    source: Source,
    choose: Callable[[int, float | None], Sequence[int]],
    limits: VideoLimits = DEFAULT_LIMITS,
    make_store: MakeStore = StackedFrames,
) -> tuple[Any, VideoMetadata]:
    """Like `read_frames`, with indices that follow from the video.

    Args:
        choose: of its number of frames, and its frame rate in 1/s (None where unknown), the indices to read.
        make_store: as with `read_video_into`; it is called after `choose`.
    """

    def choose_checked(total: int, frame_rate: float | None, name: str) -> np.ndarray:
        return _as_chosen(total, frame_rate, name, chosen=_checked(choose(total, frame_rate)))

    return _read_releasing(source, choose_checked, limits, make_store)


def uniform_frame_indices(total: int, num_frames: int) -> np.ndarray:
    """Indices of `num_frames` out of `total` frames, uniformly from the first to the last.

    Returns:
        (min(num_frames, total)) rising integers.

    Raises:
        ValueError: `num_frames` is below 1.
    """
    check_sampling(num_frames, None)
    if num_frames >= total:
        return np.arange(total)
    return np.linspace(0, total - 1, num_frames, dtype=int)


def check_sampling(num_frames: int | None, fps: float | None) -> None:
    """Raises `ValueError` unless one of the two is None and the other makes sense."""
    if num_frames is not None and fps is not None:
        raise ValueError(
            f"num_frames={show(num_frames)} and fps={show(fps)} exclude each other: pass num_frames=None to sample by "
            "fps, or leave fps out."
        )
    if num_frames is not None and not (is_integer(num_frames) and num_frames >= 1):
        raise ValueError(f"num_frames={show(num_frames)} must be at least 1, an integer; or None for every frame.")
    if fps is not None and not (is_number(fps) and fps > 0):
        raise ValueError(f"fps={show(fps)} must be above 0, a number; or None to sample by num_frames.")


def _uniformly(
    total: int, frame_rate: float | None, name: str, num_frames: int | None, fps: float | None
) -> np.ndarray:
    if fps is not None:
        if frame_rate is None:
            raise ValueError(f"{name} does not tell its frame rate: pass num_frames, not fps.")
        num_frames = max(1, int(min(total, total / frame_rate * fps)))
    return uniform_frame_indices(total, total if num_frames is None else num_frames)


def _checked(indices: Sequence[int]) -> np.ndarray:
    chosen = np.asarray(indices)
    if (
        chosen.ndim != 1
        or not len(chosen)
        or chosen.dtype.kind not in "iu"
        or chosen[0] < 0
        or (np.diff(chosen) < 1).any()
    ):
        raise ValueError(f"indices={show(indices)} must be at least one integer, rising, from 0.")
    return chosen


def _as_chosen(total: int, frame_rate: float | None, name: str, chosen: np.ndarray) -> np.ndarray:
    if chosen[-1] >= total:
        raise ValueError(f"{name} has {total} frames: there is no frame {chosen[-1]}, counted from 0.")
    return chosen


def _read_releasing(
    source: Source, choose: _Choice, limits: VideoLimits, make_store: MakeStore
) -> tuple[Any, VideoMetadata]:
    check_pyav()
    outer = sys.exc_info()[1]
    try:
        return _read(source, choose, limits, make_store)
    except BaseException as error:
        _release_locals(error, outer)
        raise


def _release_locals(error: BaseException | None, outer: BaseException | None) -> None:
    """Lets go of what was opened or decoded, which the traceback would keep for as long as the error is kept."""
    while error is not None and error is not outer:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _read(source: Source, choose: _Choice, limits: VideoLimits, make_store: MakeStore) -> tuple[Any, VideoMetadata]:
    path = local_path(source)
    if path is not None and os.path.isdir(path):
        return _read_pictures(path, choose, limits, make_store)
    with open_source(source, limits) as file:
        try:
            return _read_indexed(file, index_by_time, choose, limits, make_store)
        except TimesMisleadError:
            pass  # and with this error goes what was opened, before the file is opened again
        return _read_indexed(file, index_by_order, choose, limits, make_store)


def _read_indexed(
    file: VideoFile,
    index_frames: Callable[[Video], FrameIndex],
    choose: _Choice,
    limits: VideoLimits,
    make_store: MakeStore,
) -> tuple[Any, VideoMetadata]:
    with open_video(file, limits) as video:
        index = index_frames(video)
    total = len(index.times)
    indices = choose(total, index.frame_rate, file.name)
    store = make_store(len(indices))
    frames = UprightFrames(len(indices), file.name, file, limits, store)
    decode_frames(file, index, indices, limits, frames)  # opens it once more, to stand at the beginning again
    return store.frames, _metadata(frames, indices, total, index.frame_rate, index.duration)


def _read_pictures(
    folder: str, choose: _Choice, limits: VideoLimits, make_store: MakeStore
) -> tuple[Any, VideoMetadata]:
    pictures, name = pictures_in(folder), name_of(folder)
    indices = choose(len(pictures), None, f"{name}, a folder of pictures,")
    store = make_store(len(indices))
    with open_source(pictures[indices[0]], limits) as first:
        frames = UprightFrames(len(indices), name, first, limits, store)
    reformatter = make_reformatter()
    for place, index in enumerate(indices):
        frames.add(place, _read_picture(pictures[index], limits), reformatter)
    return store.frames, _metadata(frames, indices, len(pictures), None, None)


def _read_picture(path: str, limits: VideoLimits) -> Any:
    with open_source(path, limits) as file, open_video(file, limits) as video:
        frames = (frame for packet in video.packets() for frame in packet.decode())
        for frame in frames:
            return frame
        raise unreadable(file, "has no picture that can be decoded")


def _metadata(
    frames: UprightFrames, indices: np.ndarray, total: int, frame_rate: float | None, duration: float | None
) -> VideoMetadata:
    return VideoMetadata(
        total_num_frames=total,
        fps=frame_rate,
        width=frames.width,
        height=frames.height,
        duration=duration,
        video_backend="pyav",
        frames_indices=indices.tolist(),
    )
