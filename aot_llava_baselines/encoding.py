"""Runs the stock model's vision tower once and takes along what methods look at."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from modeling_aot_llava.attention_capture import capture_attention_received

from .interface import EncodedVideo
from .pooling_head import PoolingHead


@torch.inference_mode()
def encode_video(
    model: LlavaOnevisionForConditionalGeneration, pixel_values_videos: Tensor, pooling_head: PoolingHead | None = None
) -> EncodedVideo:
    """Encodes one video.

    Args:
        model: the stock model, or AOT's at a retention ratio of 1, which reads LLaVA-Video checkpoints, too.
        pixel_values_videos: (1, F, channels, height, width).
        pooling_head: what FastVID reads each frame with. Without it a frame's feature is the mean over its patches,
            and the frame's attention is that received at the last layer: a substitute.

    Returns:
        The tokens as `get_video_features` gives them, without its newlines.

    Raises:
        ValueError: if the model reads several layers of its vision tower.
    """
    base = model.model
    layer = model.config.vision_feature_layer
    if not isinstance(layer, int):
        raise ValueError(
            f"vision_feature_layer is {layer}, but the methods of Table 1 are defined for a single layer."
        )
    # The layer whose output is handed on: the last one that matters.
    last = layer if layer < 0 else layer - 1
    num_frames = pixel_values_videos.shape[1]
    with (
        capture_attention_received(base.vision_tower, (last,)) as received,
        _keep_output(_key_projection(base.vision_tower, last)) as keys,
        _keep_input(base.multi_modal_projector) as patches,
    ):
        outputs = model.get_video_features(pixel_values_videos.to(model.device, model.dtype), return_dict=True)
    (features,) = outputs.pooler_output
    heads = base.vision_tower.config.num_attention_heads
    attention = _pooled(base, received[last].unsqueeze(-1)).squeeze(-1)
    frame_features, frame_attention = patches[0].mean(1), attention
    if pooling_head is not None:
        frame_features, probed = pooling_head(patches[0])
        frame_attention = _pooled(base, probed.unsqueeze(-1)).squeeze(-1)
    return EncodedVideo(
        tokens=_without_newlines(features, num_frames, newline_position_of(model.config)),
        attention=attention,
        keys=_pooled(base, keys[0].unflatten(-1, (heads, -1)).mean(-2)),
        frame_features=frame_features,
        frame_attention=frame_attention,
        newline=base.image_newline,
        newline_position=newline_position_of(model.config),
    )


def newline_position_of(config: LlavaOnevisionConfig) -> str:
    """Where a model has newlines: the stock model knows one place alone."""
    return getattr(config, "mm_newline_position", "one_token")


def _without_newlines(features: Tensor, num_frames: int, position: str) -> Tensor:
    """(n, D) -> (F, P, D)."""
    if position == "one_token":
        return features[:-1].unflatten(0, (num_frames, -1))
    of_frames = features.unflatten(0, (num_frames, -1))
    side = math.isqrt(of_frames.shape[1])  # a frame of side x side has side newlines, fewer than a row more
    return of_frames.unflatten(1, (side, side + 1))[:, :, :-1].flatten(1, 2)


def _pooled(base: nn.Module, maps: Tensor) -> Tensor:
    return base.apply_pooling(maps.float())


def _key_projection(vision_tower: nn.Module, layer: int) -> nn.Module:
    return [module for name, module in vision_tower.named_modules() if name.endswith("self_attn.k_proj")][layer]


@contextmanager
def _keep_output(module: nn.Module) -> Iterator[list[Tensor]]:
    kept: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        yield kept
    finally:
        handle.remove()


@contextmanager
def _keep_input(module: nn.Module) -> Iterator[list[Tensor]]:
    kept: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _module, inputs: kept.append(inputs[0]))
    try:
        yield kept
    finally:
        handle.remove()
