"""FlashVID (arXiv 2602.08024, ICLR 2026): distinct tokens of each frame, the others merged in trees along time.

Program: `Fanziyang-v/FlashVID` 1d37422, `flashvid/`, for LLaVA-OneVision, and for LLaVA-Video with a newline after
each frame; on its checkpoints' own newlines, after each row, the program raises. Settings of its scripts, the same for
all ratios: e 1.25, alpha 0.7, tau 0.8, segments at 0.9 and at least 8 of them, K 20, rho 0.3. A ratio is the mean over
the layers of the language model: at 10 % the first 20 read 12.8 %, the others 3.8 %.

The program's trees do not average: a root becomes the sum of its whole tree divided by one more than the number of its
*direct* children, so tokens that stay alike over many frames come out many times too long. The published results are
the program's; `merging="mean"` is what the paper describes. A segment of one frame is clustered with its chosen tokens
still in it, so a place may be kept twice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import LlavaOnevisionConfig

from modeling_aot_llava.spatial_pooling import insert_newlines
from modeling_aot_llava.token_budget import newline_places

from .fastv import FastVDecoder, check_depth
from .interface import (
    Baseline,
    EncodedVideo,
    PromptSpan,
    ReducedVideo,
    check_choice,
    check_count,
    check_share,
    take_rows,
)
from .ranking import cosine_similarities, density_peak_scores_of, distances_between
from .tree_merging import MERGING, merge_trees

NUM_NEIGHBOURS = 7


def segment_lengths(tokens: Tensor, similarity_threshold: float, num_segments: int) -> list[int]:
    """Cuts where the means of neighbouring frames are less alike, and further until there are enough segments.

    Args:
        tokens: (F, P, D), after projector and pooling.
        num_segments: at least, as far as there are frames.

    Returns:
        The segments' numbers of frames.
    """
    means = tokens.float().mean(1)
    similarity = torch.cosine_similarity(means[:-1], means[1:], dim=-1)
    below = similarity < similarity_threshold
    # Places already cut come first, then the least alike.
    order = similarity.masked_fill(below, -math.inf).sort(stable=True).indices
    num_cuts = max(int(below.sum()), min(num_segments - 1, len(similarity)))
    borders = [0, *sorted(cut + 1 for cut in order[:num_cuts].tolist()), len(tokens)]
    return [end - start for start, end in zip(borders, borders[1:])]


def choose_distinct(tokens: Tensor, attention: Tensor, segments: Sequence[int], count: int) -> Tensor:
    """Attention and diversity based selection (ADTS): each frame's tokens that lie farthest from those chosen before.

    Distances are weighted by the attention that the token receives and by its product with the segment's mean.

    Args:
        tokens: (F, P, D); attention: (F, P), attention received at the last vision layer.
        segments: of `segment_lengths`.
        count: c, at most P.

    Returns:
        (F, c) places, ascending.
    """
    tokens = tokens.float()
    means = torch.cat([part.mean((0, 1)).expand(len(part), -1) for part in tokens.split(list(segments))])
    weights = 1e6 * attention.float() * (tokens @ means.unsqueeze(-1)).squeeze(-1)
    distances = (1 - cosine_similarities(tokens, tokens)) * weights.unsqueeze(1)  # from row to column
    # The smallest distance is that of a token to itself.
    from_chosen = distances.topk(min(2, tokens.shape[1]), dim=1, largest=False).values[:, -1]
    nothing_chosen, chosen = True, []
    for _ in range(count):
        newest = from_chosen.argmax(-1, keepdim=True)
        chosen.append(newest)
        of_newest = take_rows(distances, newest).squeeze(1)
        from_chosen = of_newest if nothing_chosen else torch.minimum(from_chosen, of_newest)
        # No token is chosen again, where the program does so once no weight is positive.
        from_chosen = from_chosen.scatter(1, torch.cat(chosen, 1), -math.inf)
        nothing_chosen = False
    return torch.cat(chosen, 1).sort(-1).values if chosen else torch.zeros(len(tokens), 0).to(weights).long()


def cluster_frame(tokens: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """DPC-KNN: the plain means of the clusters, and their centres' rows: (n, D) -> (count, D), (count,)."""
    # One matrix for both: sums are so long that distances computed in another order would differ in what is nearest.
    distances = distances_between(tokens, tokens)
    # Of one or two neighbours many tokens are equally dense. The program draws lots among them; its golden vectors,
    # made without, have torch's choice, which is always the same on one kind of device.
    scores = density_peak_scores_of(distances, min(NUM_NEIGHBOURS, count), break_ties=False)
    centres = scores.topk(count).indices
    nearest = distances[:, centres].argmin(-1)
    nearest[centres] = torch.arange(count, device=tokens.device)
    members = torch.nn.functional.one_hot(nearest, count).to(tokens)
    return members.T @ tokens / members.sum(0).unsqueeze(-1), centres


def flashvid(
    tokens: Tensor,
    attention: Tensor,
    segments: Sequence[int],
    *,
    budget: int,
    num_chosen: int,
    merging_threshold: float = 0.8,
    merging: str = "sum",
) -> tuple[Tensor, Tensor]:
    """FlashVID before the model.

    Args:
        tokens: (F, P, D), after projector and pooling; attention: (F, P), received at the last vision layer.
        segments: of `segment_lengths`.
        budget: b, tokens a frame; a frame may have one more.
        num_chosen: c of them.
        merging_threshold: tau; from 1 on no others are kept.
        merging: as in `merge_trees`.

    Returns:
        (n, D), float32, and their places in the video, (n,), in order; of equal places the chosen token comes first.
    """
    num_frames, num_places = tokens.shape[:2]
    chosen = choose_distinct(tokens, attention, segments, num_chosen)
    first_places = torch.arange(num_frames, device=tokens.device).unsqueeze(1) * num_places
    kept, places = [take_rows(tokens.float(), chosen).flatten(0, 1)], [(first_places + chosen).flatten()]
    if budget > num_chosen and merging_threshold < 1:
        is_chosen = torch.zeros_like(attention, dtype=torch.bool).scatter(1, chosen, True)
        forest = merge_trees(tokens, is_chosen, segments, budget, merging_threshold, merging)
        is_alone = torch.tensor([length == 1 for length in segments for _ in range(length)], device=tokens.device)
        candidates = torch.where(is_alone.unsqueeze(1), True, forest.is_root)
        values = torch.where(is_alone.view(-1, 1, 1), tokens.float(), forest.tokens)
        for frame, rows, count in _frames_to_cluster(candidates, segments, budget - num_chosen):
            of_frame, centres = values[frame, rows], slice(None)
            if count < len(rows):
                of_frame, centres = cluster_frame(of_frame, count)
            kept.append(of_frame)
            places.append(frame * num_places + rows[centres])
    all_places, order = torch.cat(places).sort(stable=True)
    return torch.cat(kept)[order], all_places


def _frames_to_cluster(candidates: Tensor, segments: Sequence[int], wanted: int):
    """Each frame that has candidates, their places, and how many clusters they make."""
    ordered = (~candidates).sort(dim=-1, stable=True).indices
    counts = candidates.sum(-1).tolist()
    for first, length in zip(accumulate(segments, initial=0), segments):
        share = wanted * length / max(1, sum(counts[first : first + length]))
        for frame in range(first, first + length):
            number = counts[frame]
            if number:
                yield frame, ordered[frame, :number], min(number, math.ceil(number * share))


@dataclass(frozen=True)
class FlashVID(Baseline):
    """FlashVID.

    Attributes:
        retention_ratio: r, the share of the video tokens that the language model's layers read on average.
        expansion: e; the first layers read e times as many.
        chosen_share: alpha, of a frame's budget that is chosen; the rest is merged.
        merging_threshold: tau.
        merging: "sum" as the program, or "mean" as the paper.
        segment_threshold: similarity of neighbouring frames below which a segment ends.
        num_segments: at least.
        layer: K; before it the video is cut a second time. At least 1.
        inner_ratio: rho, share of the tokens that layers from K on read; 1 switches the second cut off. So that the
            mean over T layers is r: (T - e K) / (e (T - K)).
    """

    name: ClassVar[str] = "flashvid"
    newline_positions: ClassVar[tuple[str, ...]] = ("one_token", "frame")

    retention_ratio: float = 0.10
    expansion: float = 1.25
    chosen_share: float = 0.7
    merging_threshold: float = 0.8
    merging: str = "sum"
    segment_threshold: float = 0.9
    num_segments: int = 8
    layer: int = 20
    inner_ratio: float = 0.3

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.expansion, bool) or not isinstance(self.expansion, (int, float)) or self.expansion < 1:
            raise ValueError(f"expansion is {self.expansion!r}, but must be a number from 1.")
        if self.chosen_share != 0:
            check_share("chosen_share", self.chosen_share)
        if self.chosen_share == 0 and self.merging_threshold >= 1:
            raise ValueError(
                f"chosen_share is 0 and merging_threshold {self.merging_threshold!r}, which keeps no token: choose "
                "some, or merge below 1."
            )
        check_choice("merging", self.merging, MERGING)
        check_count("num_segments", self.num_segments)
        check_count("layer", self.layer)
        check_share("inner_ratio", self.inner_ratio)

    def budget(self, num_places: int) -> int:
        """b, of a frame of P tokens."""
        return min(num_places, math.ceil(num_places * self.retention_ratio * self.expansion))

    def reduce(self, video: EncodedVideo) -> ReducedVideo:
        budget = self.budget(video.tokens.shape[1])
        tokens, places = flashvid(
            video.tokens,
            video.attention,
            segment_lengths(video.tokens, self.segment_threshold, self.num_segments),
            budget=budget,
            num_chosen=math.ceil(budget * self.chosen_share),
            merging_threshold=self.merging_threshold,
            merging=self.merging,
        )
        tokens = tokens.to(video.tokens)
        if video.newline_position == "one_token":
            return ReducedVideo(tokens)
        ends = newline_places(len(video.tokens), video.side, video.newline_position)
        return ReducedVideo(insert_newlines(tokens, places, video.newline, ends)[:-1], last_newline_competes=True)

    @property
    def works_inside(self) -> bool:
        return self.inner_ratio < 1

    def check_model(self, config: LlavaOnevisionConfig) -> None:
        if self.works_inside:
            check_depth("layer", self.layer, config)

    def wrap(self, language_model: nn.Module, span: PromptSpan, video: ReducedVideo) -> nn.Module | None:
        if not self.works_inside:
            return None
        if video.last_newline_competes:
            span = replace(span, num_tokens=span.num_tokens + 1)
        return FastVDecoder(language_model, span, self.layer, math.ceil(span.num_tokens * self.inner_ratio))

    def num_video_tokens(self, num_frames: int, tokens_per_frame: int) -> int:
        """The least: each frame of a segment but one may have a token more."""
        return num_frames * self.budget(tokens_per_frame)

    def tokens_per_layer(self, num_tokens: int, num_layers: int) -> list[int]:
        if not self.works_inside:
            return [num_tokens] * num_layers
        return [num_tokens] * self.layer + [math.ceil(num_tokens * self.inner_ratio)] * (num_layers - self.layer)
