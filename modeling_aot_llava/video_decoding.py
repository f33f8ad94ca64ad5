"""Runs once a video's frames are chosen: decodes a run of them, which is those decoded in one go from a keyframe on.

Fast, leaving out what nobody asked for and nothing refers to; and exactly, with every frame, where that misleads.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from .video_index import FrameIndex, TimesMisleadError
from .video_stream import Video, unreadable

try:  # optional, see video_stream.py
    import av
except ImportError:
    av = None

# The wanted times, rising, and the place of each among all frames that are wanted of the video.
Run = dict[int, int]

# How many keyframes a decoder may have to start before the one that leads to a frame: FFmpeg seeks MPEG-TS by decoding
# times and so lands too late, and an intra-refreshed picture builds up over several frames.
_STEPS_BACK = (0, 1, 3, 7, 15)


def decode_run(video: Video, index: FrameIndex, run: Run) -> Iterator[tuple[int, Any]]:
    """Places and frames of a run, decoding little else.

    Args:
        video: at its beginning, if the run is the first.

    Yields:
        (place, PyAV's frame), with rising places, and at last (-1, None) if that does not lead to all of these frames.
    """
    left, may_skip = dict(run), _may_skip(video.stream.codec_context)
    try:
        packets = _packets_for(video, index, next(iter(run)))
        for time, frame in _decode_from_next_keyframe(packets, video, index, run, may_skip):
            if time in left:
                # One before it does not come; or of a picture that is coded as two fields one may have been left out.
                if time != next(iter(left)) or frame.is_corrupt or (may_skip and frame.interlaced_frame):
                    break
                yield left.pop(time), frame
    except (TimesMisleadError, av.error.FFmpegError):
        pass
    if left:
        yield -1, None


def decode_run_exactly(video: Video, index: FrameIndex, run: Run) -> Iterator[tuple[int, Any]]:
    """Places and frames of a run, whatever has to be decoded.

    Args:
        video: at its beginning.

    Raises:
        TimesMisleadError: a frame is not where the index has it.
        ValueError: a frame does not decode.
    """
    times = list(run)
    yield from zip(run.values(), _on_screen(video, _decode_for(video, index, times[0]), times))


def decode_in_order(video: Video, indices: np.ndarray) -> Iterator[tuple[int, Any]]:
    """Places and frames at the rising `indices`, decoding all frames of a video that stands at its beginning."""
    frames = enumerate(frame for packet in video.packets() for frame in packet.decode())
    yield from enumerate(_on_screen(video, frames, indices.tolist()))


def _may_skip(context: Any) -> bool:
    """Whether the decoder knows for sure which frames no other refers to."""
    if context.name == "hevc":
        # In layers of time a frame refers to such frames of lower layers. ISO/IEC 14496-15, section 8.3.2.1.
        header = context.extradata or b""
        return len(header) > 22 and header[0] == 1 and header[21] >> 3 & 7 == 1
    return context.name == "h264"


def _packets_for(video: Video, index: FrameIndex, time: int) -> Iterator[Any]:
    """The packets from the last keyframe on that is shown at `time` or before."""
    position = index.keyframe_before(time)
    if position == 0:
        return _from_keyframe(video)
    for steps_back in _STEPS_BACK:
        _seek(video, index.keyframes[max(0, position - steps_back)])
        packets = _from_keyframe(video)
        first = next(packets, None)
        if first is not None and first.pts is not None and first.pts <= time:
            return itertools.chain([first], packets)
    raise TimesMisleadError


def _decode_for(video: Video, index: FrameIndex, time: int) -> Iterator[tuple[int, Any]]:
    """Times and frames from the last keyframe on that leads to what is on screen at `time`."""
    position = index.keyframe_before(time)
    if position == 0:
        return _decode_from_next_keyframe(_from_keyframe(video), video, index)
    for steps_back in _STEPS_BACK:
        _seek(video, index.keyframes[max(0, position - steps_back)])
        frames = _decode_from_next_keyframe(_from_keyframe(video), video, index)
        first = next(frames, None)
        if first is not None and first[0] <= time:
            return itertools.chain([first], frames)
    raise TimesMisleadError


def _seek(video: Video, time: int) -> None:
    try:
        video.container.seek(int(time), stream=video.stream)
    except av.error.FFmpegError as error:
        raise TimesMisleadError from error


def _from_keyframe(video: Video) -> Iterator[Any]:
    return itertools.dropwhile(lambda packet: not packet.is_keyframe, video.packets())


def _decode_from_next_keyframe(
    packets: Iterator[Any], video: Video, index: FrameIndex, wanted: Collection[int] = (), may_skip: bool = False
) -> Iterator[tuple[int, Any]]:
    """Times and frames of packets, of which the first is a keyframe: of all, or until the `wanted` times have come.

    Args:
        may_skip: whether to leave out frames that are not wanted and that no other refers to.
    """
    keyframe = next(packets, None)
    if keyframe is None:
        return
    context, left, latest = video.stream.codec_context, set(wanted), keyframe.pts
    for packet in itertools.chain([keyframe], packets):
        if may_skip:
            context.skip_frame = "DEFAULT" if packet.pts in left else "NONREF"
        frames = packet.decode()
        left.discard(packet.pts)
        is_last = bool(wanted) and not left and packet.size > 0
        if is_last:
            frames += context.decode(None)  # what the decoder would hold back until it is fed more
        for frame in frames:
            # Decoders leave out what is shown before the keyframe, as it refers to pictures that they have not seen;
            # so times never fall, unless they are not presentation times.
            if None in (latest, frame.pts) or frame.pts < latest or not index.has(frame.pts):
                raise TimesMisleadError
            latest = frame.pts
            yield latest, frame
        if is_last:
            return


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
