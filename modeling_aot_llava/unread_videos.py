"""Videos that are yet to be read, on their way through transformers' checks, which let only strings pass for files."""

import os
from typing import Any

from .video_sources import Source, is_source


class _UnreadVideo(str):
    """A video that is yet to be read, in the guise of the only type that transformers lets pass for one."""

    __slots__ = ("source",)


def as_strings(videos: Any) -> Any:
    """The same, nested as it was, with a string for each path and for each file in memory."""
    if isinstance(videos, (list, tuple)):
        return type(videos)(map(as_strings, videos)) if any(map(_holds_source, videos)) else videos
    if not is_source(videos) or isinstance(videos, str):
        return videos
    if isinstance(videos, os.PathLike):
        return os.fsdecode(videos)
    unread = _UnreadVideo()
    unread.source = videos
    return unread


def _holds_source(videos: Any) -> bool:
    return any(map(_holds_source, videos)) if isinstance(videos, (list, tuple)) else is_source(videos)


def source_of(video: str) -> Source:
    """What is to be read, of a string that `as_strings` gave."""
    return video.source if isinstance(video, _UnreadVideo) else video
