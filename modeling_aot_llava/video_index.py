"""Runs once a video file is open: which frames it has, and when each is shown.

The file's packets tell it, which are read without decoding anything, whether or not the container states a frame
count, keeps a constant frame rate or reorders frames.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from .video_contents import stated_end
from .video_sources import VideoFile
from .video_stream import Video, unreadable


class FrameIndex(NamedTuple):
    """When each frame is shown and where decoding can start, rising, in ticks of the stream.

    Without keyframes it says that the stream is to be decoded from its beginning, and frames are numbered instead of
    timed. `duration` is in s, `frame_rate` in 1/s.
    """

    times: np.ndarray
    keyframes: np.ndarray | None
    duration: float | None
    frame_rate: float | None

    def keyframe_before(self, time: int) -> int:
        """Position in `keyframes` of the last one that is shown at `time` or before."""
        return int(np.searchsorted(self.keyframes, time, side="right")) - 1

    def has(self, time: int) -> bool:
        """Whether a frame is shown from this time on."""
        position = np.searchsorted(self.times, time)
        return position < len(self.times) and self.times[position] == time


class TimesMisleadError(Exception):
    """The packets' times do not tell where to find the frames."""


class _Packet(NamedTuple):
    """What the index needs of a packet; times in ticks of the stream."""

    time: int | None
    duration: int
    is_keyframe: bool
    is_shown: bool
    is_corrupt: bool


def index_by_time(video: Video) -> FrameIndex:
    """Indexes the frames by their packets, decoding nothing.

    Raises:
        TimesMisleadError: the packets have no times, or wrong ones.
        ValueError: the file ends before it should.
    """
    packets = _read_packets(video)
    keyframes = [packet.time for packet in packets if packet.is_keyframe]
    if not keyframes or any(packet.time is None for packet in packets):
        raise TimesMisleadError
    # AVI keeps no presentation times: FFmpeg guesses them, wrongly where frames are reordered.
    if video.container.format.name == "avi" and video.stream.codec_context.has_b_frames:
        raise TimesMisleadError
    # A recording may begin amid a group of pictures: what is shown before the first keyframe refers to pictures that
    # are not in the file.
    shown = [packet for packet in packets if packet.is_shown and packet.time >= keyframes[0]]
    if not shown or np.any(np.diff(keyframes) <= 0):
        raise TimesMisleadError
    times = np.unique([packet.time for packet in shown])
    last = max(shown)
    duration = float(last.time + last.duration - times[0]) * float(video.stream.time_base)
    frame_rate = _mean_frame_rate(video.stream, len(times), duration)
    return FrameIndex(times, np.array(keyframes), duration, frame_rate)


def index_by_order(video: Video) -> FrameIndex:
    """Counts the frames by decoding them all.

    Raises:
        ValueError: there is none.
    """
    total = sum(len(packet.decode()) for packet in video.packets())
    if total == 0:
        raise unreadable(video.file, "has no frame that can be decoded")
    frame_rate = float(video.stream.average_rate or 0) or None
    duration = total / frame_rate if frame_rate else None
    return FrameIndex(np.arange(total), None, duration, frame_rate)


def _read_packets(video: Video) -> list[_Packet]:
    """Reads the stream to its end, and raises ValueError if the file ends before it should."""
    packets = [
        _Packet(
            packet.pts,
            packet.duration or 0,
            packet.is_keyframe,
            is_shown=packet.size > 0 and not packet.is_discard,
            is_corrupt=packet.is_corrupt,
        )
        for packet in video.packets()
        if packet.size or packet.pts is not None  # PyAV marks the end with an empty packet
    ]
    ends_in_packet = bool(packets) and packets[-1].is_corrupt
    if ends_in_packet or _lacks_bytes(video.file, video.container.format.name):
        reason = f"is cut short after {len(packets)} frames"
        raise ValueError(f"{video.file.name} {reason}: copy or download it again.")
    return packets


def _mean_frame_rate(stream: Any, total: int, duration: float) -> float | None:
    """The container's rate if it agrees with the duration to a frame, or else the one measured."""
    rate = float(stream.average_rate or 0)
    if rate and abs(total / rate - duration) <= 1 / rate:
        return rate
    return total / duration if duration else None


def _lacks_bytes(file: VideoFile, container_format: str) -> bool:
    """Whether the file is shorter than it says itself, which FFmpeg does not tell."""
    with file.open() as content:
        size = content.seek(0, os.SEEK_END)
        return stated_end(content, size, container_format) > size
