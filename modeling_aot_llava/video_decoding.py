"""Decodes the wanted frames of a video, each from the keyframe before it, into one array."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from .video_index import FrameIndex, TimesMisleadError
from .video_limits import VideoLimits
from .video_stream import Video, unreadable

try:  # optional, see video_stream.py
    import av
    from av.sidedata.sidedata import SideDataContainer
    from av.video.reformatter import VideoReformatter
except ImportError:
    av = None


def decode_frames(video: Video, index: FrameIndex, indices: np.ndarray, limits: VideoLimits) -> np.ndarray:
    """Decodes the frames at the rising `indices`.

    Args:
        video: at its beginning.

    Returns:
        (n, height, width, 3) uint8 RGB, upright, all in the size of the first.

    Raises:
        TimesMisleadError: a frame is not where the index has it.
        ValueError: a frame does not decode, or they have more pixels than the limits allow.
    """
    return stack_upright(_decode(video, index, indices), len(indices), video.file.name, limits)


def stack_upright(frames: Iterator[Any], num_frames: int, name: str, limits: VideoLimits) -> np.ndarray:
    """PyAV's frames as (num_frames, height, width, 3) uint8 RGB, in the size and the orientation of the first.

    Raises:
        ValueError: they have more pixels than the limits allow.
    """
    reformatter = VideoReformatter()
    stacked = orient = None
    for position, frame in enumerate(frames):
        limits.check_frame(frame.width, frame.height, name)
        if stacked is None:
            width, height = frame.width, frame.height
            limits.check_frames(num_frames, width, height, name)
            orient = _orientation(frame)
        image = reformatter.reformat(frame, width, height, "rgb24", **_without_threads()).to_ndarray()
        image = orient(image)
        if stacked is None:
            stacked = np.empty((num_frames, *image.shape), dtype=np.uint8)
        stacked[position] = image
    return stacked


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


def _decode(video: Video, index: FrameIndex, indices: np.ndarray) -> Iterator[Any]:
    """Yields PyAV's frames at the rising `indices`."""
    if index.keyframes is None:
        frames = enumerate(frame for packet in video.packets() for frame in packet.decode())
        yield from _on_screen(video, frames, indices.tolist())
        return
    for times in _runs(index, indices):
        yield from _on_screen(video, _decode_for(video, index, times[0]), times)


def _runs(index: FrameIndex, indices: np.ndarray) -> Iterator[list[int]]:
    """The wanted times, parted where a seek to the keyframe before the next one skips frames."""
    run, following = [], 0
    for position in indices.tolist():
        time = int(index.times[position])
        keyframe = index.keyframes[index.keyframe_before(time)]
        if run and keyframe > index.times[following]:
            yield run
            run = []
        run.append(time)
        following = position + 1
    yield run


def _decode_for(video: Video, index: FrameIndex, time: int) -> Iterator[tuple[int, Any]]:
    """Times and frames from the last keyframe that leads to what is on screen at `time`.

    This may be an earlier keyframe than the one before `time`: FFmpeg seeks MPEG-TS by decoding times and so lands too
    late, and an intra-refreshed picture builds up over several frames.
    """
    position = index.keyframe_before(time)
    if position == 0:  # so in the first run alone, and there the file stands at its beginning
        return _decode_from_next_keyframe(video, index)
    for steps_back in (0, 1, 3, 7, 15):
        _seek(video, index.keyframes[max(0, position - steps_back)])
        frames = _decode_from_next_keyframe(video, index)
        first = next(frames, None)
        if first is not None and first[0] <= time:
            return itertools.chain([first], frames)
    raise TimesMisleadError


def _seek(video: Video, time: int) -> None:
    try:
        video.container.seek(int(time), stream=video.stream)
    except av.error.FFmpegError as error:
        raise TimesMisleadError from error


def _decode_from_next_keyframe(video: Video, index: FrameIndex) -> Iterator[tuple[int, Any]]:
    packets = video.packets()
    keyframe = next((packet for packet in packets if packet.is_keyframe), None)
    if keyframe is None:
        return
    latest = keyframe.pts
    for packet in itertools.chain([keyframe], packets):
        for frame in packet.decode():
            # Decoders leave out what is shown before the keyframe, as it refers to pictures that they have not seen;
            # so times never fall, unless they are not presentation times.
            if None in (latest, frame.pts) or frame.pts < latest or not index.has(frame.pts):
                raise TimesMisleadError
            latest = frame.pts
            yield latest, frame


def _on_screen(video: Video, frames: Iterator[tuple[int, Any]], times: Sequence[int]) -> Iterator[Any]:
    """Of timed frames the one that is on screen at each of the rising times.

    That is the frame of this very time. But a packet may bring none (the second field of a picture, a hidden or a lost
    frame), and then the frame before it stays on screen.
    """
    end = (float("inf"), None)
    before, current = end, next(frames, end)
    for time in times:
        while current[0] < time:
            before, current = current, next(frames, end)
        shown = current[1] if current[0] == time else before[1]
        if current is not end and shown is None:  # what begins the stream does not decode
            raise TimesMisleadError
        if current is end or shown.is_corrupt:
            raise unreadable(video.file, "is damaged or cut short, some frames do not decode")
        yield shown
