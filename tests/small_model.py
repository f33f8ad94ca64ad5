"""The configs of the small models that the fixtures build."""

import torch
import transformers

from modeling_aot_llava.cache_name import CACHE

TRANSFORMERS = tuple(int(number) for number in transformers.__version__.split(".")[:2])

# 7 x 7 patches a frame, pooled to 4 x 4; 4 frames in 2 clips keep 16 of 64 tokens.
SIDE = 56
SMALL = {"vision_config": {"image_size": SIDE, "patch_size": 8}}
AOT = {"local_window_size": 3, "local_attention_layer": 2, "retention_ratio": 0.25}

# Configs whose token count depends on the video.
VARYING = {
    "temporal_threshold": {"temporal_threshold": 0.3},
    "released": {"recipe": "released", "num_anchors": 16, "keep_ratio": 0.3},
    "released, no token of some videos": {"recipe": "released", "num_anchors": 12, "keep_ratio": 0.3},
    "released, more tokens than placeholders": {"recipe": "released", "num_anchors": 40, "keep_ratio": 0.9},
}


def cache_of(outputs):
    """The key-value cache of an output."""
    return getattr(outputs, CACHE)


def image_features(outputs):
    """(tokens, hidden size) of all images that a model has read."""
    return _joined(outputs.image_outputs.pooler_output if "image_outputs" in outputs else outputs.image_hidden_states)


def video_features(outputs):
    """(tokens, hidden size) of all videos that a model has read."""
    return _joined(outputs.video_outputs.pooler_output if "video_outputs" in outputs else outputs.video_hidden_states)


def _joined(features):
    parts = [features] if isinstance(features, torch.Tensor) else features
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
