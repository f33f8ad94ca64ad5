"""Runs for each video with pixels: vision tower, projector and AOT, from these to tokens, some frames at a time.

Beside those frames' activations only the tokens that their frames keep stay in memory, so that it hardly grows with a
video's length.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import starmap
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from .attention_capture import run_and_read_attention
from .compiled_tower import VisionPart
from .spatiotemporal_pruning import FrameTokens, VideoTokens, compress_along_time, compress_frames
from .token_budget import TokenBudget, plan_token_budget

try:  # newer releases keep only those hidden states of the vision tower that are asked for by index
    from transformers.utils.output_capturing import select_hidden_states
except ImportError:
    select_hidden_states = None


def encode_and_compress(
    pixel_values_videos: Tensor,
    vision_tower: nn.Module,
    projector: nn.Module,
    config,
    feature_layers: Sequence[int],
    has_class_token: bool,
    kept_video_tokens: Sequence[int | None],
    vision_parts: Iterator[VisionPart] | None = None,
    on_vision_output: Callable[[ModelOutput], Any] | None = None,
    **kwargs,
) -> list[VideoTokens]:
    """Encodes at most `config.frames_at_once` frames at a time, of one long video or of several short ones.

    Args:
        pixel_values_videos: (videos, F, channels, height, width).
        vision_tower, projector: the model's.
        config: an `AOTLlavaOnevisionConfig`.
        feature_layers: whose hidden states the projector takes, side by side.
        has_class_token: whether the first token of a frame is no patch.
        kept_video_tokens: B of each video; None where `config.retention_ratio` decides.
        vision_parts: what the tower gave for the frames of `parts_of`, if it has run already.
        on_vision_output: is given the vision tower's output of each part.
        kwargs: more arguments of the vision tower.

    Returns:
        For each video its tokens, with everything that a picture of them needs.
    """
    num_frames = pixel_values_videos.shape[1]
    budgets = [plan_token_budget(config, num_frames, count) for count in kept_video_tokens]
    watched, of_tower = watched_layers(config), arguments_of_tower(feature_layers, **kwargs)

    def encode(pixels: Tensor) -> list[Tensor]:
        if vision_parts is None:
            outputs, received = run_and_read_attention(vision_tower, pixels.flatten(0, 1), watched, **of_tower)
        else:
            outputs, received = next(vision_parts)
        if on_vision_output is not None:
            on_vision_output(outputs)
        features = [outputs.hidden_states[layer] for layer in feature_layers]
        features = features[0] if len(features) == 1 else torch.cat(features, dim=-1)
        values = [features, *(received[layer].to(features.device) for layer in watched)]
        if has_class_token:
            values = [value[:, 1:] for value in values]
        return [value.unflatten(0, pixels.shape[:2]) for value in values]

    videos = []
    for pixels in _videos_together(pixel_values_videos, config.frames_at_once):
        of_these = budgets[len(videos) : len(videos) + len(pixels)]
        videos += _compress_together(pixels, of_these, encode, projector, config)
    return videos


def watched_layers(config) -> tuple[int, int]:
    """The layers of the tower whose attention ranks patches."""
    return config.local_attention_layer, config.global_attention_layer


def arguments_of_tower(feature_layers: Sequence[int], **kwargs) -> dict[str, Any]:
    """With which the tower gives its features, and whatever else the call wants."""
    if not kwargs.get("output_hidden_states"):
        kwargs["output_hidden_states"] = list(feature_layers) if select_hidden_states else True
    return {**kwargs, "return_dict": True}


def parts_of(pixel_values_videos: Tensor, frames_at_once: int) -> Iterator[Tensor]:
    """The frames that go through the tower together, (videos, frames, channels, height, width), in their order."""
    for pixels in _videos_together(pixel_values_videos, frames_at_once):
        yield from pixels.split(frames_at_once, dim=1)


def joined_outputs(parts: list[ModelOutput]) -> dict[str, Any]:
    """The fields of one output for all frames from outputs for some frames each."""
    if len(parts) == 1:
        return dict(parts[0])
    fields = {}
    for name, first in parts[0].items():
        values = [part[name] for part in parts]
        if isinstance(first, tuple):  # one tensor a layer, or none where it was not asked for
            fields[name] = tuple(None if layer[0] is None else torch.cat(layer) for layer in zip(*values))
        else:
            fields[name] = torch.cat(values)
    return fields


def _videos_together(pixel_values_videos: Tensor, frames_at_once: int) -> Iterator[Tensor]:
    num_videos, num_frames = pixel_values_videos.shape[:2]
    videos_at_once = max(1, frames_at_once // num_frames)
    for first in range(0, num_videos, videos_at_once):
        yield pixel_values_videos[first : first + videos_at_once]


def _compress_together(
    pixels: Tensor,
    budgets: list[TokenBudget],
    encode: Callable[[Tensor], list[Tensor]],
    projector: nn.Module,
    config,
) -> list[VideoTokens]:
    def compress_part(part: int, pixels: Tensor) -> list[tuple[FrameTokens, Tensor]]:
        features, *attention = encode(pixels)
        first_frame = part * config.frames_at_once
        # Quantised projectors take (frames, patches, channels) alone, as the stock model calls it.
        projected = projector(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        return [
            (compress_frames(*of_video, config, first_frame), frame_features)
            for of_video, frame_features in zip(zip(projected, *attention, budgets), features.mean(2))
        ]

    parts = starmap(compress_part, enumerate(parts_of(pixels, config.frames_at_once)))
    videos = []
    for budget, parts_of_video in zip(budgets, zip(*parts)):
        frames, frame_features = zip(*parts_of_video)
        videos.append(compress_along_time(FrameTokens.join(frames), budget, config, torch.cat(frame_features)))
    return videos
