"""The base model's spatial pooling, also as a matrix, so that it can be applied to some positions of the grid alone.

And its newline tokens among the pooled ones.

F frames, N patches, P pooled positions, D channels, M anchors, n positions that a frame keeps.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from .exact_products import exact_product, exact_sum_with_product


def pool_grid(grid: Tensor, mode: str) -> Tensor:
    """The base model's spatial pooling to half the sides of a grid: (n, channels, height, width) -> the same form.

    `"bilinear"` (LLaVA-OneVision) rounds a side up; `"average"` (LLaVA-Video) takes the mean of 2 x 2 patches, those
    of an odd grid's last row and column left out; `"none"` leaves the grid as it is.
    """
    if mode == "none":
        return grid
    if mode == "average":
        return functional.avg_pool2d(grid, kernel_size=2)
    height, width = (math.ceil(side / 2) for side in grid.shape[-2:])
    return functional.interpolate(grid, size=(height, width), mode="bilinear")


def pooling_matrix(grid: int | tuple[int, int], device: torch.device | str = "cpu", mode: str = "bilinear") -> Tensor:
    """The base model's spatial pooling as a matrix (P, N); see `pool_grid`.

    Args:
        grid: height and width of the patch grid, or its side.
    """
    height, width = (grid, grid) if isinstance(grid, int) else grid
    one_hot = torch.eye(height * width, dtype=torch.float32, device=device)
    return pool_grid(one_hot.view(-1, 1, height, width), mode).flatten(1).T


def coverage_steps(num_pooled: int) -> int:
    """How many steps make a pooled position covered as a whole: 4 P, of which every pooling weight is a whole number.

    For the weights are multiples of 1 / 4 where the pooled grid has half the side, G / 2, and for bilinear pooling of
    an odd grid, to (G + 1) / 2, products of two multiples of 1 / (G + 1).
    """
    return 4 * num_pooled


def coverage_of(is_anchor: Tensor, pooling: Tensor) -> Tensor:
    """How much of each pooled position the anchors cover, in whole `coverage_steps`: (F, N) -> (F, P).

    Whole numbers are summed exactly, so that positions which are covered equally compare equal.
    """
    return exact_product(is_anchor.float(), (pooling.T * coverage_steps(len(pooling))).round())


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
    pooled = exact_product(weights, features)
    return exact_sum_with_product(pooled, weights.gather(2, anchor_columns), anchor_changes)


def insert_newlines(tokens: Tensor, places: Tensor, newline: Tensor, newline_places: range) -> Tensor:
    """Puts the newline token after each of some places, whether the place still has its token or not.

    Args:
        tokens: (B, D).
        places: (B,), where each token stands in the video, frame * P + position; ascending.
        newline: (D,).
        newline_places: see `token_budget.newline_places`.

    Returns:
        (B + newlines, D).
    """
    ends = torch.arange(newline_places.start, newline_places.stop, newline_places.step, device=places.device)
    order = torch.cat([places, ends]).sort(stable=True).indices
    return torch.cat([tokens, newline.to(tokens).expand(len(ends), -1)])[order]
