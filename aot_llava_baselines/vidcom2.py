"""VidCom2 (arXiv 2505.14454, EMNLP 2025): the tokens least like their frame and the video; unlike frames keep more.

Program: `xuyang-liu16/VidCom2` 944a17d, `token_compressor/vidcom2/vidcom2.py`, for LLaVA-OneVision and LLaVA-Video.
Its paper scores by cosines over all channels, the program by Gaussian kernels over the quieter half of them: here it
is the program. Its counts are not steered; vLLM's variant (0.32, `multimodal/video_prune/vidcom2.py`) is exact. On
LLaVA-Video all newlines of a frame follow its tokens together.

The program scores in the model's dtype; here in float32, where few scores are equal.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .interface import Baseline, EncodedVideo, ReducedVideo

KERNEL_WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1, 2)
TEMPERATURE = 0.01


def quiet_channels(tokens: Tensor) -> Tensor:
    """The half of the channels, rounded down, that vary least over all tokens: (..., D) -> (..., D // 2), float32."""
    tokens = tokens.float()
    variance = tokens.flatten(0, -2).var(0, correction=0)
    return tokens[..., variance.sort(stable=True).indices[: tokens.shape[-1] // 2]]


def likeness(points: Tensor, centre: Tensor) -> Tensor:
    """Sum of five Gaussian kernels of their distance: (..., D), (..., D) -> (...)."""
    squared = (points - centre).square().sum(-1)
    return sum((-squared / (2 * width)).exp() for width in KERNEL_WIDTHS)


def vidcom2_scores(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """How ordinary tokens and frames are.

    Args:
        tokens: (F, P, D), after projector and pooling.

    Returns:
        Likeness of each token to the mean of the video and to that of its frame, summed, (F, P); mean likeness of each
        frame's tokens to the video, (F,).
    """
    units = torch.nn.functional.normalize(quiet_channels(tokens), dim=-1)
    to_video = likeness(units, units.mean((0, 1)))
    return to_video + likeness(units, units.mean(1, keepdim=True)), to_video.mean(1)


def vidcom2(tokens: Tensor, retention_ratio: float, exact_count: bool = False) -> Tensor:
    """Which tokens stay: of each frame its share of the least ordinary.

    Args:
        tokens: (F, P, D), after projector and pooling.
        retention_ratio: r.
        exact_count: drop or add tokens of any frame until there are `exact_token_count`, as vLLM does.

    Returns:
        (F, P) bool.
    """
    num_frames, num_places = tokens.shape[:2]
    scores, of_frames = vidcom2_scores(tokens)
    extra = (-of_frames / TEMPERATURE).softmax(0)
    shares = (retention_ratio * (1 + extra - 1 / num_frames)).clamp(max=1)
    counts = (shares * num_places).round().clamp(min=1)
    is_kept = _ascending_ranks(scores) < counts.unsqueeze(1)
    if not exact_count:
        return is_kept
    # All kept tokens come before all others, and in both the least ordinary first.
    order = scores.flatten().sort(stable=True).indices
    order = order[is_kept.flatten()[order].logical_not().sort(stable=True).indices]
    exact = torch.zeros_like(is_kept.flatten())
    exact[order[: exact_token_count(num_frames, num_places, retention_ratio)]] = True
    return exact.view_as(is_kept)


def exact_token_count(num_frames: int, num_places: int, retention_ratio: float) -> int:
    """How many tokens vLLM keeps, with its rounding: its setting is the share that is dropped."""
    dropped = 1 - retention_ratio
    return max(num_frames, int(num_frames * num_places * (1.0 - dropped)))


def _ascending_ranks(scores: Tensor) -> Tensor:
    order = scores.sort(dim=-1, stable=True).indices
    return order.argsort(dim=-1)


@dataclass(frozen=True)
class VidCom2(Baseline):
    """VidCom2.

    Attributes:
        retention_ratio: r, share of the video tokens; frames that differ from the others keep more of theirs.
        exact_count: whether the count is that of vLLM's variant; the program's depends a little on the video.
    """

    name: ClassVar[str] = "vidcom2"
    newline_positions: ClassVar[tuple[str, ...]] = ("one_token", "grid")

    retention_ratio: float = 0.10
    exact_count: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.exact_count, bool):
            raise ValueError(f"exact_count is {self.exact_count!r}, but must be True or False.")

    def reduce(self, video: EncodedVideo) -> ReducedVideo:
        is_kept = vidcom2(video.tokens, self.retention_ratio, self.exact_count)
        if video.newline_position == "grid":
            return ReducedVideo(newlines_after_frames(video.tokens, is_kept, video.newline, video.side)[:-1])
        return ReducedVideo(video.tokens[is_kept])

    def num_video_tokens(self, num_frames: int, tokens_per_frame: int) -> int:
        """As usual one frame gets all that is handed out, and the others lose 1 / F of their share."""
        if self.exact_count:
            return exact_token_count(num_frames, tokens_per_frame, self.retention_ratio)
        shares = [self.retention_ratio * (1 + (frame == 0) - 1 / num_frames) for frame in range(num_frames)]
        return sum(max(1, round(min(share, 1) * tokens_per_frame)) for share in shares)


def newlines_after_frames(tokens: Tensor, is_kept: Tensor, newline: Tensor, side: int) -> Tensor:
    """Each frame's kept tokens, and then `side` newlines, whatever was kept: (F, P, D), (F, P) -> (n, D)."""
    newlines = newline.to(tokens).expand(len(tokens), side, -1)
    keeps_newlines = is_kept.new_ones(len(tokens), side)
    return torch.cat([tokens, newlines], 1)[torch.cat([is_kept, keeps_newlines], 1)]
