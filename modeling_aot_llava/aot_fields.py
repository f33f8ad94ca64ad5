"""The hyperparameters of AOT (arXiv 2603.01400) as fields of a config, whatever model they are added to."""

import math
from dataclasses import dataclass
from typing import Any

from .error_texts import show
from .plain_numbers import is_integer, is_number, plain


@dataclass(kw_only=True)
class AOTFields:
    """Fields and checks that the configs of all base models share; a config inherits this class and its stock one.

    What each field means is in the docstring of `AOTLlavaOnevisionConfig`. A config tells of its vision tower
    (`num_vision_layers`), and checks what is its model's own in `validate_host`.
    """

    recipe: str = "paper"
    retention_ratio: float = 0.1
    num_anchors: int | None = None
    local_anchor_ratio: float = 0.5
    local_window_size: int = 9
    local_attention_layer: int = 5
    global_attention_layer: int = -2
    anchor_selection: str = "attention"
    anchor_seed: int = 0
    sinkhorn_epsilon: float = 0.1
    sinkhorn_iterations: int = 100
    sinkhorn_tolerance: float = 0.01
    intra_frame_weight: float = 1.0
    inter_frame_weight: float = 1.0
    intra_frame_aggregation: str = "transport"
    inter_frame_aggregation: str = "transport"
    num_clips: int = 8
    clip_segmentation: str = "uniform"
    dynamic_similarity_threshold: float = 0.8
    temporal_threshold: float | None = None
    keep_ratio: float | None = None
    frames_at_once: int = 32

    @property
    def num_vision_layers(self) -> int:
        """Layers of the vision tower."""
        raise NotImplementedError

    def validate_host(self) -> None:
        """Checks the fields that are the base model's own, and AOT's against its vision tower. Raises `ValueError`."""

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.validate()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        """Like the parent's, but AOT fields given as keywords take part in the first validation."""
        given = {name: kwargs.pop(name) for name in aot_fields_of(cls) if name in kwargs}
        return super().from_dict({**config_dict, **given}, **kwargs)

    @property
    def has_fixed_token_count(self) -> bool:
        """Whether the number of video tokens depends on the number of frames alone, not on the video."""
        return self.recipe == "paper" and self.temporal_threshold is None

    def to_dict(self) -> dict[str, Any]:
        """Like the parent's, with NumPy's numbers as Python's, which can be saved."""
        names = aot_fields_of(type(self))
        return {name: plain(value) if name in names else value for name, value in super().to_dict().items()}

    def validate(self) -> None:
        super().validate()
        self.validate_aot()

    def validate_aot(self) -> None:
        """Checks every AOT field, alone and against the others. Raises `ValueError`."""
        for name, choices in _CHOICES.items():
            require_choice(name, getattr(self, name), choices)
        for name, (low, high, allowed) in _RANGES.items():
            require(is_number_within(getattr(self, name), low, high), name, getattr(self, name), allowed)
        for name, low in _INTEGERS_FROM.items():
            require(is_integer_within(getattr(self, name), low), name, getattr(self, name), f"an integer from {low}")
        self._validate_layers()
        self._validate_token_selection()
        self.validate_host()

    def _validate_layers(self) -> None:
        num_layers = self.num_vision_layers
        for name in ("local_attention_layer", "global_attention_layer"):
            require(
                is_integer_within(getattr(self, name), -num_layers, num_layers - 1),
                name,
                getattr(self, name),
                f"an integer from {-num_layers} to {num_layers - 1}: the vision tower has {num_layers} layers",
            )

    def _validate_token_selection(self) -> None:
        for name, recipe in (("keep_ratio", "released"), ("temporal_threshold", "paper")):
            value = getattr(self, name)
            require(value is None or is_number_within(value, 0, 1), name, value, "None or a number from 0 to 1")
            require(
                value is None or self.recipe == recipe,
                name,
                value,
                f'None with recipe="{self.recipe}": it belongs to recipe="{recipe}"',
            )
        require(
            self.clip_segmentation != "none" or self.recipe == "released",
            "clip_segmentation",
            self.clip_segmentation,
            '"uniform" or "dynamic" with recipe="paper": without clips there is no transport along time',
        )


COMMON_FIELDS = tuple(AOTFields.__annotations__)


def aot_fields_of(config_class: type) -> tuple[str, ...]:
    """The names of the fields that a config class has beyond its stock one."""
    return (*COMMON_FIELDS, *(name for name in config_class.__annotations__ if name not in COMMON_FIELDS))


_CHOICES = {
    "recipe": ("paper", "released"),
    "anchor_selection": ("attention", "random"),
    "intra_frame_aggregation": ("transport", "cosine", "none"),
    "inter_frame_aggregation": ("transport", "cosine", "none"),
    "clip_segmentation": ("uniform", "dynamic", "none"),
}
_SMALLEST_POSITIVE = math.ulp(0.0)
_RANGES = {
    "retention_ratio": (_SMALLEST_POSITIVE, math.inf, "a number above 0 (1 or more switches AOT off)"),
    "local_anchor_ratio": (0, 1, "a number from 0 to 1"),
    "sinkhorn_epsilon": (_SMALLEST_POSITIVE, math.inf, "a number above 0"),
    "sinkhorn_tolerance": (0, math.inf, "a number from 0"),
    "intra_frame_weight": (0, math.inf, "a number from 0"),
    "inter_frame_weight": (0, math.inf, "a number from 0"),
    "dynamic_similarity_threshold": (-1, 1, "a number from -1 to 1, a cosine similarity"),
}
_INTEGERS_FROM = {"sinkhorn_iterations": 1, "num_clips": 1, "anchor_seed": 0, "frames_at_once": 1}


def require(condition: bool, field: str, value: Any, allowed: str) -> None:
    """Raises `ValueError` that names field, value and what is allowed, unless the condition holds."""
    if not condition:
        raise ValueError(f"`{field}` is {show(value)}, but it must be {allowed}.")


def require_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises `ValueError` unless the value is one of these strings."""
    allowed = "one of " + ", ".join(f'"{choice}"' for choice in choices)
    require(isinstance(value, str) and value in choices, field, value, allowed)


def is_number_within(value: Any, low: float, high: float) -> bool:
    return is_number(value) and math.isfinite(value) and low <= value <= high


def is_integer_within(value: Any, low: int, high: float = math.inf) -> bool:
    return is_integer(value) and low <= value <= high
