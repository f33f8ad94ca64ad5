"""Reads frames of a video file with PyAV: exactly, and decoding little more than is asked for.

The file's packets are read first, which is cheap, for nothing is decoded: they tell how many frames
there are and when each is shown, whether or not the container states a frame count, keeps a constant
frame rate or reorders frames. Then the wanted frames are decoded, each from the keyframe before it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from transformers.video_utils import VideoMetadata

try:  # the Hub's loader demands whatever is imported outside of `try`, and PyAV is optional
    import av
except ImportError:
    av = None

# Decoders with which FFmpeg draws text files.
TEXT_CODECS = ("ansi", "bintext", "idf", "xbin")

# Seconds by which a Matroska file may end before its header says: the header may round, and count
# the last frame's duration otherwise.
DURATION_TOLERANCE = 1.0


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
        return _read(source, _index_by_time(source), num_frames, fps)
    except _TimesMisleadError:
        return _read(source, _index_by_order(source), num_frames, fps)


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


class _TimesMisleadError(Exception):
    """The stream's times do not tell where its frames are: they can only be read in order."""


@dataclass(frozen=True)
class _FrameIndex:
    """When each frame is shown, and where decoding can start, in ticks of the stream's time base.

    A stream that can only be read in order (`seekable` is false) has its frames' positions for times.
    `duration` is in s, `frame_rate` in 1/s.
    """

    times: np.ndarray
    keyframes: np.ndarray
    seekable: bool
    duration: float | None
    frame_rate: float | None


def _check_sampling(num_frames: int | None, fps: float | None) -> None:
    if num_frames is not None and fps is not None:
        raise ValueError(
            f"num_frames={num_frames} and fps={fps} exclude each other: pass num_frames=None to "
            "sample by fps, or leave fps out."
        )
    if num_frames is not None:
        uniform_frame_indices(1, num_frames)
    if fps is not None and not fps > 0:
        raise ValueError(f"fps={fps} must be above 0, or None to sample by num_frames.")


def _read(source, index: _FrameIndex, num_frames, fps) -> tuple[np.ndarray, VideoMetadata]:
    total = len(index.times)
    if fps is not None:
        if index.frame_rate is None:
            raise ValueError(f"{source} does not tell its frame rate: pass num_frames, not fps.")
        num_frames = max(1, int(min(total, total / index.frame_rate * fps)))
    indices = uniform_frame_indices(total, total if num_frames is None else num_frames)
    with _open_video(source) as (container, stream):
        frames = _stack_upright(_decode_wanted(source, container, stream, index, indices))
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


@contextmanager
def _open_video(source) -> Iterator[tuple[Any, Any]]:
    """Gives the open container and its video stream, and FFmpeg's errors in plain words."""
    try:
        # Undecodable tags (`metadata_errors`) are no reason to refuse the pictures.
        with av.open(_address(source), metadata_errors="ignore") as container:
            stream = _video_stream(source, container)
            stream.thread_type = "AUTO"
            yield container, stream
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{source} cannot be read as a video ({error.strerror}): check that it is a video and "
            "complete, or re-encode it with `ffmpeg -i INPUT OUTPUT.mp4`."
        ) from error


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
    return f"file:{name}"  # without it FFmpeg takes what stands before a colon for a protocol


def _video_stream(source, container):
    stream = container.streams.best("video")
    # The cover picture of a piece of music is a video stream, too.
    if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
        raise ValueError(f"{source} has no video stream: give a file with moving pictures.")
    if stream.codec_context is None:
        raise ValueError(f"{source} has a codec that PyAV cannot decode: re-encode it as H.264.")
    if stream.codec_context.name in TEXT_CODECS:
        raise ValueError(f"{source} is text: give a video file.")
    return stream


# --- Indexing -------------------------------------------------------------------------------------


class _Packet(NamedTuple):
    """What the index needs to know of a packet, in ticks of the stream's time base."""

    time: int | None
    duration: int
    is_keyframe: bool
    is_shown: bool


def _index_by_time(source) -> _FrameIndex:
    """Finds the frames' presentation times from the packets, decoding nothing."""
    with _open_video(source) as (container, stream):
        packets = _read_packets(source, container, stream)
        keyframes = [packet.time for packet in packets if packet.is_keyframe]
        shown = [packet for packet in packets if packet.is_shown]
        if None in keyframes or any(packet.time is None for packet in shown):
            raise _TimesMisleadError
        # AVI keeps no presentation times: FFmpeg guesses them, wrongly where frames are reordered.
        if container.format.name == "avi" and stream.codec_context.has_b_frames:
            raise _TimesMisleadError
        # A recording may begin amid a group of pictures: what is shown before the first keyframe
        # refers to pictures that are not in the file.
        shown = [packet for packet in shown if keyframes and packet.time >= keyframes[0]]
        if not shown or np.any(np.diff(keyframes) <= 0):
            raise _TimesMisleadError
        times = np.unique([packet.time for packet in shown])
        last = max(shown)
        duration = float((last.time + last.duration - int(times[0])) * stream.time_base)
        frame_rate = _mean_frame_rate(stream, len(times), duration)
    return _FrameIndex(times, np.array(keyframes), True, duration, frame_rate)


def _index_by_order(source) -> _FrameIndex:
    """Counts the frames by decoding them all."""
    with _open_video(source) as (container, stream):
        total = sum(1 for _ in container.decode(stream))
        frame_rate = float(stream.average_rate) if stream.average_rate else None
    if total == 0:
        raise ValueError(f"{source} has no frame that can be decoded: copy or download it again.")
    duration = total / frame_rate if frame_rate else None
    return _FrameIndex(np.arange(total), np.array([0]), False, duration, frame_rate)


def _read_packets(source, container, stream) -> list[_Packet]:
    """Reads the file to its end, and raises ValueError if it is not the whole file."""
    packets, ends, last = [], {}, None
    for packet in container.demux():
        if packet.size == 0 and packet.pts is None:  # PyAV's sign that a stream has ended
            continue
        last, time, duration = packet, packet.pts, packet.duration or 0
        if time is not None:
            ends[packet.time_base] = max(time + duration, ends.get(packet.time_base, 0))
        if packet.stream_index == stream.index:
            is_shown = packet.size > 0 and not packet.is_discard
            packets.append(_Packet(time, duration, packet.is_keyframe, is_shown))
    end = max((float(ticks * time_base) for time_base, ticks in ends.items()), default=0.0)
    is_cut_in_packet = last is not None and last.is_corrupt
    ...
    return packets
