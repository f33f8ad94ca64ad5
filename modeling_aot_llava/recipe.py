"""What a recipe decides: the places where the paper and its authors' released program part.

F frames, N patches, P pooled positions, D channels, M anchors, K clips; S sources and A anchors of a transport; n
tokens of the frame that keeps most.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from .optimal_transport import sinkhorn
from .token_budget import TokenBudget


class Recipe(ABC):
    """The choices for one video under its budget.

    Attributes:
        sources_first: whether each Sinkhorn iteration updates the sources' scaling before the anchors'.
        fills_up_anchors: whether a frame has exactly M anchors, whatever the windows leave over.
        nearest_share: how much of an updated anchor is its mean with the patches that are most similar to it.
        largest_cost: no cost exceeds it. 1 - cosine is at most 2; rounding is allowed for.
    """

    sources_first: bool
    fills_up_anchors: bool
    nearest_share: float
    largest_cost: float

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

    @abstractmethod
    def intra_frame_cost(
        self, similarity: Tensor, source_index: Tensor, anchor_index: Tensor, num_patches: int
    ) -> Tensor:
        """Costs within frames, of the similarity (F, N - M, M); the indices say which patches it is of."""

    @abstractmethod
    def choose_pooled_positions(self, is_anchor: Tensor, global_attention: Tensor, pooling: Tensor) -> Tensor:
        """Which positions of the pooled grid a frame keeps: (F, N), (F, N), (P, N) -> (F, P) bool."""

    @abstractmethod
    def positions(self, kept: Tensor) -> tuple[Tensor, Tensor | None]:
        """Where the kept positions are, in raster order, and which of these are no padding (None: all): (F, n)."""

    @abstractmethod
    def inter_frame_cost(
        self, similarity: Tensor, step: int, source_mask: Tensor | None, anchor_mask: Tensor | None
    ) -> Tensor:
        """Costs along time, of the similarity (K, S, A) of frames that are `step` behind their clip's first."""

    @abstractmethod
    def choose_merged(self, confidence: Tensor, merged_ranks: Tensor, source_mask: Tensor | None) -> Tensor:
        """Which tokens go into the anchors; the others changed, and are kept.

        Args:
            confidence: q of each token, (K, S).
            merged_ranks: (K, S), by rank of q: false for as many as the frame keeps.

        Returns:
            (K, S) bool.
        """

    @abstractmethod
    def output_rows(self, places: list[int], clip_places: list[int], clip_lengths: tuple[int, ...]) -> list[int]:
        """Which rows of `output` the video is made of, in this order.

        Args:
            places: (F) the row of each frame.
            clip_places: (K) the row of each clip's first frame.
            clip_lengths: (K) frames of each clip.
        """

    @abstractmethod
    def output(
        self, tokens: Tensor, token_mask: Tensor | None, anchors: Tensor, changed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Rows of tokens (R, n, D), and which of them the video may keep (R, n).

        Args:
            tokens, token_mask, changed: (F, n, D), (F, n), (F, n), the clips' first frames in front.
            anchors: (K, n, D), final.
        """
