"""Runs in calls with an encoded video: what made it, as integers that travel from the processor to the model.

The processor knows the video but not the model, and the model gets tensors alone.
"""

import hashlib
import json
from typing import Any

import torch
from torch import Tensor

from .aot_fields import COMMON_FIELDS
from .plain_numbers import is_number
from .weights_fingerprint import fingerprint

# All that decides what the tokens are, besides the weights and the ratio; how many frames go through the tower at a
# time does not.
CONFIG_FIELDS = (
    *(name for name in COMMON_FIELDS if name not in ("retention_ratio", "frames_at_once")),
    "mm_spatial_pool_mode",
    "mm_newline_position",
    "aot_newline_position",
    "vision_feature_layer",
    "vision_feature_select_strategy",
)


def config_fields(config) -> dict[str, Any]:
    """The fields of an `AOTLlavaOnevisionConfig` that an encoded video is made with."""
    return {name: getattr(config, name) for name in CONFIG_FIELDS}


def marks_of(fingerprint: str, made_with: dict[str, Any]) -> list[int]:
    """Of the weights, and of each of `CONFIG_FIELDS`: 1 + fields integers of 63 bits."""
    return [_mark(fingerprint), *(_mark(made_with.get(name, "not there")) for name in CONFIG_FIELDS)]


def check_marks(marks: Tensor, model) -> None:
    """Raises `ValueError` where an encoded video is of another model, or of another config.

    Args:
        marks: (videos, 1 + fields) int64.
        model: an `AOTLlavaOnevisionModel`.
    """
    if marks.ndim != 2 or marks.shape[1] != 1 + len(CONFIG_FIELDS) or marks.dtype != torch.int64:
        raise ValueError(
            f"`encoded_video_marks` is {marks.dtype} of the shape {tuple(marks.shape)}, but it must be int64 of "
            f"(videos, {1 + len(CONFIG_FIELDS)}): pass it as this version's AOTLlavaOnevisionProcessor gives it."
        )
    made_with = config_fields(model.config)
    expected = marks_of(fingerprint(model), made_with)
    for video, found in enumerate(marks.tolist()):
        if found[0] != expected[0]:
            raise ValueError(
                f"Encoded video {video} of the call was made by another model: the weights of its vision tower, "
                "projector or image_newline, or their dtype, are not this model's. Encode the video with this model."
            )
        for name, one, other in zip(CONFIG_FIELDS, found[1:], expected[1:]):
            if one != other:
                raise ValueError(
                    f"Encoded video {video} of the call was made with another `{name}` than this model's config has, "
                    f"{made_with[name]!r}: encode it anew, or set the field as it was then."
                )


def _mark(value: Any) -> int:
    text = json.dumps(float(value) if is_number(value) else value, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
