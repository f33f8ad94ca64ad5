"""PruneVid (arXiv 2412.16117, Findings of ACL 2025): static places of a segment once, the others clustered; then by
what the text looks at.

Program: `Visual-AI/PruneVid` b12600c, `modeling_pllava.py`, `elastic_cache.py`, `llama.py`; for PLLaVA only. The
tables' rows are another author's unreleased port, with settings that are published nowhere: here tau, the share of
segments and k are the program's, and per video the largest share of clusters is searched that the budget allows. Their
FLOPs are those of the first stage alone, so the second is off unless `alpha` is set. The program's scores in the model
are neither rotated nor causal. It has no newline; here it follows the video, as in LLaVA-OneVision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import LlavaOnevisionConfig

from .fastv import check_depth
from .interface import Baseline, EncodedVideo, PromptSpan, ReducedVideo, Segment, check_count, check_share
from .layer_loop import LayerLoop, cut_cache
from .ranking import density_peak_scores, distances_between, greatest

NUM_NEIGHBOURS = 7
# Sets of no more tokens than this are not clustered.
LARGEST_UNCLUSTERED = 14
SEARCH_STEP = 1e-3


@dataclass(frozen=True)
class TokenSets:
    """One segment's tokens before they are clustered: static (n, D), dynamic (frames, m, D)."""

    static: Tensor
    dynamic: Tensor


def frame_labels(tokens: Tensor, segment_ratio: float = 0.25) -> list[int]:
    """Clusters frames by their mean token: (F, P, D) -> a label a frame; 0 is the best centre."""
    features = tokens.mean(1)
    num_frames = len(features)
    scores = density_peak_scores(features, min(NUM_NEIGHBOURS, num_frames))
    centres = greatest(scores, max(1, int(num_frames * segment_ratio)))
    labels = distances_between(features, features[centres]).argmin(-1)
    labels[centres] = torch.arange(len(centres), device=labels.device)
    return labels.tolist()


def refine_labels(labels: Sequence[int]) -> list[int]:
    """Gives frames of runs shorter than their label's longest to the longer of the neighbouring runs.

    A label whose longest run is one frame gives up all its frames.
    """
    longest: dict[int, int] = {}
    for label, length in _runs(labels):
        longest[label] = max(longest.get(label, 0), length)
    refined: list[int | None] = []
    for label, length in _runs(labels):
        stays = length == longest[label] > 1
        refined.extend([label if stays else None] * length)
    first = 0
    for label, length in _runs(list(refined)):
        if label is None:
            before = list(_runs(refined[:first]))[-1:]
            after = list(_runs(refined[first + length :]))[:1]
            neighbours = before + after
            refined[first : first + length] = [
                max(neighbours, key=lambda run: run[1])[0] if neighbours else 0
            ] * length
        first += length
    return refined


def _runs(labels: Sequence) -> list[tuple]:
    return [(label, len(list(members))) for label, members in groupby(labels)]


def token_sets(tokens: Tensor, similarity_threshold: float = 0.8, segment_ratio: float = 0.25) -> list[TokenSets]:
    """Splits each segment's places into static and dynamic ones.

    Args:
        tokens: (F, P, D), after projector and pooling.
        similarity_threshold: tau; a place is static whose frames are more alike on average.
    """
    sets, first = [], 0
    for _, length in _runs(refine_labels(frame_labels(tokens, segment_ratio))):
        members = tokens[first : first + length]
        is_static = _mean_similarity(members) > similarity_threshold
        sets.append(TokenSets(members[:, is_static].mean(0), members[:, ~is_static]))
        first += length
    return sets


def _mean_similarity(frames: Tensor) -> Tensor:
    # Over pairs of different frames, by place. The squared norm of the sum of unit vectors counts each with itself.
    length = len(frames)
    if length == 1:
        return torch.full_like(frames[0, :, 0], -1)
    similarity = torch.nn.functional.normalize(frames, dim=-1).sum(0).square().sum(-1)
    return (similarity - length) / (length * (length - 1))


def prunevid(sets: Sequence[TokenSets], cluster_ratio: float) -> ReducedVideo:
    """Clusters each set, and puts static tokens before the dynamic ones of each frame, segment by segment."""
    parts, segments = [], []
    for of_segment in sets:
        static = cluster(of_segment.static, cluster_ratio)
        dynamic = [cluster(frame, cluster_ratio) for frame in of_segment.dynamic]
        parts += [static, *dynamic]
        segments.append(Segment(len(dynamic), len(static), len(dynamic[0])))
    return ReducedVideo(torch.cat(parts), segments=segments)


def cluster(tokens: Tensor, cluster_ratio: float) -> Tensor:
    """The means of a set's clusters, the best centre's first: (n, D) -> (clusters, D). Small sets stay as they are."""
    count = clustered_count(len(tokens), cluster_ratio)
    if count == len(tokens):
        return tokens
    centres = greatest(density_peak_scores(tokens, NUM_NEIGHBOURS), count)
    nearest = distances_between(tokens, tokens[centres]).argmin(-1)
    nearest[centres] = torch.arange(count, device=tokens.device)
    members = torch.nn.functional.one_hot(nearest, count).to(tokens)
    return members.T @ tokens / members.sum(0).unsqueeze(-1)


def clustered_count(num_tokens: int, cluster_ratio: float) -> int:
    """How many tokens a set leaves; at least one, where the program lets it vanish."""
    return num_tokens if num_tokens <= LARGEST_UNCLUSTERED else max(1, int(num_tokens * cluster_ratio))


def largest_cluster_ratio(sets: Sequence[TokenSets], budget: int) -> float:
    """The largest share of clusters, to 1e-3, that leaves at most `budget` tokens; the smallest where none does."""

    def count(ratio: float) -> int:
        return sum(
            clustered_count(len(of_segment.static), ratio)
            + of_segment.dynamic.shape[0] * clustered_count(of_segment.dynamic.shape[1], ratio)
            for of_segment in sets
        )

    low, high = 0.0, 1.0
    if count(high) <= budget:
        return high
    while high - low > SEARCH_STEP:
        middle = (low + high) / 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    return low


def most_attended(scores: Tensor, segments: Sequence[Segment], alpha: float) -> Tensor:
    """The video tokens that the text looks at: of each set the share alpha, rounded down. (n,) -> places, in order."""
    kept, first = [], 0
    for segment in segments:
        for size in [segment.num_static, *[segment.num_dynamic] * segment.num_frames]:
            kept.append(first + greatest(scores[first : first + size], int(size * alpha)))
            first += size
    return torch.cat(kept).sort().values


class PruneVidDecoder(LayerLoop):
    """After `layer` only the share alpha of each set of video tokens stays, also in the caches before it."""

    def __init__(
        self, language_model: nn.Module, span: PromptSpan, layer: int, segments: Sequence[Segment], alpha: float
    ):
        super().__init__(language_model)
        self._span, self._layer, self._segments, self._alpha = span, layer, segments, alpha
        self.kept: Tensor | None = None

    def prefill(self, hidden: Tensor, positions: Tensor, cache) -> Tensor:
        """Reads the prompt."""
        layer, span = self._layer, self._span
        hidden = self.run_layers(range(layer), hidden, positions, cache)
        queries = self.queries(layer, hidden[:, span.end :])
        attention = self.attention(layer, queries, self.keys(layer, hidden))[0, :, :, span.start : span.end]
        kept = span.start + most_attended(attention.amax((0, 1)), self._segments, self._alpha)
        rows = torch.arange(hidden.shape[1], device=hidden.device)
        self.kept = torch.cat([rows[: span.start], kept, rows[span.end :]])

        hidden = self.run_layer(layer, hidden, positions, cache)[:, self.kept]
        for index in range(layer + 1):
            cut_cache(cache, index, self.kept)
        return self.run_layers(range(layer + 1, self.num_layers), hidden, positions[:, self.kept], cache)


@dataclass(frozen=True)
class PruneVid(Baseline):
    """PruneVid.

    Attributes:
        retention_ratio: share of the video tokens, at most; sets of up to 14 tokens are never clustered, so a video of
            many small sets may have more.
        cluster_ratio: a fixed share of clusters instead of the search (0.5 in the program).
        similarity_threshold: tau.
        segment_ratio: clusters of frames, as a share of the frames.
        alpha: share of the tokens that the second stage leaves of each set (0.4 in the program); 1 switches it off.
        layer: after which (10 of 32 in the program).
    """

    name: ClassVar[str] = "prunevid"

    retention_ratio: float = 0.10
    cluster_ratio: float | None = None
    similarity_threshold: float = 0.8
    segment_ratio: float = 0.25
    alpha: float = 1.0
    layer: int = 10

    def __post_init__(self):
        super().__post_init__()
        check_share("segment_ratio", self.segment_ratio)
        check_share("alpha", self.alpha)
        check_count("layer", self.layer, least=0)
        if self.cluster_ratio is not None:
            check_share("cluster_ratio", self.cluster_ratio)

    def reduce(self, video: EncodedVideo) -> ReducedVideo:
        sets = token_sets(video.tokens, self.similarity_threshold, self.segment_ratio)
        num_frames, tokens_per_frame = video.tokens.shape[:2]
        budget = self.num_video_tokens(num_frames, tokens_per_frame)
        ratio = largest_cluster_ratio(sets, budget) if self.cluster_ratio is None else self.cluster_ratio
        return prunevid(sets, ratio)

    @property
    def works_inside(self) -> bool:
        return self.alpha < 1

    def check_model(self, config: LlavaOnevisionConfig) -> None:
        if self.works_inside:
            check_depth("layer", self.layer, config)

    def wrap(self, language_model: nn.Module, span: PromptSpan, video: ReducedVideo) -> nn.Module | None:
        if not self.works_inside:
            return None
        return PruneVidDecoder(language_model, span, self.layer, video.segments, self.alpha)

    def num_video_tokens(self, num_frames: int, tokens_per_frame: int) -> int:
        return round(self.retention_ratio * num_frames * tokens_per_frame)

    def tokens_per_layer(self, num_tokens: int, num_layers: int) -> list[int]:
        if not self.works_inside:
            return [num_tokens] * num_layers
        whole = self.layer + 1
        return [num_tokens] * whole + [int(self.alpha * num_tokens)] * (num_layers - whole)
