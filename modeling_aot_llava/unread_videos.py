"""Videos of a call that are yet to be read: on their way through transformers' checks, and read behind them."""

import os
from typing import Any

import numpy as np
from transformers.utils import logging
from transformers.video_utils import VideoInput, is_valid_video, make_batched_videos

from .encoded_video import SUFFIX, EncodedVideo, is_encoded_video
from .error_texts import show
from .video_limits import VideoLimits
from .video_reading import read_video
from .video_sources import Source, is_source, local_path

logger = logging.get_logger(__name__)


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


def encoded_among(videos: VideoInput) -> list[EncodedVideo | None]:
    """Of each video of a call that `as_strings` let pass the encoded one, read where it is a file; None of the others.

    Raises:
        FileNotFoundError, ValueError: as `EncodedVideo.load`.
    """
    read: dict[str, EncodedVideo] = {}

    def take(video: Any) -> EncodedVideo | None:
        source = _source_of(video) if isinstance(video, str) else None
        if source is None or is_encoded_video(source):
            return source
        path = local_path(source)
        if path is None or not path.lower().endswith(SUFFIX) or os.path.isdir(path):
            return None
        if path not in read:  # many questions about one video
            read[path] = EncodedVideo.load(path)
        return read[path]

    return [take(video) for video in make_batched_videos(videos)]


def read_unread(
    videos: VideoInput, options: dict[str, Any], default_num_frames: int | None, limits: VideoLimits
) -> tuple[VideoInput, dict[str, Any]]:
    """Reads the videos of a call that `as_strings` let pass.

    Frames that the caller has already decoded are the parent processor's business, and so are lists of picture files.

    Args:
        videos: all of the call.
        options: the call's, of which `num_frames`, `fps` and `do_sample_frames` say which frames are read.
        default_num_frames: frames of a video where the call names no number.
        limits: what is refused.

    Returns:
        Videos and options for the parent processor, which is not to sample again.

    Raises:
        ValueError: if some are files and some are decoded, or one cannot be read.
    """
    flat = make_batched_videos(videos)
    if not any(isinstance(video, str) for video in flat):
        return videos, options
    if not all(isinstance(video, str) for video in flat):
        raise ValueError("Some videos of the call are files and some are decoded frames: pass one or the other.")
    num_frames, fps = _sampling(options, default_num_frames)
    frames, metadata = zip(*(read_video(_source_of(video), num_frames, fps, limits) for video in flat))
    options = {name: value for name, value in options.items() if name not in ("num_frames", "fps")}
    return list(frames), {**options, "video_metadata": list(metadata), "do_sample_frames": False}


def _sampling(options: dict[str, Any], default_num_frames: int | None) -> tuple[int | None, float | None]:
    """`num_frames` and `fps` for `read_video`; says which options of the call have no effect."""
    num_frames, fps = options.get("num_frames"), options.get("fps")
    if options.get("video_metadata") is not None:
        logger.warning_once("`video_metadata` is ignored: the videos are files, which are read for it.")
    if options.get("do_sample_frames") is not False:
        return (default_num_frames, None) if num_frames is None and fps is None else (num_frames, fps)
    for name, value in (("num_frames", num_frames), ("fps", fps)):
        if value is not None:
            logger.warning_once(f"`{name}={show(value)}` is ignored: `do_sample_frames=False` reads every frame.")
    return None, None


def _as_array(video: Any) -> Any:
    """Frames in a list as one array: beside strings transformers would take them for no video."""
    is_list_of_frames = isinstance(video, (list, tuple)) and video and is_valid_video(video)
    return np.stack([np.asarray(frame) for frame in video]) if is_list_of_frames else video


def _holds_source(videos: Any) -> bool:
    return any(map(_holds_source, videos)) if isinstance(videos, (list, tuple)) else _is_unread(videos)


def _is_unread(video: Any) -> bool:
    return is_source(video) or is_encoded_video(video)


def _source_of(video: str) -> Source | EncodedVideo:
    """What is to be read or taken, of a string that `as_strings` gave."""
    return video.source if isinstance(video, _UnreadVideo) else video
