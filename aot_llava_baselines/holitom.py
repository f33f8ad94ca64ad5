"""HoliTom (arXiv 2505.21334, NeurIPS 2025): what stands still is told once; the source of the tables' protocol.

Program: `cokeshao/HoliTom` e9b2972, `holitom/llava_arch.py`. Settings: tau 0.8, at 10 % 0.65; beta 0.6; k 7; D 0, the
only one with which the program runs. Its merging inside the model (k 18, r 0.5) is off unless `inner_ratio` is set.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .interface import EncodedVideo, ReducedVideo, check_share
from .merging_decoder import MergesInside
from .ranking import density_peak_scores, distances_between, greatest

NUM_NEIGHBOURS = 7


def best_windows(tokens: Tensor, similarity_threshold: float) -> tuple[list[tuple[int, int]], int]:
    """Cuts the video into windows in which most tokens can be told once, by dynamic programming.

    Args:
        tokens: (F, P, D), after projector and pooling.
        similarity_threshold: tau; a place is static in a window where neighbouring frames are all more alike.

    Returns:
        First and last frame of each window, and how many tokens they save.
    """
    similar = torch.cosine_similarity(tokens[:-1], tokens[1:], dim=-1) > similarity_threshold
    num_static = _count_static(similar)
    best, starts = [0], [0]
    for last in range(1, len(tokens)):
        best.append(best[last - 1])
        starts.append(last)
        for first in range(last - 1, -1, -1):
            saved = (best[first - 1] if first else 0) + num_static[first][last - first - 1] * (last - first)
            if saved > best[last]:
                best[last], starts[last] = saved, first
    windows, last = [], len(tokens) - 1
    while last >= 0:
        windows.append((starts[last], last))
        last = starts[last] - 1
    return windows[::-1], best[-1]


def _count_static(similar: Tensor) -> list[list[int]]:
    """From each frame on, how many places are static up to each later frame; read at once."""
    counts = torch.zeros(len(similar), len(similar), dtype=torch.long, device=similar.device)
    for first in range(len(similar)):
        counts[first, : len(similar) - first] = similar[first:].cumprod(0).sum(1)
    return counts.tolist()


def holitom(
    tokens: Tensor,
    attention: Tensor,
    windows: Sequence[tuple[int, int]],
    saved: int,
    *,
    retention_ratio: float,
    similarity_threshold: float,
    beta: float = 0.6,
) -> Tensor:
    """Merges static places along time and among each other, and of the others keeps the most attended.

    Args:
        tokens: (F, P, D); attention: (F, P), attention received at the last vision layer.
        windows, saved: of `best_windows`.

    Returns:
        (n, D): of each window the static tokens, then its frames'.
    """
    num_frames, num_places = tokens.shape[:2]
    total = num_frames * num_places
    ratio = min(retention_ratio / ((total - saved) / total), 1)
    parts = []
    for first, last in windows:
        frames = tokens[first : last + 1]
        is_static = torch.zeros_like(attention[first], dtype=torch.bool)
        if last > first:
            similarity = torch.cosine_similarity(frames[:-1], frames[1:], dim=-1)
            is_static = (similarity > similarity_threshold).all(0)
            parts.append(merge_static(frames[:, is_static].mean(0), ratio, beta))
        dynamic = (~is_static).nonzero().flatten()
        count = math.ceil(len(dynamic) * ratio)
        for frame, scores in zip(frames, attention[first : last + 1]):
            parts.append(frame[dynamic[greatest(scores[dynamic], count)].sort().values])
    return torch.cat(parts)


def merge_static(tokens: Tensor, ratio: float, beta: float) -> Tensor:
    """Density peaks, by place, each mixed with the mean of the tokens nearest to it: (n, D) -> (round(n ratio), D).

    As in the program, a density looks at no more neighbours than there are centres.
    """
    count = round(len(tokens) * ratio)
    if count == 0:
        return tokens[:0]
    centres = greatest(density_peak_scores(tokens, min(NUM_NEIGHBOURS, count)), count).sort().values
    nearest = distances_between(tokens, tokens[centres]).argmin(-1)
    members = torch.nn.functional.one_hot(nearest, count).to(tokens)
    members[centres] = 0
    counts = members.sum(0).unsqueeze(-1)
    merged = beta * tokens[centres] + (1 - beta) * (members.T @ tokens / counts.clamp(min=1))
    return torch.where(counts > 0, merged, tokens[centres])


@dataclass(frozen=True)
class HoliTom(MergesInside):
    """HoliTom.

    Attributes:
        retention_ratio: share of the video tokens; it keeps a little more.
        similarity_threshold: tau; if None, the program's: 0.65 at 10 %, else 0.8.
        beta: weight of a static token against those that it stands for.
        layer, inner_ratio, mask: as in `MergesInside`; the stage in the model is off (0.5 in the program).
    """

    name: ClassVar[str] = "holitom"

    retention_ratio: float = 0.10
    similarity_threshold: float | None = None
    beta: float = 0.6

    def __post_init__(self):
        super().__post_init__()
        check_share("beta", self.beta)

    def reduce(self, video: EncodedVideo) -> ReducedVideo:
        threshold = self.similarity_threshold
        if threshold is None:
            threshold = 0.65 if self.retention_ratio <= 0.10 else 0.80
        windows, saved = best_windows(video.tokens, threshold)
        tokens = holitom(
            video.tokens,
            video.attention,
            windows,
            saved,
            retention_ratio=self.retention_ratio,
            similarity_threshold=threshold,
            beta=self.beta,
        )
        return ReducedVideo(tokens)

    def num_video_tokens(self, num_frames: int, tokens_per_frame: int) -> int:
        return round(self.retention_ratio * num_frames * tokens_per_frame)
