"""Runs in each call of a Qwen-VL processor: reads its videos, of which the stock video processor says which frames."""

from typing import Any

import numpy as np
from transformers.image_utils import ChannelDimension
from transformers.utils import logging
from transformers.video_utils import VideoInput, VideoMetadata

from .frame_preparation import PreparedFrames
from .qwen_vl_resizing import resizes_frame_by_frame, resizing_store
from .unread_videos import separate, source_of
from .upright_frames import StackedFrames
from .video_limits import VideoLimits
from .video_reading import read_chosen_frames

logger = logging.get_logger(__name__)

# Options of a call that `sample_frames` of a video processor is not told.
_NOT_OF_SAMPLING = ("input_data_format", "do_convert_rgb", "do_sample_frames", "device", "video_metadata")


def read_videos(
    video_processor: Any, videos: VideoInput, options: dict[str, Any], limits: VideoLimits
) -> tuple[VideoInput, dict[str, Any]]:
    """The videos of a call, that `as_strings` let pass, read where they are unread, and the options for what is read.

    Args:
        video_processor: the stock one, which chooses the frames, as it would of a file that it reads itself.
        videos: all of the call; lists of picture files are the video processor's own business.
        options: the call's.
        limits: what is refused.

    Raises:
        ValueError: if some are files and some are decoded, or one cannot be read.
    """
    flat = separate(videos)
    if not any(isinstance(video, str) for video in flat):
        return videos, options
    if not all(isinstance(video, str) for video in flat):
        raise ValueError("Some videos of the call are files and some are decoded frames: pass one or the other.")
    if options.get("video_metadata") is not None:
        logger.warning_once("`video_metadata` is ignored: the videos are files, which are read for it.")
    sources = [source_of(video) for video in flat]
    is_resized = resizes_frame_by_frame(video_processor, options)
    frames, metadata = zip(*(_read(video_processor, source, options, limits, is_resized) for source in sources))
    layout = ChannelDimension.FIRST if is_resized else ChannelDimension.LAST
    form = {"do_sample_frames": False, "input_data_format": layout, "video_metadata": list(metadata)}
    return list(frames), {**options, **form, **({"do_resize": False} if is_resized else {})}


def _read(
    video_processor: Any, source: Any, options: dict[str, Any], limits: VideoLimits, is_resized: bool
) -> tuple[Any, VideoMetadata]:
    sampled = VideoMetadata(total_num_frames=0)

    def choose(total: int, frame_rate: float | None) -> np.ndarray:
        sampled.update({"total_num_frames": total, "fps": frame_rate})
        sampled.frames_indices = choose_frames(video_processor, sampled, options)
        return np.unique(sampled.frames_indices)

    def make_store(num_frames: int) -> PreparedFrames | StackedFrames:
        if not is_resized:
            return StackedFrames(num_frames)
        return resizing_store(video_processor, options, num_frames, len(sampled.frames_indices))

    frames, metadata = read_chosen_frames(source, choose, limits, make_store)
    # The frame rate too: where there is none, as of pictures, some hosts take one for granted.
    metadata.update({"fps": sampled.fps, "frames_indices": sampled.frames_indices})
    if len(frames) < len(sampled.frames_indices):  # more were asked for than there are, so that some come twice
        _, places = np.unique(sampled.frames_indices, return_inverse=True)
        frames = frames[places]
    return frames, metadata


def choose_frames(video_processor: Any, metadata: VideoMetadata, options: dict[str, Any]) -> Any:
    """Which pictures of a video the stock video processor takes, in a call with these options.

    Raises:
        ValueError: if that is not said, or there are not so many.
    """

    def option(name: str) -> Any:
        return options[name] if name in options else getattr(video_processor, name, None)

    if not option("do_sample_frames"):
        return np.arange(metadata.total_num_frames)
    names = video_processor.valid_kwargs.__annotations__.keys() - set(_NOT_OF_SAMPLING)
    try:
        return video_processor.sample_frames(metadata=metadata, **{name: option(name) for name in names})
    except TypeError as error:  # Qwen2.5-VL's compares with the number that it was not given
        raise ValueError("How many frames to sample is not said: pass `num_frames` or `fps`.") from error
