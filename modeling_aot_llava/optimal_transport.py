"""Entropic optimal transport between tokens, and what AOT does with a plan (arXiv 2603.01400, Sec. 3.1 and 3.3).

Every function is batched over leading dimensions: all frames of a video, or all clips, are one call. Sources are the
tokens that give their information away (S of them), anchors those that receive it (A). Padded tokens, where the
problems of a batch differ in size, are marked by boolean masks and take no part.
"""

import torch
from torch import Tensor

# Stands for log(0): its exponential is 0, and unlike minus infinity it has finite gradients.
LOG_ZERO = -1e30


def cosine_similarity(sources: Tensor, anchors: Tensor) -> Tensor:
    """cos(x_i, x_j) of every pair: (..., S, D), (..., A, D) -> (..., S, A). Zero vectors are similar to nothing (0).

    The few anchors are normalised before the product, the many sources after it: no normalised copy of them is made.
    """
    directions = anchors / _norm(anchors).unsqueeze(-1)
    return sources @ directions.transpose(-1, -2) / _norm(sources).unsqueeze(-1)


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

    Computed with the logarithms of kernel and scalings, so that a small epsilon does not leave the range of float32.
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
    log_kernel = -cost / epsilon
    if source_mask is not None:
        log_kernel = log_kernel.masked_fill(~source_mask.unsqueeze(-1), LOG_ZERO)
    if anchor_mask is not None:
        log_kernel = log_kernel.masked_fill(~anchor_mask.unsqueeze(-2), LOG_ZERO)
    log_sources = cost.new_zeros(cost.shape[:-1])
    log_anchors = cost.new_zeros(*cost.shape[:-2], cost.shape[-1])
    num_sources = _count(source_mask, log_sources)
    num_anchors = _count(anchor_mask, log_anchors)
    running = torch.ones_like(num_sources, dtype=torch.bool)

    def update_sources() -> Tensor:
        received = torch.logsumexp(log_kernel + log_anchors.unsqueeze(-2), dim=-1)
        return torch.where(running, _masked(-num_sources.log() - received, source_mask), log_sources)

    def update_anchors() -> Tensor:
        received = torch.logsumexp(log_kernel + log_sources.unsqueeze(-1), dim=-2)
        return torch.where(running, _masked(-num_anchors.log() - received, anchor_mask), log_anchors)

    next_question = 2
    for iteration in range(1, max_iterations + 1):
        previous = log_sources
        if sources_first:
            log_sources = update_sources()
            log_anchors = update_anchors()
        else:
            log_anchors = update_anchors()
            log_sources = update_sources()
        change = (log_sources.detach().exp() - previous.detach().exp()).abs().sum(-1, keepdim=True) / num_sources
        running = running & ~(change < tolerance)
        if iteration == next_question:
            if not running.any():
                break
            next_question *= 2
    return torch.exp(log_kernel + log_sources.unsqueeze(-1) + log_anchors.unsqueeze(-2))


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


def _count(mask: Tensor | None, values: Tensor) -> Tensor:
    # How many of the last dimension are no padding, (..., 1), at least 1.
    if mask is None:
        return values.new_full((*values.shape[:-1], 1), max(1, values.shape[-1]))
    return mask.sum(-1, keepdim=True).clamp(min=1).to(values.dtype)


def _masked(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values.masked_fill(~mask, 0)
