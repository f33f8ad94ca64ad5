"""Runs when a video file is opened: with PyAV, if its format is a video's; explains what FFmpeg complains of."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from .video_contents import claims_too_much, is_text, is_web_page
from .video_limits import DEFAULT_LIMITS, VideoLimits
from .video_sources import VideoFile

try:  # the Hub's loader demands whatever is imported outside of `try`, and PyAV is optional
    import av
except ImportError:
    av = None

# FFmpeg's names of the formats that are read: videos and pictures that are whole in themselves. It has many more,
# which open other files and addresses (concat, hls, dash, sdp, image2, mlv, ...), draw text, or capture screens.
VIDEO_FORMATS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "mxf", "rm", "dv", "gif", "apng", "ivf"),
    *(
        "h263",
        "h264",
        "hevc",
        "vvc",
        "av1",
        "obu",
        "m4v",
        "mpegvideo",
        "mjpeg",
        "vc1",
        "yuv4mpegpipe",
    ),  # streams alone
    *("bmp_pipe", "gif_pipe", "jpeg_pipe", "png_pipe", "tiff_pipe", "webp_pipe"),
)

_BYTES_AT_A_TIME = 2**15


class Video(NamedTuple):
    """An open video: its file, PyAV's container, and the stream in it that is read."""

    file: VideoFile
    container: Any
    stream: Any

    def packets(self) -> Iterator[Any]:
        """The packets of the stream from here on, and at the end an empty one, which brings the last frames."""
        # Having read all, PyAV stumbles over streams that the file's beginning did not name. This one is through then.
        with suppress(IndexError):
            yield from self.container.demux(self.stream)


def check_pyav() -> None:
    """Raises `ImportError` unless PyAV is installed."""
    if av is None:
        raise ImportError("Reading video files needs PyAV: run `pip install av`.")


@contextmanager
def open_video(
    file: VideoFile, limits: VideoLimits = DEFAULT_LIMITS, num_threads: int | None = None
) -> Iterator[Video]:
    """Opens a file at its beginning and closes it at the end of the context.

    Args:
        num_threads: of the decoder; by default as many as FFmpeg thinks right.

    Raises:
        ValueError: it is damaged, no video or one of frames that are too large, which may also show while it is read.
    """
    with file.open() as content:
        _check_claims(file, content)
        try:
            # Of what FFmpeg allocates, which has margins around the frame.
            largest = {"max_pixels": str(2 * limits.max_pixels_per_frame + 2**20)}
            with av.open(_Bytes(content), io_open=_open_nothing_else, **_options(largest)) as container:
                stream = _video_stream(file, container, limits)
                stream.codec_context.options = largest
                stream.thread_type = "AUTO"
                if num_threads is not None:
                    stream.codec_context.thread_count = num_threads
                yield Video(file, container, stream)
        except av.error.FFmpegError as error:
            raise _explained(file, content, error, limits) from error


def unreadable(file: VideoFile, reason: str) -> ValueError:
    """The error of a file that is damaged or no video."""
    remedy = "give a complete video file, or re-encode this one with `ffmpeg -i INPUT OUTPUT.mp4`"
    return ValueError(f"{file.name} {reason}: {remedy}.")


def _check_claims(file: VideoFile, content: Any) -> None:
    size = content.seek(0, os.SEEK_END)
    if claims_too_much(content, size):
        raise unreadable(file, f"is damaged: it names more frames and parts than its {size:,} bytes can hold")
    content.seek(0)


class _Bytes:
    """An open file as PyAV needs it, without a name: FFmpeg would take parts of it for a protocol or a pattern."""

    __slots__ = ("read", "seek", "tell")

    def __init__(self, content: Any):
        self.read, self.seek, self.tell = content.read, content.seek, content.tell


def _open_nothing_else(address: str, *_: Any) -> Any:
    """In the place of FFmpeg's own way to open what a file refers to."""
    raise PermissionError(errno.EPERM, "the file refers to another one", address)


def _options(largest: dict[str, str]) -> dict[str, Any]:
    version = int(av.__version__.split(".")[0])
    options = {"format_whitelist": ",".join(VIDEO_FORMATS), "protocol_whitelist": "", **largest}
    # `options` reach the decoders that look at streams, too. Before 17 PyAV crashes over them where streams appear.
    options = {"options" if version >= 17 else "container_options": options}
    # Titles in whatever encoding are no reason to refuse the pictures; from 19 on they are not.
    return options if version >= 19 else {**options, "metadata_errors": "ignore"}


def _video_stream(file: VideoFile, container: Any, limits: VideoLimits) -> Any:
    stream = container.streams.best("video")
    # The cover picture of a piece of music is a video stream, too.
    is_cover = stream is not None and stream.disposition & av.stream.Disposition.attached_pic
    if stream is None or is_cover or stream.codec_context is None:
        raise unreadable(file, "has no video stream that PyAV can decode")
    limits.check_frame(stream.codec_context.width, stream.codec_context.height, file.name)
    return stream


def _explained(file: VideoFile, content: Any, error: Any, limits: VideoLimits) -> ValueError:
    """FFmpeg's complaint, in the words for what the file is."""
    content.seek(0)
    beginning = content.read(_BYTES_AT_A_TIME)
    if is_web_page(beginning):
        return ValueError(f"{file.name} cannot be read as a video, for it is a web page: give the video file itself.")
    if is_text(beginning):
        return ValueError(f"{file.name} cannot be read as a video, for it is text: give a video file.")
    if error.errno in (errno.EINVAL, errno.ENOMEM):
        # Also what FFmpeg says to a format that is not listed, and to a frame that is larger than the file said.
        limit = f"has frames of more than {limits.max_pixels_per_frame:,} pixels (max_pixels_per_frame)"
        return unreadable(
            file, f"cannot be read as a video: it is damaged, has no video stream that is read, or {limit}"
        )
    return unreadable(file, f"cannot be read as a video ({error.strerror})")
