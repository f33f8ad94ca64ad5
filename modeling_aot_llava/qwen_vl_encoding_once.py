"""Runs in `encode_video` of Qwen-VL: from a call's video to an encoded one, which stands for it in later calls."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.video_utils import VideoMetadata

from .kept_video_tokens import shortest_ratio
from .plain_numbers import is_integer, plain
from .prompt import Prompt
from .qwen_vl_call_videos import QwenVLCallVideos
from .qwen_vl_encoded_video import CONFIG_FIELDS, PARTS, QwenVLEncodedVideo
from .qwen_vl_encoding import encode_video
from .qwen_vl_kept_video import KeptVideo
from .qwen_vl_prompt import find_spans
from .qwen_vl_videos import count_kept
from .token_budget import count_video_tokens
from .video_marks import config_fields
from .weights_fingerprint import fingerprint


@torch.no_grad()
def encode_once(
    model,
    prompt: Prompt,
    videos: QwenVLCallVideos,
    video_metadata: VideoMetadata | Sequence[VideoMetadata] | None,
    source: str | None,
) -> QwenVLEncodedVideo:
    """Encodes one video.

    Args:
        model: an AOT model of the family, without the language-model head.
        prompt: with the video's placeholders, which say how many tokens are kept; or without anything: then
            `kept_video_tokens` of the call says so, or `config.retention_ratio`.
        videos: of the call: one, with pixels.
        video_metadata: of a call of the processor with `return_metadata=True`.
        source: what the video is called.

    Raises:
        ValueError: if there are several videos, the prompt does not fit, or it is not known when the frames are shown.
    """
    config = model.config
    config.validate_aot()
    rows = videos.checked_grids(config)
    if videos.encoded_video_tokens is not None:
        raise ValueError("There is a video in the call that is encoded already: ask it as it is.")
    if len(rows) != 1:
        raise ValueError(
            f"`video_grid_thw` tells of {len(rows)} videos, but one is encoded at a time: call `encode_video` for "
            "each."
        )
    (grid,) = rows
    facts = _facts_of(video_metadata)
    count = _count_kept(model, prompt, videos, grid)
    kept = _encode(model, videos, grid, count)
    video = QwenVLEncodedVideo(
        tokens=torch.cat([kept.tokens, *kept.deepstack], dim=-1).detach(),
        places=kept.is_kept.flatten().nonzero().flatten().cpu(),
        grid=grid,
        merge_size=config.vision_config.spatial_merge_size,
        num_frames=grid[0],
        retention_ratio=shortest_ratio(count, grid[0], config.grid_of(grid).num_pooled, config.num_clips),
        config={name: plain(value) for name, value in config_fields(config, CONFIG_FIELDS).items()},
        fingerprint=fingerprint(model, PARTS),
        source=None if source is None else str(source),
        **facts,
    )
    fault = video.find_fault()
    if fault:
        raise ValueError(f"The video cannot be encoded, for {fault}: pass all as the processor gives it.")
    return video


def _count_kept(model, prompt: Prompt, videos: QwenVLCallVideos, grid: tuple[int, int, int]) -> int:
    """B."""
    config, asked = model.config, videos.kept_video_tokens
    if prompt.input_ids is not None:
        (spans,) = find_spans(prompt.input_ids, config, [grid], model.has_span_a_frame)
        return count_kept(sum(span.length for span in spans), 0, grid, config, asked is not None)
    if asked is not None:
        return int(torch.as_tensor(asked).flatten()[0])
    return count_video_tokens(grid[0], config.retention_ratio, config.grid_of(grid).num_pooled, config.num_clips)


def _encode(model, videos: QwenVLCallVideos, grid: tuple[int, int, int], count: int) -> KeptVideo:
    pixels, num_tokens = videos.pixel_values_videos, model.config.grid_of(grid).num_pooled
    if count < grid[0] * num_tokens:
        return encode_video(model, pixels, grid, count)
    whole = model.whole_video_features(pixels, videos.video_grid_thw)
    deepstack = tuple(layer[0] for layer in getattr(whole, "deepstack_features", None) or ())
    return KeptVideo(whole.pooler_output[0], deepstack, torch.ones(grid[0], num_tokens, dtype=torch.bool))


def _facts_of(metadata: Any) -> dict[str, Any]:
    """Which pictures of what, and when they are shown."""
    if isinstance(metadata, (list, tuple)):
        metadata = metadata[0] if metadata else None
    if metadata is None:
        raise ValueError(
            "`video_metadata` is None, but later prompts tell when the frames are shown: call the processor with "
            "`return_metadata=True`."
        )
    indices, size = metadata.frames_indices, (metadata.height, metadata.width)
    return {
        "frame_indices": None if indices is None else tuple(int(index) for index in indices),
        "fps": float(metadata.fps) if metadata.fps else None,
        "total_num_frames": None if metadata.total_num_frames is None else int(metadata.total_num_frames),
        "source_size": tuple(map(int, size)) if all(map(is_integer, size)) else None,
    }
