"""Runs for each frame of a processor's call: the stock video processor's pixel values, in the memory of one frame.

All that LLaVA-OneVision's video processor does, it does to each frame alone. So it is asked for each frame alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import LlavaOnevisionVideoProcessor
from transformers.image_utils import (
    ChannelDimension,
    PILImageResampling,
    infer_channel_dimension_format,
    is_pil_image,
)
from transformers.video_utils import is_valid_video

# Options of a call that say which frames are meant and in which form, not what is done to each.
_OF_WHOLE_VIDEOS = ("do_sample_frames", "input_data_format", "video_metadata", "return_metadata", "return_tensors")


class PreparedFrames:
    """A store of `read_video_into` that keeps pixel values as `frames`, (n, channels, height, width)."""

    def __init__(self, num_frames: int, prepare: Callable[[torch.Tensor], torch.Tensor]):
        self._num_frames = num_frames
        self._prepare = prepare
        self.frames: torch.Tensor | None = None

    def __call__(self, position: int, image: np.ndarray) -> None:
        """Prepares a frame (height, width, 3)."""
        self.add(position, torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))

    def add(self, position: int, frame: torch.Tensor) -> None:
        """Prepares a frame (channels, height, width)."""
        pixel_values = self._prepare(frame)
        if self.frames is None:
            self.frames = pixel_values.new_empty((self._num_frames, *pixel_values.shape))
        self.frames[position] = pixel_values


def works_frame_by_frame(video_processor: Any, options: dict[str, Any]) -> bool:
    """Whether a video processor does the same to frames alone as to videos, called with these options.

    Not one that somebody has derived from the stock one, nor where it chooses among the frames.
    """
    samples = options.get("do_sample_frames")
    samples = video_processor.do_sample_frames if samples is None else samples
    return type(video_processor) is LlavaOnevisionVideoProcessor and not samples


def store_maker(video_processor: Any, options: dict[str, Any]) -> Callable[[int], PreparedFrames]:
    """`make_store` of `read_video_into`, for what a video processor makes of frames, called with these options."""
    prepare = frame_preparer(video_processor, options)
    return lambda num_frames: PreparedFrames(num_frames, prepare)


def frame_preparer(video_processor: Any, options: dict[str, Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a video processor makes of a frame (channels, height, width), called with these options."""
    options = {name: value for name, value in options.items() if name not in _OF_WHOLE_VIDEOS}
    resample = options.get("resample")
    resample = video_processor.resample if resample is None else resample
    device = options.get("device") or getattr(video_processor, "device", None) or "cpu"
    # Bicubic on bytes is integer arithmetic on the CPU, whatever their order in memory, and saves a copy of the frame.
    # Other ways to resize round otherwise where the channels lie side by side.
    keeps_order = _is_bicubic(resample) and torch.device(device).type == "cpu"

    def prepare(frame: torch.Tensor) -> torch.Tensor:
        frame = frame if keeps_order and frame.dtype == torch.uint8 else frame.contiguous()
        form = {"do_sample_frames": False, "input_data_format": ChannelDimension.FIRST}
        return video_processor([frame[None]], **form, **options)["pixel_values_videos"][0][0]

    return prepare


def layout_of_rgb(videos: Sequence[Any], video_processor: Any, options: dict[str, Any]) -> ChannelDimension | None:
    """Where the channels of the separate, decoded videos of a call are.

    None if not all of them are RGB of one size and type throughout: what becomes of others the stock video processor
    decides by looking at whole videos.
    """
    if not all(map(_is_uniform, videos)):
        return None
    layout = options.get("input_data_format") or getattr(video_processor, "input_data_format", None)
    if layout is None:
        layout = infer_channel_dimension_format(as_array(videos[0]))
    layout = ChannelDimension(layout)
    axis = -1 if layout == ChannelDimension.LAST else -3
    return layout if all(as_array(video).shape[axis] == 3 for video in videos) else None


def prepare_decoded(
    video: Any, layout: ChannelDimension, video_processor: Any, options: dict[str, Any]
) -> torch.Tensor:
    """Pixel values (n, channels, height, width) of a decoded video that `layout_of_rgb` has a layout for."""
    store = store_maker(video_processor, options)(len(video))
    for position, frame in enumerate(video):
        frame = _tensor(frame)
        store.add(position, frame.permute(2, 0, 1) if layout == ChannelDimension.LAST else frame)
    return store.frames


def as_array(video: Any) -> Any:
    """A decoded video as something of its four dimensions; of frames in a list the first one stands for all."""
    if not isinstance(video, (list, tuple)):
        return video
    first = np.asarray(video[0])
    return np.broadcast_to(first, (len(video), *first.shape))


def _is_uniform(video: Any) -> bool:
    """Whether this is a decoded video of frames of three dimensions, one size and one type."""
    if not is_valid_video(video):
        return False
    if not isinstance(video, (list, tuple)):
        return len(video) > 0
    kinds = {(f.mode, f.size) if is_pil_image(f) else (f.dtype, tuple(f.shape)) for f in video}
    modes = {frame.mode for frame in video if is_pil_image(frame)}
    return len(kinds) == 1 and modes <= {"RGB"}


def _tensor(frame: Any) -> torch.Tensor:
    if isinstance(frame, torch.Tensor):
        return frame
    return torch.from_numpy(np.array(frame) if is_pil_image(frame) else frame)


def _is_bicubic(resample: Any) -> bool:
    return getattr(resample, "name", "") == "BICUBIC" or resample == PILImageResampling.BICUBIC
