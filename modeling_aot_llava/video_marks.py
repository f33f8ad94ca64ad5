"""Runs in calls with an encoded video: what made it, as integers that travel from the processor to the model.

The processor knows the video but not the model, and the model gets tensors alone.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .aot_fields import COMMON_FIELDS
from .plain_numbers import is_number
from .weights_fingerprint import PARTS, fingerprint

# All that decides what the tokens are, besides the weights and the ratio; how many frames go through the tower at a
# time does not.
FIELDS_OF_ALL = tuple(name for name in COMMON_FIELDS if name not in ("retention_ratio", "frames_at_once"))
# The same of LLaVA's models.
CONFIG_FIELDS = (
    *FIELDS_OF_ALL,
    "mm_spatial_pool_mode",
    "mm_newline_position",
    "aot_newline_position",
    "vision_feature_layer",
    "vision_feature_select_strategy",
)


def config_fields(config, names: Sequence[str] = CONFIG_FIELDS) -> dict[str, Any]:
    """The fields of an AOT config that an encoded video is made with."""
    return {name: getattr(config, name) for name in names}


def marks_of(fingerprint: str, made_with: dict[str, Any], names: Sequence[str] = CONFIG_FIELDS) -> list[int]:
    """Of the weights, and of each of these fields: 1 + fields integers of 63 bits."""
    return [_mark(fingerprint), *(_mark(made_with.get(name, "not there")) for name in names)]


def check_marks(marks: Tensor, model, names: Sequence[str] = CONFIG_FIELDS, parts: Sequence[str] = PARTS) -> None:
    """Raises `ValueError` where an encoded video is of another model, or of another config.

    Args:
        marks: (videos, 1 + fields) int64.
        model: an AOT model without the language-model head.
        names: of the fields, as of `marks_of`.
        parts: of the model, as of `fingerprint`.
    """
    if marks.ndim != 2 or marks.shape[1] != 1 + len(names) or marks.dtype != torch.int64:
        raise ValueError(
            f"`encoded_video_marks` is {marks.dtype} of the shape {tuple(marks.shape)}, but it must be int64 of "
            f"(videos, {1 + len(names)}): pass it as the processor of this model and this version gives it."
        )
    made_with = config_fields(model.config, names)
    expected = marks_of(fingerprint(model, parts), made_with, names)
    for video, found in enumerate(marks.tolist()):
        if found[0] != expected[0]:
            raise ValueError(
                f"Encoded video {video} of the call was made by another model: the weights of its "
                f"{' or '.join(parts)}, or their dtype, are not this model's. Encode the video with this model."
            )
        for name, one, other in zip(names, found[1:], expected[1:]):
            if one != other:
                raise ValueError(
                    f"Encoded video {video} of the call was made with another `{name}` than this model's config has, "
                    f"{made_with[name]!r}: encode it anew, or set the field as it was then."
                )


def _mark(value: Any) -> int:
    text = json.dumps(float(value) if is_number(value) else value, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
