"""Reads frames of a video file with PyAV: exactly, and decoding little more than is asked for.

The file's packets are read first, which is cheap, for nothing is decoded: they tell how many
frames there are and when each is shown, whether or not the container states a frame count, keeps a
constant frame rate or reorders frames. Then the wanted frames are decoded, each from the keyframe
before it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from transformers.video_utils import VideoMetadata

try:  # the Hub's loader demands whatever is imported outside of `try`, and PyAV is optional
    import av
except ImportError:
    av = None

# Decoders with which FFmpeg draws text files.
TEXT_CODECS = ("ansi", "bintext", "idf", "xbin")


def read_video(
    source: str | os.PathLike, num_frames: int | None = 32, fps: float | None = None
) -> tuple[np.ndarray, VideoMetadata]:
    """Reads frames spread uniformly from a video's first frame to its last.

    Args:
        source: the path of a video file, or its http(s) address.
        num_frames: frames to read; a video that has fewer gives each of them once.
        fps: frames to read for each second of video, at least one in all; needs `num_frames=None`.
            With neither, every frame is read.

    Returns:
        The frames, (n, height, width, 3) uint8 RGB, turned upright; and their metadata: the number
        of frames in the file, its frame rate in 1/s (the mean where it varies), width and height in
        pixels, duration in s, and the indices of the frames read.

    Raises:
        ImportError: PyAV is not installed.
        FileNotFoundError: there is no such file.
        ValueError: `num_frames` or `fps` is out of range, or both are given; or the source is a
            directory, empty, cut short, damaged or no video.
    """
    if av is None:
        raise ImportError("Reading video files needs PyAV: run `pip install av`.")
    _check_sampling(num_frames, fps)
    try:
        return _read_indexed(source, _index_by_time, num_frames, fps)
    except _TimesMisleadError:
        return _read_indexed(source, _index_by_order, num_frames, fps)


def uniform_frame_indices(total: int, num_frames: int) -> np.ndarray:
    """Indices of `num_frames` out of `total` frames, uniformly from the first to the last.

    Returns:
        (min(num_frames, total)) rising integers.

    Raises:
        ValueError: `num_frames` is below 1.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames={num_frames} must be at least 1, or None for every frame.")
    if num_frames >= total:
        return np.arange(total)
    return np.linspace(0, total - 1, num_frames, dtype=int)


def _check_sampling(num_frames: int | None, fps: float | None) -> None:
    if num_frames is not None and fps is not None:
        raise ValueError(
            f"num_frames={num_frames} and fps={fps} exclude each other: pass num_frames=None to "
            "sample by fps, or leave fps out."
        )
    if num_frames is not None:
        uniform_frame_indices(1, num_frames)  # raises before the file is read
    if fps is not None and not fps > 0:
        raise ValueError(f"fps={fps} must be above 0, or None to sample by num_frames.")


def _read_indexed(
    source, index_frames: Callable[[_Video], _FrameIndex], num_frames: int | None, fps: float | None
) -> tuple[np.ndarray, VideoMetadata]:
    with _open_video(source) as video:
        index = index_frames(video)
    total = len(index.times)
    if fps is not None:
        if index.frame_rate is None:
            raise ValueError(f"{source} does not tell its frame rate: pass num_frames, not fps.")
        num_frames = max(1, int(min(total, total / index.frame_rate * fps)))
    indices = uniform_frame_indices(total, total if num_frames is None else num_frames)
    with _open_video(source) as video:  # once more, to stand at the beginning again
        frames = _stack_upright(_decode(video, index, indices))
    return frames, VideoMetadata(
        total_num_frames=total,
        fps=index.frame_rate,
        width=frames.shape[2],
        height=frames.shape[1],
        duration=index.duration,
        video_backend="pyav",
        frames_indices=indices.tolist(),
    )


# --- Opening --------------------------------------------------------------------------------------


class _Video(NamedTuple):
    """An open file: PyAV's container, and the stream in it that is read."""

    source: str | os.PathLike
    container: Any
    stream: Any


@contextmanager
def _open_video(source) -> Iterator[_Video]:
    """Says in plain words what FFmpeg complains of, until the file is closed."""
    try:
        with av.open(_address(source), **_lenient_tags()) as container:
            stream = _video_stream(source, container)
            stream.thread_type = "AUTO"
            yield _Video(source, container, stream)
    except av.error.FFmpegError as error:
        raise _unreadable(source, f"cannot be read as a video ({error.strerror})") from error


def _unreadable(source, reason: str) -> ValueError:
    remedy = "give a complete video file, or re-encode this one with `ffmpeg -i INPUT OUTPUT.mp4`"
    return ValueError(f"{source} {reason}: {remedy}.")


def _lenient_tags() -> dict[str, str]:
    """Options for titles in whatever encoding: they are no reason to refuse the pictures."""
    is_lenient_anyway = int(av.__version__.split(".")[0]) >= 19
    return {} if is_lenient_anyway else {"metadata_errors": "ignore"}


def _address(source) -> str:
    name = os.fsdecode(source)
    if name.lower().startswith(("http://", "https://")):
        return name
    if not os.path.exists(name):
        raise FileNotFoundError(f"{name} does not exist: check the path.")
    if os.path.isdir(name):
        raise ValueError(f"{name} is a directory: give the path of one video file.")
    if os.path.getsize(name) == 0:
        raise ValueError(f"{name} is empty: copy or download it again.")
    return f"file:{name}"  # or FFmpeg would take what stands before a colon for a protocol


def _video_stream(source, container) -> Any:
    stream = container.streams.best("video")
    # The cover picture of a piece of music is a video stream, too.
    is_cover = stream is not None and stream.disposition & av.stream.Disposition.attached_pic
    if stream is None or is_cover or stream.codec_context is None:
        raise _unreadable(source, "has no video stream that PyAV can decode")
    if stream.codec_context.name in TEXT_CODECS:
        raise ValueError(f"{source} is text, not a video: give a video file.")
    return stream


# --- Indexing -------------------------------------------------------------------------------------


class _FrameIndex(NamedTuple):
    """When each frame is shown and where decoding can start, rising, in ticks of the stream.

    Without keyframes it says that the stream is to be decoded from its beginning, and frames are
    numbered instead of timed. `duration` is in s, `frame_rate` in 1/s.
    """

    times: np.ndarray
    keyframes: np.ndarray | None
    duration: float | None
    frame_rate: float | None

    def keyframe_before(self, time: int) -> int:
        """Position in `keyframes` of the last one that is shown at `time` or before."""
        return int(np.searchsorted(self.keyframes, time, side="right")) - 1

    def has(self, time: int) -> bool:
        position = np.searchsorted(self.times, time)
        return position < len(self.times) and self.times[position] == time


class _TimesMisleadError(Exception):
    """The packets' times do not tell where to find the frames."""


class _Packet(NamedTuple):
    """What the index needs of a packet; times in ticks of the stream."""

    time: int | None
    duration: int
    is_keyframe: bool
    is_shown: bool
    is_corrupt: bool


def _index_by_time(video: _Video) -> _FrameIndex:
    """Indexes the frames by their packets, decoding nothing."""
    packets = _read_packets(video)
    keyframes = [packet.time for packet in packets if packet.is_keyframe]
    if not keyframes or any(packet.time is None for packet in packets):
        raise _TimesMisleadError
    # AVI keeps no presentation times: FFmpeg guesses them, wrongly where frames are reordered.
    if video.container.format.name == "avi" and video.stream.codec_context.has_b_frames:
        raise _TimesMisleadError
    # A recording may begin amid a group of pictures: what is shown before the first keyframe refers
    # to pictures that are not in the file.
    shown = [packet for packet in packets if packet.is_shown and packet.time >= keyframes[0]]
    if not shown or np.any(np.diff(keyframes) <= 0):
        raise _TimesMisleadError
    times = np.unique([packet.time for packet in shown])
    last = max(shown)
    duration = float(last.time + last.duration - times[0]) * float(video.stream.time_base)
    frame_rate = _mean_frame_rate(video.stream, len(times), duration)
    return _FrameIndex(times, np.array(keyframes), duration, frame_rate)


def _index_by_order(video: _Video) -> _FrameIndex:
    """Counts the frames by decoding them all."""
    total = sum(1 for _ in video.container.decode(video.stream))
    if total == 0:
        raise _unreadable(video.source, "has no frame that can be decoded")
    frame_rate = float(video.stream.average_rate or 0) or None
    duration = total / frame_rate if frame_rate else None
    return _FrameIndex(np.arange(total), None, duration, frame_rate)


def _read_packets(video: _Video) -> list[_Packet]:
    """Reads the stream to its end, and raises ValueError if the file ends before it should."""
    packets = [
        _Packet(
            packet.pts,
            packet.duration or 0,
            packet.is_keyframe,
            is_shown=packet.size > 0 and not packet.is_discard,
            is_corrupt=packet.is_corrupt,
        )
        for packet in video.container.demux(video.stream)
        if packet.size or packet.pts is not None  # PyAV marks the end with an empty packet
    ]
    num_promised = len(getattr(video.stream, "index_entries", ()))  # PyAV before 17 has none
    ends_in_packet = bool(packets) and packets[-1].is_corrupt
    if ends_in_packet or len(packets) < num_promised or _lacks_matroska_bytes(video):
        reason = f"is cut short after {len(packets)} frames"
        raise ValueError(f"{video.source} {reason}: copy or download it again.")
    return packets


def _lacks_matroska_bytes(video: _Video) -> bool:
    """Whether a Matroska or WebM file is shorter than it says, which FFmpeg does not tell."""
    if "matroska" not in video.container.format.name or not os.path.exists(video.source):
        return False
    end = 0
    with open(video.source, "rb") as file:
        for _ in ("EBML header", "Segment"):  # all there is, each with an id, its size and content
            file.seek(end + 4)
            size_field = file.read(8)
            # It takes as many bytes as there are zeros before its first one, and one more.
            width = 9 - size_field[0].bit_length()
            size_bits = 7 * width
            size = int.from_bytes(size_field[:width], "big") % (1 << size_bits)
            if size == (1 << size_bits) - 1:  # a live recording, whose length was not known
                return False
            end += 4 + width + size
    return os.path.getsize(video.source) < end


def _mean_frame_rate(stream, total: int, duration: float) -> float | None:
    """The container's rate if it agrees with the duration to a frame, or else the one measured."""
    rate = float(stream.average_rate or 0)
    if rate and abs(total / rate - duration) <= 1 / rate:
        return rate
    return total / duration if duration else None


# --- Decoding -------------------------------------------------------------------------------------


def _decode(video: _Video, index: _FrameIndex, indices: np.ndarray) -> Iterator:
    """Yields PyAV's frames at the rising `indices`."""
    if index.keyframes is None:
        frames = enumerate(video.container.decode(video.stream))
        yield from _on_screen(video, frames, indices.tolist())
        return
    for times in _runs(index, indices):
        yield from _on_screen(video, _decode_for(video, index, times[0]), times)


def _runs(index: _FrameIndex, indices: np.ndarray) -> Iterator[list[int]]:
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


def _decode_for(video: _Video, index: _FrameIndex, time: int) -> Iterator[tuple[int, Any]]:
    """Times and frames from the last keyframe that leads to what is on screen at `time`.

    This may be an earlier keyframe than the one before `time`: FFmpeg seeks MPEG-TS by decoding
    times and so lands too late, and an intra-refreshed picture builds up over several frames.
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
    raise _TimesMisleadError


def _seek(video: _Video, time: int) -> None:
    try:
        video.container.seek(int(time), stream=video.stream)
    except av.error.FFmpegError as error:
        raise _TimesMisleadError from error


def _decode_from_next_keyframe(video: _Video, index: _FrameIndex) -> Iterator[tuple[int, Any]]:
    packets = video.container.demux(video.stream)
    keyframe = next((packet for packet in packets if packet.is_keyframe), None)
    if keyframe is None:
        return
    latest = keyframe.pts
    for packet in itertools.chain([keyframe], packets):
        for frame in packet.decode():
            # Decoders leave out what is shown before the keyframe, as it refers to pictures that
            # they have not seen; so times never fall, unless they are not presentation times.
            if None in (latest, frame.pts) or frame.pts < latest or not index.has(frame.pts):
                raise _TimesMisleadError
            latest = frame.pts
            yield latest, frame


def _on_screen(video: _Video, frames: Iterator[tuple[int, Any]], times: list[int]) -> Iterator:
    """Of timed frames the one that is on screen at each of the rising times.

    That is the frame of this very time. But a packet may bring none (the second field of a picture,
    a hidden or a lost frame), and then the frame before it stays on screen.
    """
    end = (float("inf"), None)
    before, current = end, next(frames, end)
    for time in times:
        while current[0] < time:
            before, current = current, next(frames, end)
        shown = current[1] if current[0] == time else before[1]
        if current is not end and shown is None:  # what begins the stream does not decode
            raise _TimesMisleadError
        if current is end or shown.is_corrupt:
            raise _unreadable(video.source, "is damaged or cut short, some frames do not decode")
        yield shown


def _stack_upright(frames: Iterator[Any]) -> np.ndarray:
    """Frames as (n, height, width, 3) uint8 RGB, all in the size of the first."""
    first = next(frames)
    size = {"width": first.width, "height": first.height}
    return np.stack([_upright_rgb(frame, size) for frame in itertools.chain([first], frames)])


def _upright_rgb(frame, size: dict[str, int]) -> np.ndarray:
    """(height, width, 3), turned and mirrored as the display matrix of phone videos says."""
    image = frame.to_ndarray(format="rgb24", **size)
    display_matrix = frame.side_data.get("DISPLAYMATRIX")
    if display_matrix is None:
        return image
    # A pixel at (x, y) is shown at (a x + c y, b x + d y), but for a shift.
    a, b, _, c, d = np.frombuffer(bytes(display_matrix), dtype=np.int32)[:5].tolist()
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
