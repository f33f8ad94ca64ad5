"""The hyperparameters of AOT (arXiv 2603.01400) as flat fields of the configs of the Qwen-VL family. Experimental."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformers import Qwen2_5_VLConfig, Qwen2VLConfig, Qwen3VLConfig, Qwen3VLMoeConfig

from .aot_fields import AOTFields, is_integer_within, require
from .qwen_vl_releases import num_vision_layers
from .required_transformers import check_transformers
from .token_budget import FrameGrid

if TYPE_CHECKING:  # transformers too old for this code copies the modules named in this file alone; it shall say so
    from .error_texts import show as show
    from .plain_numbers import plain as plain

check_transformers()


@dataclass(kw_only=True)
class QwenVLFields(AOTFields):
    """AOT's fields beside those of a stock Qwen-VL config. Experimental.

    The paper (arXiv 2603.01400) does not define AOT on these models, and no accuracy is known. See docs/qwen-vl.md for
    what is the paper's and what is this project's decision.

    A frame is a temporal patch, two pictures; its tokens are those that the vision tower's merger makes of 2 x 2
    patches each (28 x 28 pixels; 32 x 32 on Qwen3-VL). Anchors are chosen among these, so that patch grid and pooled
    grid are one. The fields are those of [`AOTLlavaOnevisionConfig`], counted on that grid, with these differences:
    `local_window_size` is 5 by default; `num_anchors` is by default the share of a frame's tokens that the paper's
    number is of LLaVA-OneVision's patches; `recipe` is `"paper"`; nothing is pooled, and there are no newline tokens.

    Args:
        kwargs: the AOT fields, and the fields of the stock config.

    Raises:
        ValueError: where a field is out of range; the message names field, value and what is allowed.

    Example:

    ```python
    >>> from modeling_aot_llava import AOTQwen3VLConfig

    >>> config = AOTQwen3VLConfig(retention_ratio=0.2, clip_segmentation="dynamic")
    ```
    """

    local_window_size: int = 5

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """Reads a config file; one of the stock host is welcome as the base of an AOT config."""
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        stock = cls.__bases__[-1]
        if config_dict.get("model_type") == stock.model_type:
            config_dict["model_type"] = cls.model_type
        return config_dict, kwargs

    @property
    def num_vision_layers(self) -> int:
        return num_vision_layers(self.vision_config)

    def grid_of(self, grid_thw: tuple[int, int, int]) -> FrameGrid:
        """The grid of a video's frames, of its row in `video_grid_thw`, which counts patches."""
        merge = self.vision_config.spatial_merge_size
        return FrameGrid((grid_thw[1] // merge, grid_thw[2] // merge), "none")

    def validate_host(self) -> None:
        require(
            self.recipe == "paper",
            "recipe",
            self.recipe,
            '"paper": the authors\' program, which "released" follows, knows no Qwen-VL model',
        )
        for name in ("local_window_size", "num_anchors"):
            value = getattr(self, name)
            is_unset = name == "num_anchors" and value is None
            require(is_unset or is_integer_within(value, 1), name, value, "an integer from 1")


class AOTQwen2VLConfig(QwenVLFields, Qwen2VLConfig):
    """Configuration of [`AOTQwen2VLForConditionalGeneration`]: a [`Qwen2VLConfig`] with [`QwenVLFields`].

    Every layer sees the whole frame: the layers watched are by default 5 and -2.
    """

    model_type = "aot_qwen2_vl"


class AOTQwen2_5_VLConfig(QwenVLFields, Qwen2_5_VLConfig):
    """Configuration of [`AOTQwen2_5_VLForConditionalGeneration`]: a [`Qwen2_5_VLConfig`] with [`QwenVLFields`].

    The layers watched are by default 7 and 31, of those in which a patch sees its whole frame and not a window alone.
    """

    model_type = "aot_qwen2_5_vl"

    local_attention_layer: int = 7
    global_attention_layer: int = 31


class AOTQwen3VLConfig(QwenVLFields, Qwen3VLConfig):
    """Configuration of [`AOTQwen3VLForConditionalGeneration`]: a [`Qwen3VLConfig`] with [`QwenVLFields`]."""

    model_type = "aot_qwen3_vl"


class AOTQwen3VLMoeConfig(QwenVLFields, Qwen3VLMoeConfig):
    """Configuration of [`AOTQwen3VLMoeForConditionalGeneration`]: a [`Qwen3VLMoeConfig`] with [`QwenVLFields`]."""

    model_type = "aot_qwen3_vl_moe"


for _config in (AOTQwen2VLConfig, AOTQwen2_5_VLConfig, AOTQwen3VLConfig, AOTQwen3VLMoeConfig):
    _config.register_for_auto_class()

__all__ = ["AOTQwen2VLConfig", "AOTQwen2_5_VLConfig", "AOTQwen3VLConfig", "AOTQwen3VLMoeConfig"]
