"""A video file, compressed as `generate` would, with all that a picture of it needs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from modeling_aot_llava import (
    AOTLlavaOnevisionConfig,
    AOTLlavaOnevisionForConditionalGeneration,
    AOTLlavaOnevisionProcessor,
)
from modeling_aot_llava.configuration_aot_qwen_vl import QwenVLFields
from modeling_aot_llava.video_reading import read_video

from ..answer import without_newlines
from ..arguments import name_of_video
from .token_map import FrameMap, map_frames

# No drawing shows a frame larger than this, in pixels.
LONGEST_SIDE = 640


@dataclass(frozen=True)
class CompressedVideo:
    """A video and what became of it.

    Attributes:
        name: of the file.
        pictures: the sampled frames, cut to what the vision tower's patches cover; on Qwen-VL, where two are one, the
            first of them.
        frames: the map of each.
        clip_lengths: frames of each clip.
        tokens_before, tokens_after: video tokens that the stock model and this one read, newlines not counted.
        config: that they were compressed with.
    """

    name: str
    pictures: list[Image.Image]
    frames: list[FrameMap]
    clip_lengths: tuple[int, ...]
    tokens_before: int
    tokens_after: int
    config: AOTLlavaOnevisionConfig | QwenVLFields


def read_frames(processor: AOTLlavaOnevisionProcessor, video: str | Path, num_frames: int | None) -> np.ndarray:
    """Samples the video's frames, (F, height, width, 3); a number of None leaves it to the processor.

    Raises:
        ValueError: if the file cannot be read.
    """
    frames, _ = read_video(str(video), num_frames or processor.num_frames)
    return frames


def compress(
    model: AOTLlavaOnevisionForConditionalGeneration,
    processor: AOTLlavaOnevisionProcessor,
    video: str | Path,
    frames: np.ndarray,
) -> CompressedVideo:
    """Runs vision tower and AOT on the video's frames.

    Raises:
        ValueError: if this checkpoint keeps every token.
    """
    inputs = processor(
        text=processor.video_token,
        videos=[frames],
        do_sample_frames=False,
        add_time_instruction=False,
        return_tensors="pt",
    )
    tokens_before = len(frames) * model.config.pooled_grid_size**2
    num_placeholders = int((inputs["input_ids"] == processor.video_token_id).sum())
    num_tokens = without_newlines(num_placeholders, len(frames), model.config)
    check_something_is_left_out(num_tokens, tokens_before)
    with torch.inference_mode():
        (compressed,) = model.model.compress_videos(
            inputs["pixel_values_videos"].to(model.device, model.dtype), kept_video_tokens=[num_tokens]
        )
    return CompressedVideo(
        name=name_of_video(str(video)),
        pictures=[_seen_part(frame, model.config) for frame in frames],
        frames=map_frames(compressed, model.config),
        clip_lengths=compressed.clip_lengths,
        tokens_before=tokens_before,
        tokens_after=len(compressed.tokens),
        config=model.config,
    )


def check_something_is_left_out(num_tokens: int, tokens_before: int) -> None:
    """Raises ValueError if every token is kept."""
    if num_tokens == tokens_before:
        raise ValueError(
            "This checkpoint keeps every video token, so there is nothing to show. Set a lower --retention-ratio, "
            "such as 0.1."
        )


def _seen_part(frame: np.ndarray, config: AOTLlavaOnevisionConfig) -> Image.Image:
    """The frame without the strip at its right and lower edge that is too narrow for a patch."""
    vision = config.vision_config
    covered = config.patch_grid_size * vision.patch_size / vision.image_size
    height, width = frame.shape[:2]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    size = (max(1, round(width * covered * scale)), max(1, round(height * covered * scale)))
    return Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS, box=(0, 0, width * covered, height * covered))
