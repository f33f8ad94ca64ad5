"""What the paper says where its authors' released program does otherwise: `config.recipe = "paper"`.

F frames, N patches, P pooled positions, D channels, M anchors of which a frame keeps M_p on the pooled grid, K clips;
S sources and A anchors of a transport.
"""

import torch
from torch import Tensor

from .exact_products import exact_product
from .frame_clips import StepOrder
from .optimal_transport import sinkhorn
from .spatial_pooling import coverage_of
from .token_anchors import true_positions
from .token_budget import TokenBudget


class PaperRecipe:
    """Algorithms 1 and 2 as printed, for one video under its budget.

    Attributes:
        sources_first: each Sinkhorn iteration updates the anchors' scaling, then the sources'.
        fills_up_anchors: a frame has exactly M anchors, whatever the windows leave over.
        nearest_share: how much of an updated anchor is its mean with the patches that are most similar to it.
        largest_cost: no cost exceeds it. 1 - cosine is at most 2; rounding is allowed for.
    """

    sources_first = False
    fills_up_anchors = True
    nearest_share = 0.0
    largest_cost = 2.01

    def __init__(self, config, budget: TokenBudget):
        self.config, self.budget = config, budget

    def transport(self, cost: Tensor, source_mask: Tensor | None = None, anchor_mask: Tensor | None = None) -> Tensor:
        """The plan of these costs (Eq. 4-5), as `sinkhorn` returns it."""
        return sinkhorn(
            cost,
            epsilon=self.config.sinkhorn_epsilon,
            max_iterations=self.config.sinkhorn_iterations,
            tolerance=self.config.sinkhorn_tolerance,
            source_mask=source_mask,
            anchor_mask=anchor_mask,
            sources_first=self.sources_first,
            largest_cost=self.largest_cost,
        )

    def intra_frame_cost(
        self, similarity: Tensor, source_index: Tensor, anchor_index: Tensor, num_patches: int
    ) -> Tensor:
        """Eq. 9, of the similarity (F, N - M, M)."""
        return 1 - similarity

    def choose_pooled_positions(self, is_anchor: Tensor, global_attention: Tensor, pooling: Tensor) -> Tensor:
        """The M_p positions that the anchors cover most: (F, N) -> (F, P) bool.

        Of equally covered ones those of greater pooled global score, then of lower index.
        """
        by_score = exact_product(global_attention, pooling.T).sort(dim=-1, descending=True, stable=True).indices
        coverage = coverage_of(is_anchor, pooling)
        by_coverage = coverage.gather(1, by_score).sort(dim=-1, descending=True, stable=True).indices
        chosen = by_score.gather(1, by_coverage[:, : self.budget.pooled_anchors])
        return torch.zeros_like(coverage, dtype=torch.bool).scatter(1, chosen, True)

    def positions(self, kept: Tensor) -> tuple[Tensor, None]:
        """Where the kept positions are, in raster order: (F, P) bool -> (F, M_p), none of them padding."""
        return true_positions(kept, self.budget.pooled_anchors), None

    def inter_frame_cost(
        self, similarity: Tensor, step: int, source_mask: Tensor | None, anchor_mask: Tensor | None
    ) -> Tensor:
        """Eq. 13, of the similarity (K, S, A)."""
        return 1 - similarity

    def choose_merged(self, confidence: Tensor, merged_ranks: Tensor, source_mask: Tensor | None) -> Tensor:
        """All tokens but those of lowest q, of which the frame keeps its quota; with a threshold those that reach it.

        Args:
            confidence: q of each token, (K, S).
            merged_ranks: (K, S), by rank of q: false for as many as the frame keeps.

        Returns:
            (K, S) bool.
        """
        if self.config.temporal_threshold is not None:
            return confidence >= self.config.temporal_threshold
        lowest_first = confidence.sort(dim=-1, stable=True).indices
        return torch.empty_like(merged_ranks).scatter_(1, lowest_first, merged_ranks)

    def output_rows(self, order: StepOrder) -> list[int]:
        """Which rows of `output` the video is made of: its frames one after the other."""
        return order.places

    def output(
        self, tokens: Tensor, token_mask: Tensor | None, anchors: Tensor, changed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The final anchors take the place of the clips' first frames.

        Args:
            tokens, token_mask, changed: (F, n, D), (F, n), (F, n) in `StepOrder`.
            anchors: (K, n, D), final.

        Returns:
            Rows of tokens (R, n, D), and which of them the video may keep (R, n).
        """
        num_clips = len(anchors)
        kept = torch.cat([torch.ones_like(changed[:num_clips]), changed[num_clips:]])
        return torch.cat([anchors, tokens[num_clips:]]), kept
