"""Rankings that several methods share: the greatest scores, and density peaks."""

import torch
from torch import Tensor


def greatest(scores: Tensor, count: int) -> Tensor:
    """The places of the `count` greatest scores of the last dimension, greatest first; of equal ones the earlier.

    torch's top-k leaves the order of equal scores open.
    """
    return scores.sort(dim=-1, descending=True, stable=True).indices[..., :count]


def density_peak_scores(points: Tensor, num_neighbours: int) -> Tensor:
    """DPC-KNN: the score of each point as the centre of a cluster (Du et al. 2016), as FastVID, PruneVid and HoliTom.

    The density is exp(-mean squared distance to the nearest points, itself included); the score is the density times
    the distance to the nearest denser point. The programs add noise of 1e-6 to the densities so that no two are equal;
    here the earlier of two equally dense points counts as denser, so that results are always the same.

    Args:
        points: (..., N, D).
        num_neighbours: k, at most N.

    Returns:
        (..., N), float32.
    """
    return density_peak_scores_of(distances_between(points, points), num_neighbours)


def density_peak_scores_of(distances: Tensor, num_neighbours: int, break_ties: bool = True) -> Tensor:
    """The same from distances: (..., N, N) -> (..., N).

    Without `break_ties` none of equally dense points is denser than another, as in the programs without their noise.
    """
    if distances.shape[-1] == 0:
        return distances.sum(-1)
    nearest = distances.square().sort(dim=-1).values[..., :num_neighbours]
    density = (-nearest.mean(-1)).exp()
    own, others = density.unsqueeze(-1), density.unsqueeze(-2)
    is_denser = others > own
    if break_ties:
        place = torch.arange(density.shape[-1], device=density.device)
        is_denser = is_denser | ((others == own) & (place < place.unsqueeze(-1)))
    largest = distances.amax((-2, -1), keepdim=True)
    return torch.where(is_denser, distances, largest).amin(-1) * density


def distances_between(points: Tensor, others: Tensor) -> Tensor:
    """Euclidean distances divided by the root of the width, in float32: (..., N, D), (..., M, D) -> (..., N, M)."""
    return torch.cdist(points.float(), others.float()) / points.shape[-1] ** 0.5


def cosine_similarities(points: Tensor, others: Tensor) -> Tensor:
    """(..., N, D), (..., M, D) -> (..., N, M)."""
    return _unit(points) @ _unit(others).transpose(-2, -1)


def _unit(points: Tensor) -> Tensor:
    return torch.nn.functional.normalize(points, dim=-1)
