"""Runs for each frame of a Qwen-VL video that is read: resized as soon as it is decoded, in the memory of one frame.

The stock video processors decide a video's size by its number of frames, and then do the same to each frame.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaOnevisionVideoProcessor, Qwen2VLVideoProcessor, Qwen3VLVideoProcessor
from transformers.image_utils import ChannelDimension

from .frame_preparation import PreparedFrames, frame_preparer

# Options of a call that say which frames are meant and in which form.
_OF_FRAMES = ("do_sample_frames", "input_data_format", "video_metadata", "return_metadata", "return_tensors", "device")


def resizes_frame_by_frame(video_processor: Any, options: dict[str, Any]) -> bool:
    """Whether a video processor, called with these options, resizes as the stock ones do.

    Not one that somebody has derived from them.
    """
    resizes = _option("do_resize", video_processor, options)
    return type(video_processor) in (Qwen2VLVideoProcessor, Qwen3VLVideoProcessor) and bool(resizes)


def resizing_store(
    video_processor: Any, options: dict[str, Any], num_frames: int, num_frames_shown: int
) -> PreparedFrames:
    """A store of `read_video_into` that keeps frames as the video processor resizes them.

    Args:
        video_processor: one that `resizes_frame_by_frame`.
        options: of the call.
        num_frames: how many come into the store.
        num_frames_shown: how many the video processor is given then, of which some may come twice.

    Returns:
        Its `frames` are (num_frames, 3, height, width) uint8.
    """

    @functools.cache
    def resizer(height: int, width: int) -> Callable[[Tensor], Tensor]:
        size = _size_of_frames(video_processor, options, num_frames_shown, height, width)
        # This class resizes each frame to the size that it is told, by the same call as Qwen's.
        form = {"resample": _option("resample", video_processor, options), "device": options.get("device")}
        plain = LlavaOnevisionVideoProcessor(size=size, do_rescale=False, do_normalize=False)
        return frame_preparer(plain, form)

    return PreparedFrames(num_frames, lambda frame: resizer(*frame.shape[-2:])(frame))


def _size_of_frames(
    video_processor: Any, options: dict[str, Any], num_frames: int, height: int, width: int
) -> dict[str, int]:
    """To which size the video processor resizes frames: it is asked, with a video that has a shape and no pixels."""
    options = {name: value for name, value in options.items() if name not in _OF_FRAMES}
    video = torch.empty((num_frames, 3, height, width), dtype=torch.uint8, device="meta")
    form = {"do_sample_frames": False, "input_data_format": ChannelDimension.FIRST, "device": "meta"}
    processed = video_processor([video], return_tensors="pt", **form, **options)
    _, rows, columns = processed["video_grid_thw"][0].tolist()
    patch_size = _option("patch_size", video_processor, options)
    return {"height": rows * patch_size, "width": columns * patch_size}


def _option(name: str, video_processor: Any, options: dict[str, Any]) -> Any:
    value = options.get(name)
    return getattr(video_processor, name, None) if value is None else value
