"""The same for the Qwen-VL family, on which a frame is two pictures and as large as the video says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature

from modeling_aot_llava.qwen_vl_encoding import compress_video
from modeling_aot_llava.video_reading import read_frames as read_pictures

from ..arguments import name_of_video
from ..hosts import frames_to_sample
from .compressed_video import LONGEST_SIDE, CompressedVideo, check_something_is_left_out
from .token_map import map_frames


@dataclass(frozen=True)
class SampledFrames:
    """What the model is given of a video, and a picture of each frame, (height, width, 3)."""

    inputs: BatchFeature
    pictures: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.pictures)


def read_frames(processor: Any, video: str | Path, num_frames: int | None) -> SampledFrames:
    """Samples the video's frames; a number of None leaves it to the processor.

    Raises:
        ValueError: if the file cannot be read.
    """
    inputs = processor(
        text=processor.video_token,
        videos=[str(video)],
        return_tensors="pt",
        return_metadata=True,
        **frames_to_sample(processor, num_frames),
    )
    (metadata,) = inputs.pop("video_metadata")
    firsts = np.asarray(metadata.frames_indices)[:: processor.video_processor.temporal_patch_size]
    indices, places = np.unique(firsts, return_inverse=True)
    pictures, _ = read_pictures(str(video), indices)
    return SampledFrames(inputs, list(pictures[places]))


def compress(model: Any, processor: Any, video: str | Path, frames: SampledFrames) -> CompressedVideo:
    """Runs vision tower and AOT on the video's frames.

    Raises:
        ValueError: if this checkpoint keeps every token.
    """
    inputs = frames.inputs.to(model.device)
    grid_thw = tuple(inputs["video_grid_thw"][0].tolist())
    grid = model.config.grid_of(grid_thw)
    tokens_before = grid_thw[0] * grid.num_pooled
    num_tokens = int((inputs["input_ids"] == processor.video_token_id).sum())
    check_something_is_left_out(num_tokens, tokens_before)
    with torch.inference_mode():
        compressed = compress_video(model.model, inputs["pixel_values_videos"], grid_thw, num_tokens)
    return CompressedVideo(
        name=name_of_video(str(video)),
        pictures=list(map(_picture, frames.pictures)),
        frames=map_frames(compressed, model.config, grid),
        clip_lengths=compressed.clip_lengths,
        tokens_before=tokens_before,
        tokens_after=len(compressed.tokens),
        config=model.config,
    )


def _picture(frame: np.ndarray) -> Image.Image:
    picture = Image.fromarray(frame)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return picture
