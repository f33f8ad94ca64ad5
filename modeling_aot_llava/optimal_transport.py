"""Entropic optimal transport between tokens, and what AOT does with a plan (arXiv 2603.01400, Sec. 3.1 and 3.3).

Every function is batched over leading dimensions: all frames of a video, or all clips, are one call. Sources are the
tokens that give their information away (S of them), anchors those that receive it (A). Padded tokens, where the
problems of a batch differ in size, are marked by boolean masks and take no part.
"""

import math

import torch
from torch import Tensor

from .exact_products import exact_dtype, exact_product, exact_sum_with_product, without_autocast
from .fused_kernels import with_kernel
from .sinkhorn_kernel import launch_sinkhorn, sinkhorn_variant

# Up to this cost / epsilon the Gibbs kernel and all that is made of it stay well within the range of float32.
LARGEST_LINEAR_EXPONENT = 40.0

# Stand for 0 where a division or a logarithm would not bear it; both have finite gradients.
TINY = 1e-30
LOG_ZERO = -1e30


def cosine_similarity(sources: Tensor, anchors: Tensor) -> Tensor:
    """cos(x_i, x_j) of every pair: (..., S, D), (..., A, D) -> (..., S, A). Zero vectors are similar to nothing (0).

    The few anchors are normalised before the product, the many sources after it: no normalised copy of them is made.
    """
    return exact_product(sources, directions_of(anchors).transpose(-1, -2)) / _norm(sources)


def directions_of(vectors: Tensor) -> Tensor:
    """The vectors with norm 1; a zero vector stays zero."""
    return vectors / _norm(vectors)


def sinkhorn(
    cost: Tensor,
    epsilon: float = 0.1,
    max_iterations: int = 100,
    tolerance: float = 0.01,
    source_mask: Tensor | None = None,
    anchor_mask: Tensor | None = None,
    sources_first: bool = False,
    largest_cost: float = math.inf,
) -> Tensor:
    """Sinkhorn-Knopp with uniform marginals (Eq. 4-5, Algorithm 1 lines 5-14).

    Where cost / epsilon is so large that the Gibbs kernel would leave the range of float32, the scalings are computed
    as logarithms. Each problem of the batch stops by itself, once the mean absolute change of its sources' scaling
    falls below `tolerance`, or after `max_iterations`. Whether all have stopped is asked after 2, 4, 8, ... iterations
    only, since on a GPU each question makes the host wait.

    Args:
        cost: (..., S, A), at least 0.
        epsilon: strength of the entropic regularisation, above 0.
        max_iterations: at least 1.
        tolerance: at least 0.
        source_mask, anchor_mask: (..., S) and (..., A), False where a token is padding.
        sources_first: update the sources' scaling before the anchors' (the released program); the paper's order is
            anchors first.
        largest_cost: what no cost exceeds, if that is known; it spares a GPU the question.

    Returns:
        The plan T, (..., S, A), in the dtype of `cost`, computed in float32 or better: non-negative, total mass 1,
        zero in padded rows and columns.
    """
    options = epsilon, max_iterations, tolerance, sources_first, largest_cost
    with without_autocast(cost.device):
        return _sinkhorn(cost, source_mask, anchor_mask, *options)


def _empty_plan(cost: Tensor, *_) -> Tensor:
    return torch.empty_like(cost, memory_format=torch.contiguous_format)


@with_kernel("sinkhorn", launch_sinkhorn, _empty_plan, sinkhorn_variant)
def _sinkhorn(
    cost: Tensor,
    source_mask: Tensor | None,
    anchor_mask: Tensor | None,
    epsilon: float,
    max_iterations: int,
    tolerance: float,
    sources_first: bool,
    largest_cost: float,
) -> Tensor:
    dtype = cost.dtype
    cost = cost.to(exact_dtype(cost))
    exponent = -cost / epsilon
    if source_mask is not None:
        exponent = exponent.masked_fill(~source_mask.unsqueeze(-1), LOG_ZERO)
    if anchor_mask is not None:
        exponent = exponent.masked_fill(~anchor_mask.unsqueeze(-2), LOG_ZERO)
    source_marginal = _uniform_marginal(cost.shape[:-1], source_mask, cost)
    anchor_marginal = _uniform_marginal((*cost.shape[:-2], cost.shape[-1]), anchor_mask, cost)
    steps_of = _LinearSteps if _is_linear(cost, epsilon, largest_cost) else _LogarithmicSteps
    steps = steps_of(exponent, source_marginal, anchor_marginal)

    is_source = source_marginal > 0
    num_sources = is_source.sum(-1, keepdim=True, dtype=cost.dtype)
    sources = torch.full_like(source_marginal, steps.one)
    anchors = torch.full_like(anchor_marginal, steps.one)
    running = torch.ones_like(num_sources, dtype=torch.bool)
    next_question = 2
    for iteration in range(1, max_iterations + 1):
        previous = sources
        if sources_first:
            sources = torch.where(running, steps.scale_sources(anchors), sources)
            anchors = torch.where(running, steps.scale_anchors(sources), anchors)
        else:
            anchors = torch.where(running, steps.scale_anchors(sources), anchors)
            sources = torch.where(running, steps.scale_sources(anchors), sources)
        change = (steps.values(sources.detach()) - steps.values(previous.detach())).abs()
        running = running & ~((change * is_source).sum(-1, keepdim=True) < tolerance * num_sources)
        if iteration == next_question and not torch.compiler.is_compiling():  # an exported program cannot ask
            if not running.any():
                break
            next_question *= 2
    return steps.plan(sources, anchors).to(dtype)


def _is_linear(cost: Tensor, epsilon: float, largest_cost: float) -> bool:
    if cost.numel() == 0 or largest_cost / epsilon <= LARGEST_LINEAR_EXPONENT:
        return True
    return float(cost.detach().max()) / epsilon <= LARGEST_LINEAR_EXPONENT


class _LinearSteps:
    """The scalings themselves, on the Gibbs kernel."""

    one = 1.0

    def __init__(self, exponent: Tensor, source_marginal: Tensor, anchor_marginal: Tensor):
        self.kernel = exponent.exp()
        self.source_marginal, self.anchor_marginal = source_marginal, anchor_marginal

    def scale_sources(self, anchors: Tensor) -> Tensor:
        return self.source_marginal / (self.kernel @ anchors.unsqueeze(-1)).squeeze(-1).clamp(min=TINY)

    def scale_anchors(self, sources: Tensor) -> Tensor:
        return self.anchor_marginal / (sources.unsqueeze(-2) @ self.kernel).squeeze(-2).clamp(min=TINY)

    def values(self, scaling: Tensor) -> Tensor:
        return scaling

    def plan(self, sources: Tensor, anchors: Tensor) -> Tensor:
        return sources.unsqueeze(-1) * self.kernel * anchors.unsqueeze(-2)


class _LogarithmicSteps:
    """The same steps on logarithms: slower, but no epsilon is too small."""

    one = 0.0

    def __init__(self, exponent: Tensor, source_marginal: Tensor, anchor_marginal: Tensor):
        self.log_kernel = exponent
        self.log_source_marginal = source_marginal.log().clamp(min=LOG_ZERO)
        self.log_anchor_marginal = anchor_marginal.log().clamp(min=LOG_ZERO)

    def scale_sources(self, anchors: Tensor) -> Tensor:
        return self.log_source_marginal - torch.logsumexp(self.log_kernel + anchors.unsqueeze(-2), dim=-1)

    def scale_anchors(self, sources: Tensor) -> Tensor:
        return self.log_anchor_marginal - torch.logsumexp(self.log_kernel + sources.unsqueeze(-1), dim=-2)

    def values(self, scaling: Tensor) -> Tensor:
        return scaling.exp()

    def plan(self, sources: Tensor, anchors: Tensor) -> Tensor:
        return torch.exp(self.log_kernel + sources.unsqueeze(-1) + anchors.unsqueeze(-2))


def _uniform_marginal(shape: tuple[int, ...], mask: Tensor | None, like: Tensor) -> Tensor:
    if mask is None:
        return like.new_full(shape, 1 / max(1, shape[-1]))
    mask = mask.to(like.dtype)
    return (mask / mask.sum(-1, keepdim=True).clamp(min=1)).expand(shape)


def aggregate(anchors: Tensor, sources: Tensor, weights: Tensor, strength: float) -> Tensor:
    """Folds sources into anchors (Eq. 10-11 with the plan, Eq. 16 with its normalised rows).

    a_j <- (a_j + strength * sum_i w_ij s_i) / (1 + strength * sum_i w_ij)

    Args:
        anchors: (K, A, D).
        sources: (K, S, D).
        weights: (K, S, A), at least 0.
        strength: lambda of the paper, at least 0.
    """
    total = exact_sum_with_product(anchors, weights.transpose(1, 2), sources, alpha=strength)
    return total / (1 + strength * weights.sum(1).unsqueeze(-1))


def nearest_anchor(similarity: Tensor) -> Tensor:
    """1 for the most similar anchor of each source, else 0: the weights of the cosine ablation (Table 4).

    similarity: (..., S, A) -> (..., S, A) of the same dtype; of equally similar anchors the first one.
    """
    # argmax leaves open which of several maxima it returns; the first maximum is where the running count is one.
    is_maximum = similarity == similarity.amax(-1, keepdim=True)
    return (is_maximum & (is_maximum.cumsum(-1) == 1)).to(similarity.dtype)


def _norm(vectors: Tensor) -> Tensor:
    # That of a zero vector is taken as 1.
    norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return norm + (norm == 0)
