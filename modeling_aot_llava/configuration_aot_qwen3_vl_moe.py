"""The hyperparameters of AOT (arXiv 2603.01400) as flat fields of a Qwen3-VL-MoE config. Experimental."""

from typing import TYPE_CHECKING

from transformers import Qwen3VLMoeConfig

from .qwen_vl_fields import QwenVLFields
from .required_transformers import check_transformers

if TYPE_CHECKING:  # transformers too old for this code copies the modules named in this file alone; it shall say so
    from .aot_fields import AOTFields as AOTFields
    from .error_texts import show as show
    from .plain_numbers import plain as plain
    from .qwen_vl_releases import num_vision_layers as num_vision_layers
    from .token_budget import FrameGrid as FrameGrid

check_transformers()


class AOTQwen3VLMoeConfig(QwenVLFields, Qwen3VLMoeConfig):
    """Configuration of [`AOTQwen3VLMoeForConditionalGeneration`]: a [`Qwen3VLMoeConfig`] with AOT's hyperparameters.

    Experimental: the paper (arXiv 2603.01400) does not define AOT on this model, and no accuracy is known. See
    docs/qwen-vl.md for what is the paper's and what is this project's decision.

    The AOT fields are those of [`AOTQwen3VLConfig`].

    Args:
        kwargs: the AOT fields, and the fields of [`Qwen3VLMoeConfig`].

    Raises:
        ValueError: where a field is out of range; the message names field, value and what is allowed.
    """

    model_type = "aot_qwen3_vl_moe"


AOTQwen3VLMoeConfig.register_for_auto_class()

__all__ = ["AOTQwen3VLMoeConfig"]
