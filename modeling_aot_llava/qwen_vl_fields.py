"""The AOT fields of a Qwen-VL config: what no paper defines has this project's own defaults here (docs/qwen-vl.md)."""

from dataclasses import dataclass

from .aot_fields import AOTFields, is_integer_within, require
from .qwen_vl_releases import num_vision_layers
from .token_budget import FrameGrid


@dataclass(kw_only=True)
class QwenVLFields(AOTFields):
    """AOT's fields beside a stock Qwen-VL config's.

    A frame is a temporal patch, two pictures; its tokens are those that the vision tower's merger makes of 2 x 2
    patches each. Anchors are chosen among these, so that patch grid and pooled grid are one.
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
