"""Runs for each Qwen-VL video with pixels: tower, merger and AOT, from these to tokens, some frames at a time.

Anchors are chosen among the tokens that the merger makes, since the tower and the language model share no space before
it. The features of Qwen3-VL's DeepStack ride along beside each token: they are folded with the same weights, but say
nothing of how alike tokens are.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .qwen_vl_kept_video import KeptVideo
from .rotary_attention_capture import run_and_read_rotary_attention
from .spatiotemporal_pruning import FrameTokens, VideoTokens, compress_along_time, compress_frames
from .token_budget import plan_token_budget


@dataclass(frozen=True)
class EncodedFrames:
    """Of some frames: tokens with DeepStack's channels, (F, P, D (1 + layers)); two scores, (F, P); and one feature a
    frame, (F, Dv)."""

    channels: Tensor
    local_attention: Tensor
    global_attention: Tensor
    frame_features: Tensor


def encode_video(model, pixels: Tensor, grid_thw: tuple[int, int, int], num_video_tokens: int | None) -> KeptVideo:
    """Encodes and compresses one video.

    Args and raises: as `compress_video`.
    """
    video = compress_video(model, pixels, grid_thw, num_video_tokens)
    shape = (grid_thw[0], model.config.grid_of(grid_thw).num_pooled)
    is_kept = torch.zeros(shape, dtype=torch.bool, device=video.tokens.device)
    is_kept.view(-1)[video.places] = True
    tokens, *deepstack = video.tokens.split(model.config.text_config.hidden_size, dim=-1)
    return KeptVideo(tokens, tuple(deepstack), is_kept)


def compress_video(model, pixels: Tensor, grid_thw: tuple[int, int, int], num_video_tokens: int | None) -> VideoTokens:
    """The same, with what a picture of it needs; at most `config.frames_at_once` frames are encoded at a time.

    Args:
        model: an AOT model of the Qwen-VL family, without the language-model head.
        pixels: (patches, values of a patch), the video's rows of `pixel_values_videos`.
        grid_thw: frames, and a frame's height and width in patches.
        num_video_tokens: B; None where `config.retention_ratio` decides.

    Returns:
        Tokens of (B, D (1 + layers of DeepStack)).

    Raises:
        ValueError: if there is no plan for these numbers.
        RuntimeError: if the vision tower is compiled in a way that lets nobody read its attention.
    """
    config, num_frames = model.config, grid_thw[0]
    grid = config.grid_of(grid_thw)
    if config.num_anchors is not None and config.num_anchors > grid.num_patches:
        raise ValueError(
            f"`num_anchors` is {config.num_anchors}, but a frame of this video has only {grid.num_patches} tokens: "
            "lower it, or set `model.config.num_anchors = None` for a share of each video's tokens."
        )
    budget = plan_token_budget(config, num_frames, num_video_tokens, grid)
    patches_of_frame = grid_thw[1] * grid_thw[2]
    parts, features = [], []
    for first in range(0, num_frames, config.frames_at_once):
        last = min(first + config.frames_at_once, num_frames)
        part = pixels[first * patches_of_frame : last * patches_of_frame]
        frames = encode_frames(model, part, (last - first, *grid_thw[1:]))
        features.append(frames.frame_features)
        parts.append(
            compress_frames(
                frames.channels,
                frames.local_attention,
                frames.global_attention,
                budget,
                config,
                first_frame=first,
                num_compared=model.config.text_config.hidden_size,
            )
        )
    return compress_along_time(FrameTokens.join(parts), budget, config, torch.cat(features))


def encode_whole_video(model, pixels: Tensor, grid_thw: tuple[int, int, int]) -> KeptVideo:
    """The same, with all tokens, as the stock model has them."""
    outputs = model.run_vision_tower(pixels, grid_thw)
    shape = (grid_thw[0], model.config.grid_of(grid_thw).num_pooled)
    is_kept = torch.ones(shape, dtype=torch.bool, device=outputs.pooler_output.device)
    return KeptVideo(outputs.pooler_output, tuple(_deepstack_of(outputs)), is_kept)


def encode_frames(model, pixels: Tensor, grid_thw: tuple[int, int, int]) -> EncodedFrames:
    """Some frames of a video through the vision tower, with the scores of their tokens."""
    watched = (model.config.local_attention_layer, model.config.global_attention_layer)
    run = partial(model.run_vision_tower, pixels, grid_thw)
    outputs, received = run_and_read_rotary_attention(model.visual, run, watched)
    num_frames, patches_of_token = grid_thw[0], model.config.vision_config.spatial_merge_size**2
    order = model.raster_order(grid_thw)
    scores = {}
    for layer, of_patches in received.items():
        of_tokens = of_patches.view(-1, patches_of_token).mean(-1)
        scores[layer] = (of_tokens if order is None else of_tokens[order.to(of_tokens.device)]).view(num_frames, -1)
    return EncodedFrames(
        channels=torch.cat([outputs.pooler_output, *_deepstack_of(outputs)], dim=-1).unflatten(0, (num_frames, -1)),
        local_attention=scores[watched[0]],
        global_attention=scores[watched[1]],
        frame_features=outputs.last_hidden_state.unflatten(0, (num_frames, -1)).mean(1),
    )


def _deepstack_of(outputs: Any) -> list[Tensor]:
    return list(getattr(outputs, "deepstack_features", None) or [])
