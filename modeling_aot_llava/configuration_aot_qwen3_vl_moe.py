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
    r"""
    Configuration of [`AOTQwen3VLMoeForConditionalGeneration`]: a [`Qwen3VLMoeConfig`] with the hyperparameters of AOT.

    Experimental: the paper (arXiv 2603.01400) does not define AOT on this model, and no accuracy is known. See
    docs/qwen-vl.md for what is the paper's and what is this project's decision.

    The AOT fields are those of [`AOTLlavaOnevisionConfig`], counted on the grid of merged tokens (32 x 32 pixels, two
    pictures), with these differences: `local_window_size` is 5 by default; `num_anchors` is by default the share of a
    frame's tokens that the paper's number is of LLaVA-OneVision's patches; `recipe` is `"paper"`; nothing is pooled,
    and there are no newline tokens.

    Args:
        kwargs: the AOT fields, and the fields of [`Qwen3VLMoeConfig`].

    Raises:
        ValueError: where a field is out of range; the message names field, value and what is allowed.

    Example:

    ```python
    >>> from modeling_aot_llava import AOTQwen3VLMoeConfig

    >>> config = AOTQwen3VLMoeConfig(retention_ratio=0.2, clip_segmentation="dynamic")
    ```
    """

    model_type = "aot_qwen3_vl_moe"


AOTQwen3VLMoeConfig.register_for_auto_class()

__all__ = ["AOTQwen3VLMoeConfig"]
