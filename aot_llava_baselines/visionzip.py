"""VisionZip (arXiv 2412.04467, CVPR 2025): each frame's most attended tokens, and a few that stand for the others.

Program: `cokeshao/HoliTom` e9b2972, `visionzip/llava_arch.py`, the port to SigLIP that the tables used; the authors'
own, `dvlab-research/VisionZip` 3151f6d, is for CLIP and selects before the projector. Settings of the tables: 50, 40,
30 or 20 tokens a frame at 25, 20, 15 or 10 %, 54 of 64 of them dominant.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .interface import Baseline, EncodedVideo, ReducedVideo, check_count, other_rows, take_rows
from .ranking import cosine_similarities, greatest

# `SPATIAL_TOKENS` of the scripts, for 196 tokens a frame. 49 would be a quarter.
SCRIPTS = {0.25: 50, 0.20: 40, 0.15: 30, 0.10: 20}
DOMINANT_SHARE = 54 / 64


def visionzip(tokens: Tensor, attention: Tensor, keys: Tensor, tokens_per_frame: int) -> tuple[Tensor, Tensor]:
    """Reduces each frame alone.

    Dominant tokens come first, in raster order; then the contextual ones. A contextual token is the sum of its own and
    of the mean of all that are most like it, by their keys: its norm is about doubled, as in the program.

    Args:
        tokens: (F, P, D), after projector and pooling.
        attention: (F, P), attention received at the last vision layer.
        keys: (F, P, w), that layer's keys, mean over heads.
        tokens_per_frame: S, at least 1.

    Returns:
        (F, S, D), and each one's place in its frame, (F, S).
    """
    num_places = tokens.shape[1]
    num_dominant = dominant_count(tokens_per_frame)
    num_contextual = min(tokens_per_frame, num_places) - num_dominant
    dominant = greatest(attention, num_dominant).sort(-1).values
    rest = other_rows(dominant, num_places)
    rest_tokens, rest_keys = take_rows(tokens, rest), take_rows(keys, rest)
    targets = contextual_targets(rest.shape[1], num_contextual, tokens.device)

    nearest = cosine_similarities(rest_keys, rest_keys[:, targets]).argmax(-1)  # (F, R)
    members = torch.nn.functional.one_hot(nearest, num_contextual).to(tokens)
    members[:, targets] = 0
    means = members.transpose(1, 2) @ rest_tokens / members.sum(1).clamp(min=1).unsqueeze(-1)
    contextual = rest_tokens[:, targets] + means
    return torch.cat([take_rows(tokens, dominant), contextual], 1), torch.cat([dominant, rest[:, targets]], 1)


def dominant_count(tokens_per_frame: int) -> int:
    """How many of a frame's tokens are dominant."""
    return int(tokens_per_frame * DOMINANT_SHARE)


def contextual_targets(num_rest: int, num_contextual: int, device: torch.device | None = None) -> Tensor:
    """Places in the rest that contextual tokens gather around: evenly spaced from the first, (n_c,)."""
    step = max(1, num_rest // num_contextual) if num_contextual else 1
    return torch.arange(num_contextual, device=device) * step


def visionzip_places_in_grid(attention: Tensor, places: Tensor, tokens_per_frame: int) -> Tensor:
    """The places by which the port orders tokens among LLaVA-Video's newlines, its slip included.

    The i-th dominant token in raster order is given the place of the i-th by attention, so dominant tokens of
    different rows are exchanged.

    Args and returns as `visionzip`: attention (F, P), places (F, S) -> (F, S).
    """
    num_dominant = dominant_count(tokens_per_frame)
    return torch.cat([greatest(attention, num_dominant), places[:, num_dominant:]], 1)


def insert_row_newlines(tokens: Tensor, places: Tensor, newline: Tensor, side: int) -> Tensor:
    """Tokens in the order of their places, a newline after each of all rows: LLaVA-Video's layout.

    Args:
        tokens: (F, S, D); places: (F, S), in a frame of side x side; newline: (D,).

    Returns:
        (F * (S + side), D).
    """
    rows = torch.arange(1, side + 1, device=places.device) * side - 1
    order = torch.cat([places, rows.expand(len(places), -1)], 1).sort(dim=1, stable=True).indices
    with_newlines = torch.cat([tokens, newline.to(tokens).expand(len(tokens), side, -1)], 1)
    return take_rows(with_newlines, order).flatten(0, 1)


@dataclass(frozen=True)
class VisionZip(Baseline):
    """VisionZip.

    Attributes:
        retention_ratio: share of each frame's tokens.
        tokens_per_frame: S; if None, the scripts' at their ratios, else the ratio's share rounded up.
    """

    name: ClassVar[str] = "visionzip"
    newline_positions: ClassVar[tuple[str, ...]] = ("one_token", "grid")

    retention_ratio: float = 0.10
    tokens_per_frame: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.tokens_per_frame is not None:
            check_count("tokens_per_frame", self.tokens_per_frame)

    def kept_of_frame(self, num_places: int) -> int:
        """S of a frame of P tokens."""
        if self.tokens_per_frame is not None:
            return min(self.tokens_per_frame, num_places)
        if num_places == 196 and self.retention_ratio in SCRIPTS:
            return SCRIPTS[self.retention_ratio]
        return math.ceil(self.retention_ratio * num_places)

    def reduce(self, video: EncodedVideo) -> ReducedVideo:
        kept = self.kept_of_frame(video.tokens.shape[1])
        tokens, places = visionzip(video.tokens, video.attention, video.keys, kept)
        if video.newline_position == "grid":
            places = visionzip_places_in_grid(video.attention, places, kept)
            return ReducedVideo(insert_row_newlines(tokens, places, video.newline, video.side)[:-1])
        return ReducedVideo(tokens.flatten(0, 1))

    def num_video_tokens(self, num_frames: int, tokens_per_frame: int) -> int:
        return num_frames * self.kept_of_frame(tokens_per_frame)
