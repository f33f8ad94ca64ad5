"""Runs the vision tower once, as the stock model or as a method does, and takes along what methods look at."""

import torch
from torch import Tensor, nn
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from .interface import Baseline, EncodedVideo
from .pooling_head import PoolingHead
from .vision_layers import VisionLayers


@torch.inference_mode()
def encode_video(
    model: LlavaOnevisionForConditionalGeneration,
    pixel_values_videos: Tensor,
    pooling_head: PoolingHead | None = None,
    method: Baseline | None = None,
) -> EncodedVideo:
    """Encodes one video.

    Args:
        model: the stock model, or AOT's at a retention ratio of 1, which reads LLaVA-Video checkpoints, too.
        pixel_values_videos: (1, F, channels, height, width).
        pooling_head: what FastVID reads each frame with. Without it a frame's feature is the mean over its patches,
            and the frame's attention is that received at the last layer: a substitute.
        method: whose run of the tower it is; the stock model's without.

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
    (frames,) = pixel_values_videos.to(model.device, model.dtype)
    output = (method or Baseline()).run_tower(VisionLayers(base.vision_tower, layer), frames)
    attention = _pooled(base, output.attention.unsqueeze(-1)).squeeze(-1)
    frame_features, frame_attention = output.patches.mean(1), attention
    if pooling_head is not None:
        frame_features, probed = pooling_head(output.patches)
        frame_attention = _pooled(base, probed.unsqueeze(-1)).squeeze(-1)
    return EncodedVideo(
        tokens=base.apply_pooling(base.multi_modal_projector(output.patches)),
        attention=attention,
        keys=_pooled(base, output.keys),
        frame_features=frame_features,
        frame_attention=frame_attention,
        newline=base.image_newline,
        newline_position=newline_position_of(model.config),
        stock_frames=len(frames),
        runs=output.runs,
        frames_per_layer=output.frames_per_layer,
    )


def newline_position_of(config: LlavaOnevisionConfig) -> str:
    """Where a model has newlines: the stock model knows one place alone."""
    return getattr(config, "mm_newline_position", "one_token")


def _pooled(base: nn.Module, maps: Tensor) -> Tensor:
    return base.apply_pooling(maps.float())
