"""What every method is: something done to the video before the language model, inside it, or both.

A method is a frozen dataclass; its fields are its settings, and `retention_ratio` is the one that all have. It is
built by name with `build_baseline` and run with `BaselineGenerator`, both in this package.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import LlavaOnevisionConfig

from modeling_aot_llava.spatiotemporal_pruning import insert_newlines
from modeling_aot_llava.token_budget import newline_places

from .vision_layers import TowerOutput, TowerShape, VisionLayers


@dataclass(frozen=True)
class EncodedVideo:
    """One video as the stock model hands it to its language model, with what methods look at to choose among it.

    Attributes:
        tokens: (F, P, D), after projector and pooling, newlines not included.
        attention: (F, P), attention received at the vision tower's last layer, pooled like the tokens.
        keys: (F, P, w), key vectors of that layer, mean over heads, pooled like the tokens.
        frame_features: (F, C), one global feature a frame.
        frame_attention: (F, P), how much of each token is in its frame's global feature.
        newline: (D,), the base model's `image_newline`.
        newline_position: where the base model has it: "one_token" after the video (LLaVA-OneVision), "grid" after each
            row of each frame (LLaVA-Video), or "frame" after each frame.
        stock_frames: how many frames the base model reads, where the tower's run has left fewer.
        runs: first and last frame of each run of like frames (EarlyTom).
        frames_per_layer: how many frames each layer of the tower read, where it is not all.
    """

    tokens: Tensor
    attention: Tensor
    keys: Tensor
    frame_features: Tensor
    frame_attention: Tensor
    newline: Tensor
    newline_position: str = "one_token"
    stock_frames: int | None = None
    runs: Sequence[tuple[int, int]] = ()
    frames_per_layer: Sequence[int] = ()

    @property
    def num_frames(self) -> int:
        """F, of the video that was read."""
        return self.stock_frames or len(self.tokens)

    @property
    def side(self) -> int:
        """Tokens in a row of a frame, and rows."""
        return math.isqrt(self.tokens.shape[1])

    @property
    def num_placeholders(self) -> int:
        """What the base model reads of all frames, newlines included."""
        newlines = newline_places(self.num_frames, self.side, self.newline_position)
        return self.num_frames * self.tokens.shape[1] + len(newlines)

    @property
    def placeholders_per_frame(self) -> int:
        """Tokens of a frame, with the newlines after its rows."""
        return self.tokens.shape[1] + (self.side if self.newline_position == "grid" else 0)

    def with_newlines(self) -> Tensor:
        """What the base model reads, but for the newline that ends the video: (n, D)."""
        tokens = self.tokens.flatten(0, 1)
        ends = newline_places(len(self.tokens), self.side, self.newline_position)
        places = torch.arange(len(tokens), device=tokens.device)
        return insert_newlines(tokens, places, self.newline, ends)[:-1]


@dataclass(frozen=True)
class Segment:
    """Frames with common static places: what they have in common stands before what each has to itself (PruneVid).

    Attributes:
        num_static: tokens that stand for all frames of the segment.
        num_dynamic: tokens of each of them.
    """

    num_frames: int
    num_static: int
    num_dynamic: int


@dataclass(frozen=True)
class ReducedVideo:
    """What the language model reads of a video.

    Attributes:
        tokens: (n, D), with the newlines between them, but without the one that ends the video.
        places: (n,), their places in the unreduced video, where the method keeps its position ids; else None, and
            positions are counted anew.
        end: place of the newline that ends the video; None with `places`.
        last_newline_competes: whether the newline that ends the video may be dropped inside the model like the tokens.
        segments: of PruneVid; they say which tokens compete with each other inside the model.
        tokens_per_frame: of FrameFusion, which compares the same place of all frames inside the model.
    """

    tokens: Tensor
    places: Tensor | None = None
    end: int | None = None
    last_newline_competes: bool = False
    segments: Sequence[Segment] = ()
    tokens_per_frame: int | None = None


@dataclass(frozen=True)
class PromptSpan:
    """Where a prompt's video is: `num_tokens` rows from `start`, and a newline after them."""

    start: int
    num_tokens: int

    @property
    def end(self) -> int:
        """The newline's row."""
        return self.start + self.num_tokens


@dataclass(frozen=True)
class Baseline:
    """A method. Without changes it is the stock model.

    Attributes:
        name: by which it is built.
        newline_positions: of the base models that it is defined for.
        retention_ratio: above 0 up to 1; each method says of what it is the share.
    """

    name: ClassVar[str]
    newline_positions: ClassVar[tuple[str, ...]] = ("one_token",)

    retention_ratio: float = 1.0

    def __post_init__(self):
        """Checks the settings; raises ValueError."""
        check_share("retention_ratio", self.retention_ratio)

    def check_model(self, config: LlavaOnevisionConfig) -> None:
        """Raises ValueError where a model of this config lacks a layer that the method works at."""

    @property
    def tower_settings(self) -> tuple | None:
        """All that its run of the vision tower depends on; None where that is the stock model's."""
        return None

    def run_tower(self, tower: VisionLayers, frames: Tensor) -> TowerOutput:
        """Runs the vision tower over frames of (F, channels, height, width)."""
        return tower.run(frames)

    def reduce(self, video: EncodedVideo) -> ReducedVideo:
        """What the language model reads."""
        return ReducedVideo(video.with_newlines())

    @property
    def works_inside(self) -> bool:
        """Whether what the language model reads of the video depends on the prompt, or on what is written."""
        return False

    def wrap(self, language_model: nn.Module, span: PromptSpan, video: ReducedVideo) -> nn.Module | None:
        """The language model for one prompt and its answer; None where the method leaves it alone."""
        return None

    def num_video_tokens(self, num_frames: int, tokens_per_frame: int) -> int:
        """How many tokens the language model's first layer reads; the most where it depends on the video.

        As the paper counts them: without newlines.
        """
        return num_frames * tokens_per_frame

    def frames_per_layer(self, num_frames: int, tower: TowerShape) -> list[float]:
        """How many frames' worth of work each layer of the vision tower has; a mean where it depends on the video."""
        return [num_frames] * tower.num_layers

    def tokens_per_layer(self, num_tokens: int, num_layers: int) -> list[int]:
        """How many video tokens each layer of the language model reads, when the first reads `num_tokens`."""
        return [num_tokens] * num_layers


def check_share(name: str, value: float) -> None:
    """Raises ValueError unless it is above 0 and at most 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise ValueError(f"{name} is {value!r}, but must be a number above 0 and at most 1.")


def check_count(name: str, value: int, least: int = 1) -> None:
    """Raises ValueError unless it is an integer from `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}, but must be an integer from {least}.")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises ValueError unless it is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(choices)}.")


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Of each frame its own rows: (F, N, D), (F, n) -> (F, n, D)."""
    return values.gather(1, rows.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def other_rows(rows: Tensor, num_rows: int) -> Tensor:
    """The rows of each frame that are not named, in order: (F, n) -> (F, N - n)."""
    is_named = torch.zeros(len(rows), num_rows, dtype=torch.bool, device=rows.device).scatter(1, rows, True)
    return (~is_named).nonzero()[:, 1].view(len(rows), -1)
