"""Runs in each call of a processor: brings videos yet to be read through transformers' checks, and reads them."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers.video_utils import VideoInput, is_batched_video, is_valid_video, make_batched_videos

from .encoded_video import SUFFIX, EncodedVideo, is_encoded_video, reason_of_kind
from .error_texts import show
from .video_sources import is_source, local_path


class _UnreadVideo(str):
    """A video that is yet to be read, in the guise of the only type that transformers lets pass for one."""

    __slots__ = ("source",)


def as_strings(videos: Any) -> Any:
    """The same, nested as it was, with a string for each path and for each file in memory."""
    if isinstance(videos, (list, tuple)):
        return [_as_array(as_strings(video)) for video in videos] if any(map(_holds_source, videos)) else videos
    if not _is_unread(videos) or isinstance(videos, str):
        return videos
    if isinstance(videos, os.PathLike):
        return os.fsdecode(videos)
    unread = _UnreadVideo()
    unread.source = videos
    return unread


def encoded_among(videos: VideoInput, kind: type[EncodedVideo] = EncodedVideo) -> list[EncodedVideo | None]:
    """Of each video of a call that `as_strings` let pass the encoded one, read where it is a file; None of the others.

    Args:
        kind: the class of those that the processor takes.

    Raises:
        FileNotFoundError, ValueError: as its `load`; also of an encoded video of another kind.
    """
    read: dict[str, EncodedVideo] = {}

    def take(video: Any) -> EncodedVideo | None:
        source = source_of(video) if isinstance(video, str) else None
        if source is None:
            return None
        if is_encoded_video(source):
            # Code that was published before there were kinds does not name its own.
            found = getattr(source, "format", EncodedVideo.format)
            if found != kind.format:
                raise ValueError(f"{show(source)} {reason_of_kind(found, kind.format)}")
            return source
        path = local_path(source)
        if path is None or not path.lower().endswith(SUFFIX) or os.path.isdir(path):
            return None
        if path not in read:  # many questions about one video
            read[path] = kind.load(path)
        return read[path]

    return [take(video) for video in separate(videos)]


def unencoded_among(
    videos: VideoInput, encoded: Sequence[EncodedVideo | None], options: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The videos of a call that `encoded_among` found none for, and the call's options for these alone."""

    def left(values: Sequence[Any]) -> list[Any]:
        return [value for value, one in zip(values, encoded) if one is None]

    metadata = options.get("video_metadata")
    if metadata is not None and len(metadata) == len(encoded):
        options = {**options, "video_metadata": left(metadata)}
    return left(separate(videos)), options


def separate(videos: Any) -> list[Any]:
    """The videos of a call, flat, like `make_batched_videos`; but frames in a list are left as they are."""
    if is_batched_video(videos):
        return list(videos)
    return [videos] if is_valid_video(videos) else make_batched_videos(videos)


def source_of(video: str) -> Any:
    """What is to be read or taken, of a string that `as_strings` gave: a source, or an encoded video."""
    return video.source if isinstance(video, _UnreadVideo) else video


def _as_array(video: Any) -> Any:
    """Frames in a list as one array: beside strings transformers would take them for no video."""
    is_list_of_frames = isinstance(video, (list, tuple)) and video and is_valid_video(video)
    return np.stack([np.asarray(frame) for frame in video]) if is_list_of_frames else video


def _holds_source(videos: Any) -> bool:
    return any(map(_holds_source, videos)) if isinstance(videos, (list, tuple)) else _is_unread(videos)


def _is_unread(video: Any) -> bool:
    return is_source(video) or is_encoded_video(video)
