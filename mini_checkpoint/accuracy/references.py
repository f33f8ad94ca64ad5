"""Three ways to any token budget that need no method: what AOT has to beat."""

import math

import torch
from torch import Tensor

from modeling_aot_llava.token_budget import share_evenly


def uniform_subsampling(pooled: Tensor, budget: int) -> Tensor:
    """Keeps tokens that are evenly spaced over the whole sequence, so each frame keeps its share, up to one.

    The places in the grid shift from frame to frame wherever the spacing does not divide a frame's tokens, so that
    what one frame leaves out another shows.

    Args:
        pooled: (F, P, D), the base model's tokens of each frame.
        budget: B, from 1 to F * P.

    Returns:
        (B, D).
    """
    tokens = pooled.flatten(0, 1)
    # The middles of B equal parts of the sequence.
    return tokens[(2 * torch.arange(budget, device=tokens.device) + 1) * len(tokens) // (2 * budget)]


def average_pooling(pooled: Tensor, budget: int) -> Tensor:
    """Cuts each frame's grid into as many cells as its share of the budget, and takes the mean of each.

    The cells of a frame are as square as its share allows: bands of rows of almost the same height, which are cut
    into cells of almost the same width. Frames differ by at most one cell.

    Args:
        pooled: (F, P, D), of a square grid.
        budget: B, from F to F * P.

    Returns:
        (B, D), cell by cell in raster order.
    """
    side = math.isqrt(pooled.shape[1])
    grids = pooled.unflatten(1, (side, side))
    return torch.cat(
        [
            torch.stack([grid[rows, columns].mean((0, 1)) for rows, columns in _cells(side, share)])
            for grid, share in zip(grids, share_evenly(budget, len(grids)))
        ]
    )


def random_tokens(pooled: Tensor, budget: int) -> Tensor:
    """Keeps B tokens drawn uniformly, in their order: always the same places for the same shape and budget.

    Args and returns as `uniform_subsampling`.
    """
    tokens = pooled.flatten(0, 1)
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))
    return tokens[order[:budget].sort().values.to(tokens.device)]


def _cells(side: int, count: int) -> list[tuple[slice, slice]]:
    bands = _slices(side, round(math.sqrt(count)))
    return [
        (rows, columns)
        for rows, width in zip(bands, share_evenly(count, len(bands)))
        for columns in _slices(side, width)
    ]


def _slices(length: int, parts: int) -> list[slice]:
    borders = [length * part // parts for part in range(parts + 1)]
    return [slice(start, end) for start, end in zip(borders, borders[1:])]
