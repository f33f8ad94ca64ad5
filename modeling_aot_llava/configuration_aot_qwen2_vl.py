"""The hyperparameters of AOT (arXiv 2603.01400) as flat fields of a Qwen2-VL config. Experimental."""

from typing import TYPE_CHECKING

from transformers import Qwen2VLConfig

from .qwen_vl_fields import QwenVLFields
from .required_transformers import check_transformers

if TYPE_CHECKING:  # transformers too old for this code copies the modules named in this file alone; it shall say so
    from .aot_fields import AOTFields as AOTFields
    from .error_texts import show as show
    from .plain_numbers import plain as plain
    from .qwen_vl_releases import num_vision_layers as num_vision_layers
    from .token_budget import FrameGrid as FrameGrid

check_transformers()


class AOTQwen2VLConfig(QwenVLFields, Qwen2VLConfig):
    """Configuration of [`AOTQwen2VLForConditionalGeneration`]: a [`Qwen2VLConfig`] with the hyperparameters of AOT.

    Experimental: the paper (arXiv 2603.01400) does not define AOT on this model, and no accuracy is known. See
    docs/qwen-vl.md for what is the paper's and what is this project's decision.

    The AOT fields are those of [`AOTQwen2_5_VLConfig`], but for the layers watched: by default they are 5 and -2, for
    every layer sees the whole frame.

    Args:
        kwargs: the AOT fields, and the fields of [`Qwen2VLConfig`].

    Raises:
        ValueError: where a field is out of range; the message names field, value and what is allowed.
    """

    model_type = "aot_qwen2_vl"


AOTQwen2VLConfig.register_for_auto_class()

__all__ = ["AOTQwen2VLConfig"]
