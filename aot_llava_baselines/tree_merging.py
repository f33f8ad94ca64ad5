"""Trees along time: each token may join the most similar one of the frame before (FlashVID's TSTM)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from .ranking import cosine_similarities

MERGING = ("sum", "mean")
# Chosen tokens and those of a segment's first frame have no parent.
NO_PARENT = -1.0


@dataclass(frozen=True)
class Forest:
    """What merging along time leaves of the tokens that were not chosen.

    Attributes:
        tokens: (F, P, D), float32; those of the roots count.
        is_root: (F, P) bool.
    """

    tokens: Tensor
    is_root: Tensor


def merge_trees(
    tokens: Tensor, is_chosen: Tensor, segments: Sequence[int], budget: int, threshold: float, merging: str = "sum"
) -> Forest:
    """Tree-based spatiotemporal merging (TSTM): each token joins the most similar one of the frame before.

    Args:
        tokens: (F, P, D); is_chosen: (F, P), those that stay as they are; of each frame one or more is not.
        segments: of `segment_lengths`; trees do not cross them. Segments of one frame have roots alone.
        budget: b, roots and chosen tokens a frame that each segment keeps at least.
        threshold: tau, similarity above which tokens join.
        merging: "sum", the program's: the sum of the tree divided by one more than the root's direct children; or
            "mean", over the whole tree.
    """
    tokens = tokens.float()
    similarity, parents = _parents(tokens, is_chosen, segments)
    parts = similarity.split(list(segments))
    joins = torch.cat([part > _segment_threshold(part, budget, threshold) for part in parts])
    joining = joins.to(tokens).unsqueeze(-1)
    # A token's row is its own and how many it stands for; from the last frame on each hands its row to its parent.
    rows = torch.cat([tokens, torch.ones_like(joining)], -1)
    for frame in range(len(tokens) - 1, 0, -1):
        rows[frame - 1].index_add_(0, parents[frame], rows[frame] * joining[frame])
    sums, sizes = rows[..., :-1], rows[..., -1:]
    if merging == "sum":
        children = torch.zeros_like(joining[..., 0])
        children[:-1] = children[:-1].scatter_add(1, parents[1:], joining[1:, :, 0])
        sizes = 1 + children.unsqueeze(-1)
    return Forest(sums / sizes, ~joins & ~is_chosen)


def _parents(tokens: Tensor, is_chosen: Tensor, segments: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Similarity to the most similar token of the frame before that is not chosen, and its place: twice (F, P)."""
    similarity = torch.full_like(tokens[..., 0], NO_PARENT)
    parents = torch.zeros_like(is_chosen, dtype=torch.long)
    to_earlier = cosine_similarities(tokens[1:], tokens[:-1]).masked_fill(is_chosen[:-1].unsqueeze(1), -math.inf)
    if len(tokens) > 1:
        similarity[1:], parents[1:] = to_earlier.max(-1)
    similarity = similarity.masked_fill(is_chosen, NO_PARENT)
    similarity[list(accumulate(segments[:-1], initial=0))] = NO_PARENT
    return similarity, parents


def _segment_threshold(similarity: Tensor, budget: int, threshold: float) -> Tensor:
    """Higher than tau where more tokens would join than the budget allows."""
    num_frames, num_places = similarity.shape
    most = num_frames * num_places - budget * num_frames
    if most <= 0:
        return similarity.new_tensor(math.inf)
    least = similarity.flatten().sort(descending=True).values[most - 1].clamp(min=NO_PARENT + 1e-6)
    return torch.where((similarity > threshold).sum() > most, least, threshold)
