"""Runs in each call of a processor: pixel values of its videos, of which those that are unread are read."""

from typing import Any

from transformers import BatchFeature
from transformers.utils import logging
from transformers.video_utils import VideoInput, make_batched_metadata

from .error_texts import show
from .frame_preparation import (
    as_array,
    layout_of_rgb,
    prepare_decoded,
    store_maker,
    works_frame_by_frame,
)
from .unread_videos import separate, source_of
from .upright_frames import StackedFrames
from .video_limits import VideoLimits
from .video_reading import read_video_into

logger = logging.get_logger(__name__)


def make_pixel_values(
    video_processor: Any,
    videos: VideoInput,
    options: dict[str, Any],
    default_num_frames: int | None,
    limits: VideoLimits,
) -> BatchFeature:
    """What a video processor makes of the videos of a call that `as_strings` let pass, of which it reads the unread.

    Each frame is prepared as soon as it is there, so that at full size they are never all in memory.

    Args:
        videos: all of the call; lists of picture files are the video processor's own business.
        options: the call's, of which `num_frames`, `fps` and `do_sample_frames` say which frames are read.
        default_num_frames: frames of a video where the call names no number.
        limits: what is refused.

    Returns:
        `pixel_values_videos`, (n, channels, height, width) of each video, and with `return_metadata`
        `video_metadata`.

    Raises:
        ValueError: if some are files and some are decoded, or one cannot be read.
    """
    flat = separate(videos)
    if not any(isinstance(video, str) for video in flat):
        return _of_decoded(video_processor, videos, flat, options)
    if not all(isinstance(video, str) for video in flat):
        raise ValueError("Some videos of the call are files and some are decoded frames: pass one or the other.")
    num_frames, fps = _sampling(options, default_num_frames)
    options = {name: value for name, value in options.items() if name not in ("num_frames", "fps", "video_metadata")}
    options["do_sample_frames"] = False
    is_prepared = works_frame_by_frame(video_processor, options)
    make_store = store_maker(video_processor, options) if is_prepared else StackedFrames
    read = [read_video_into(make_store, source_of(video), num_frames, fps, limits) for video in flat]
    frames, metadata = (list(each) for each in zip(*read))
    if not is_prepared:
        return video_processor(frames, video_metadata=metadata, **options)
    return _batch(frames, metadata if options.get("return_metadata") else None)


def _of_decoded(video_processor: Any, videos: VideoInput, flat: list[Any], options: dict[str, Any]) -> BatchFeature:
    layout = None
    if works_frame_by_frame(video_processor, options):
        layout = layout_of_rgb(flat, video_processor, options)
    if layout is None:
        return video_processor(videos, **options)
    metadata = make_batched_metadata(list(map(as_array, flat)), options.get("video_metadata"))
    frames = [prepare_decoded(video, layout, video_processor, options) for video in flat]
    return _batch(frames, metadata if options.get("return_metadata") else None)


def _batch(frames: list[Any], metadata: list[Any] | None) -> BatchFeature:
    values = {"pixel_values_videos": frames}
    return BatchFeature(values if metadata is None else {**values, "video_metadata": metadata})


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
