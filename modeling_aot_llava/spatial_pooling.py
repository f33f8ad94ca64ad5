"""The base model's spatial pooling as a matrix, so that it can be applied to some positions of the grid alone.

F frames, N = G * G patches, P pooled positions, D channels, M anchors, n positions that a frame keeps.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

# Coverages that differ by less are rounding of the same number: bilinear weights are multiples of 1 / (G + 1)**2.
COVERAGE_STEP = 1e-5


def pooling_matrix(grid: int, device: torch.device | str = "cpu") -> Tensor:
    """The base model's spatial pooling as a matrix (P, N): bilinear, to half the grid's side rounded up."""
    one_hot_patches = torch.eye(grid * grid, dtype=torch.float32, device=device).view(grid * grid, 1, grid, grid)
    side = math.ceil(grid / 2)
    return functional.interpolate(one_hot_patches, size=(side, side), mode="bilinear").flatten(1).T


def coverage_of(is_anchor: Tensor, pooling: Tensor) -> Tensor:
    """How much of each pooled position the anchors cover, in whole steps of `COVERAGE_STEP`: (F, N) -> (F, P)."""
    return (is_anchor.float() @ pooling.T / COVERAGE_STEP).round()


def pool_kept_positions(
    features: Tensor, anchor_changes: Tensor, anchor_index: Tensor, kept_index: Tensor, pooling: Tensor
) -> Tensor:
    """Pools the grid, with its anchors updated, at the kept positions alone.

    The updated grid itself is never made: pooling is linear, so the anchors' changes are pooled by themselves.

    Args:
        features: (F, N, D), the grid before the update.
        anchor_changes: (F, M, D), new anchors minus old ones; their places are `anchor_index`, (F, M).
        kept_index: (F, n), positions on the pooled grid.
        pooling: (P, N).

    Returns:
        (F, n, D).
    """
    weights = pooling[kept_index]
    anchor_columns = anchor_index.unsqueeze(1).expand(-1, weights.shape[1], -1)
    return torch.baddbmm(weights @ features, weights.gather(2, anchor_columns), anchor_changes)
