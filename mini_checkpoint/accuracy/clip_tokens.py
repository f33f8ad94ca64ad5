"""From a clip's frames to the video tokens of every setting. What settings have in common is computed once."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from modeling_aot_llava import (
    AOTLlavaOnevisionConfig,
    AOTLlavaOnevisionForConditionalGeneration,
    AOTLlavaOnevisionProcessor,
)
from modeling_aot_llava.attention_capture import capture_attention_received
from modeling_aot_llava.configuration_aot_llava import AOT_FIELDS
from modeling_aot_llava.spatiotemporal_pruning import FrameTokens, compress_along_time, compress_frames
from modeling_aot_llava.token_budget import TokenBudget, plan_token_budget

from .references import average_pooling, random_tokens, uniform_subsampling
from .settings import AOT, AVERAGE_POOLING, FULL_TOKENS, RANDOM_TOKENS, UNIFORM_SUBSAMPLING, Setting

REFERENCES: dict[str, Callable[[Tensor, int], Tensor]] = {
    UNIFORM_SUBSAMPLING: uniform_subsampling,
    AVERAGE_POOLING: average_pooling,
    RANDOM_TOKENS: random_tokens,
}

# Fields that come into play once the frames have been compressed one by one.
FIELDS_ALONG_TIME = {
    *("inter_frame_weight", "inter_frame_aggregation", "num_clips", "clip_segmentation"),
    *("dynamic_similarity_threshold", "temporal_threshold", "keep_ratio"),
}


class ClipTokens:
    """The frames of one clip, seen by the vision tower once, and what each setting makes of them."""

    def __init__(
        self,
        model: AOTLlavaOnevisionForConditionalGeneration,
        processor: AOTLlavaOnevisionProcessor,
        frames: np.ndarray,
    ):
        """Runs vision tower and projector.

        Args:
            frames: (F, height, width, 3) uint8.
        """
        pixels = pixels_of(processor, frames)
        layers = AOTLlavaOnevisionConfig.local_attention_layer, AOTLlavaOnevisionConfig.global_attention_layer
        tower = model.model.vision_tower
        with torch.inference_mode():
            with capture_attention_received(tower, layers) as received:
                outputs = tower(pixels[0].to(model.device, model.dtype), output_hidden_states=True, return_dict=True)
            features = outputs.hidden_states[model.config.vision_feature_layer]
            self._patch_features = model.model.multi_modal_projector(features)
            # What the stock model hands its language model: (F, P, D).
            self._pooled = model.model.apply_pooling(self._patch_features)
        self._frame_features = features.mean(1)
        self._attention = [received[layer] for layer in layers]
        self._config = model.config
        self._compressed_frames: dict[tuple, FrameTokens] = {}

    @torch.inference_mode()
    def of(self, setting: Setting) -> Tensor:
        """The video tokens that the language model reads, (n, D), newline not counted."""
        if setting.reduction == FULL_TOKENS:
            return self._pooled.flatten(0, 1)
        config = config_of(setting, self._config)
        budget = plan_token_budget(config, len(self._pooled))
        if setting.reduction == AOT:
            frames = self._compress_frames(config, budget)
            return compress_along_time(frames, budget, config, self._frame_features).tokens
        return REFERENCES[setting.reduction](self._pooled, budget.num_video_tokens)

    def _compress_frames(self, config: AOTLlavaOnevisionConfig, budget: TokenBudget) -> FrameTokens:
        used = [getattr(config, name) for name in AOT_FIELDS if name not in FIELDS_ALONG_TIME]
        key = (*used, budget.patch_anchors, budget.pooled_anchors)
        if key not in self._compressed_frames:
            self._compressed_frames[key] = compress_frames(self._patch_features, *self._attention, budget, config)
        return self._compressed_frames[key]


def pixels_of(processor: AOTLlavaOnevisionProcessor, frames: np.ndarray) -> Tensor:
    """Frames (F, height, width, 3) as the model takes them: (1, F, 3, side, side)."""
    return processor.video_processor([frames], do_sample_frames=False, return_tensors="pt").pixel_values_videos


def config_of(setting: Setting, model_config: AOTLlavaOnevisionConfig) -> AOTLlavaOnevisionConfig:
    """The model's config with AOT's defaults, whatever the checkpoint's own are, and the setting's fields.

    Raises:
        ValueError: if the model does not allow them.
    """
    config = copy.deepcopy(model_config)
    defaults = {name: getattr(AOTLlavaOnevisionConfig, name) for name in AOT_FIELDS}
    for name, value in {**defaults, **setting.fields, "retention_ratio": setting.retention_ratio}.items():
        setattr(config, name, value)
    config.validate_aot()
    return config
