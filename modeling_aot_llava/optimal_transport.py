"""Entropic optimal transport between tokens, and what AOT does with a plan (arXiv 2603.01400, Sec. 3.1 and 3.3).

Every function is batched over leading dimensions: all frames of a video, or all clips, are one call. Sources are the
tokens that give their information away (S of them), anchors those that receive it (A). Padded tokens, where the
problems of a batch differ in size, are marked by boolean masks and take no part.
"""

import torch
from torch import Tensor

# Keeps divisions by underflown sums finite; far below any sum that is not zero in exact arithmetic.
TINY = 1e-30


def cosine_similarity(sources: Tensor, anchors: Tensor) -> Tensor:
    """cos(x_i, x_j) of every pair: (..., S, D), (..., A, D) -> (..., S, A). Zero vectors are similar to nothing (0).

    The norms divide the products, not the vectors: no normalised copy of the tokens is made.
    """
    dot_products = sources @ anchors.transpose(-1, -2)
    return dot_products / (_norm(sources).unsqueeze(-1) * _norm(anchors).unsqueeze(-2))


def sinkhorn(
    cost: Tensor,
    epsilon: float = 0.1,
    max_iterations: int = 100,
    tolerance: float = 0.01,
    source_mask: Tensor | None = None,
    anchor_mask: Tensor | None = None,
    sources_first: bool = False,
) -> Tensor:
    """Sinkhorn-Knopp with uniform marginals (Eq. 4-5, Algorithm 1 lines 5-14).

    Each problem of the batch stops by itself, once the mean absolute change of its sources' scaling falls below
    `tolerance`, or after `max_iterations`. Whether all have stopped is asked after 2, 4, 8, ... iterations only, since
    on a GPU each question makes the host wait.

    Args:
        cost: (..., S, A), at least 0.
        epsilon: strength of the entropic regularisation, above 0.
        max_iterations: at least 1.
        tolerance: at least 0.
        source_mask, anchor_mask: (..., S) and (..., A), False where a token is padding.
        sources_first: update the sources' scaling before the anchors' (the released program); the paper's order is
            anchors first.

    Returns:
        The plan T, (..., S, A): non-negative, total mass 1, zero in padded rows and columns.
    """
    kernel = torch.exp(-cost / epsilon)
    if source_mask is not None:
        kernel = kernel * source_mask.unsqueeze(-1)
    if anchor_mask is not None:
        kernel = kernel * anchor_mask.unsqueeze(-2)
    num_sources = _count(source_mask, cost.shape[-2])
    num_anchors = _count(anchor_mask, cost.shape[-1])

    source_scaling = _masked(cost.new_ones(cost.shape[:-1]), source_mask)
    anchor_scaling = _masked(cost.new_ones(*cost.shape[:-2], cost.shape[-1]), anchor_mask)
    running = torch.ones_like(source_scaling[..., :1], dtype=torch.bool)

    def update_sources():
        mass = (kernel @ anchor_scaling.unsqueeze(-1)).squeeze(-1)
        return _scaling(num_sources, mass, source_mask)

    def update_anchors():
        mass = (source_scaling.unsqueeze(-2) @ kernel).squeeze(-2)
        return _scaling(num_anchors, mass, anchor_mask)

    next_question = 2
    for iteration in range(1, max_iterations + 1):
        previous = source_scaling
        if sources_first:
            source_scaling = torch.where(running, update_sources(), source_scaling)
            anchor_scaling = torch.where(running, update_anchors(), anchor_scaling)
        else:
            anchor_scaling = torch.where(running, update_anchors(), anchor_scaling)
            source_scaling = torch.where(running, update_sources(), source_scaling)
        change = (source_scaling - previous).detach().abs().sum(-1, keepdim=True) / num_sources
        running = running & (change >= tolerance)
        if iteration == next_question:
            if not running.any():
                break
            next_question *= 2
    return source_scaling.unsqueeze(-1) * kernel * anchor_scaling.unsqueeze(-2)


def aggregate(anchors: Tensor, sources: Tensor, weights: Tensor, strength: float) -> Tensor:
    """Folds sources into anchors (Eq. 10-11 with the plan, Eq. 16 with its normalised rows).

    a_j <- (a_j + strength * sum_i w_ij s_i) / (1 + strength * sum_i w_ij)

    Args:
        anchors: (..., A, D).
        sources: (..., S, D).
        weights: (..., S, A), at least 0.
        strength: lambda of the paper, at least 0.
    """
    received = weights.transpose(-1, -2) @ sources
    mass = weights.sum(-2).unsqueeze(-1)
    return (anchors + strength * received) / (1 + strength * mass)


def nearest_anchor(similarity: Tensor) -> Tensor:
    """1 for the most similar anchor of each source, else 0: the weights of the cosine ablation (Table 4).

    similarity: (..., S, A) -> (..., S, A) of the same dtype; of equally similar anchors the first one.
    """
    # argmax leaves open which of several maxima it returns; the first maximum is where the running count is one.
    is_maximum = similarity == similarity.amax(-1, keepdim=True)
    return (is_maximum & (is_maximum.cumsum(-1) == 1)).to(similarity.dtype)


def _norm(vectors: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(vectors, dim=-1)
    return torch.where(norm > 0, norm, 1.0)


def _count(mask: Tensor | None, size: int) -> Tensor | int:
    return max(1, size) if mask is None else mask.sum(-1, keepdim=True).clamp(min=1)


def _masked(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values * mask


def _scaling(count: Tensor | int, mass: Tensor, mask: Tensor | None) -> Tensor:
    # The uniform marginal 1 / count over the mass that the other side sends.
    return _masked(1 / (count * mass.clamp(min=TINY)), mask)
