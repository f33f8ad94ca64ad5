"""A video file opened with PyAV, and what FFmpeg complains of in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from .video_sources import VideoFile

try:  # the Hub's loader demands whatever is imported outside of `try`, and PyAV is optional
    import av
except ImportError:
    av = None

# Decoders with which FFmpeg draws text files.
_TEXT_CODECS = ("ansi", "bintext", "idf", "xbin")


class Video(NamedTuple):
    """An open video: its file, PyAV's container, and the stream in it that is read."""

    file: VideoFile
    container: Any
    stream: Any


def check_pyav() -> None:
    """Raises `ImportError` unless PyAV is installed."""
    if av is None:
        raise ImportError("Reading video files needs PyAV: run `pip install av`.")


@contextmanager
def open_video(file: VideoFile) -> Iterator[Video]:
    """Opens a file at its beginning and closes it at the end of the context.

    Raises:
        ValueError: it is damaged or no video, which may also show while it is read.
    """
    try:
        with av.open(_what_pyav_opens(file), **_lenient_tags()) as container:
            stream = _video_stream(file, container)
            stream.thread_type = "AUTO"
            yield Video(file, container, stream)
    except av.error.FFmpegError as error:
        raise unreadable(file, f"cannot be read as a video ({error.strerror})") from error


def unreadable(file: VideoFile, reason: str) -> ValueError:
    """The error of a file that is damaged or no video."""
    remedy = "give a complete video file, or re-encode this one with `ffmpeg -i INPUT OUTPUT.mp4`"
    return ValueError(f"{file.name} {reason}: {remedy}.")


def _what_pyav_opens(file: VideoFile) -> Any:
    if isinstance(file.content, str):
        return f"file:{file.content}"  # or FFmpeg would take what stands before a colon for a protocol
    file.content.seek(0)
    return file.content


def _lenient_tags() -> dict[str, str]:
    """Options for titles in whatever encoding: they are no reason to refuse the pictures."""
    is_lenient_anyway = int(av.__version__.split(".")[0]) >= 19
    return {} if is_lenient_anyway else {"metadata_errors": "ignore"}


def _video_stream(file: VideoFile, container: Any) -> Any:
    stream = container.streams.best("video")
    # The cover picture of a piece of music is a video stream, too.
    is_cover = stream is not None and stream.disposition & av.stream.Disposition.attached_pic
    if stream is None or is_cover or stream.codec_context is None:
        raise unreadable(file, "has no video stream that PyAV can decode")
    if stream.codec_context.name in _TEXT_CODECS:
        raise ValueError(f"{file.name} is text, not a video: give a video file.")
    return stream
