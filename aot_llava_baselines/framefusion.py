"""FrameFusion (arXiv 2501.01986, ICCV 2025): tokens that stay alike along time are merged between the first layers,
then the least attended are dropped, until a budget is met.

Program: `thu-nics/FrameFusion` fbec1d2, `framefusion/main.py`; for LLaVA-Video, Qwen2-VL and others, not for
LLaVA-OneVision, where its newline is no candidate here, as it stands for no place of a frame. On LLaVA-Video newlines
are places of their own, as in the program. Settings of its README: cost 0.3, similarity from 0.6, at least 0.1 of the
tokens merged. The program counts 28 layers, here they are the model's. Positions stay the original ones, and each
layer's cache is as long as the sequence was there.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .interface import Baseline, EncodedVideo, PromptSpan, ReducedVideo, check_share
from .layer_loop import LayerLoop
from .ranking import greatest

# Of a place's first token, which has none before it.
NOTHING_BEFORE = -2.0


def similarity_along_time(tokens: Tensor, places: Tensor) -> Tensor:
    """Cosine of each token and the one before it at the same place of the frame: (n, D), (n,) -> (n,)."""
    order = places.sort(stable=True).indices
    in_order = tokens[order]
    similarity = torch.cosine_similarity(in_order[1:].float(), in_order[:-1].float(), dim=-1)
    is_same = places[order[1:]] == places[order[:-1]]
    result = torch.full_like(tokens[:, 0], NOTHING_BEFORE, dtype=torch.float32)
    result[order[1:]] = torch.where(is_same, similarity, NOTHING_BEFORE)
    return result


def merge_into_earlier(tokens: Tensor, places: Tensor, is_merged: Tensor) -> Tensor:
    """Each run of merged tokens of a place goes into the token before it, which becomes the mean of them all.

    Args:
        tokens: (n, D); places: (n,), in the frame; is_merged: (n,) bool.

    Returns:
        The tokens that are not merged, in order.
    """
    order = places.sort(stable=True).indices
    groups = (~is_merged[order]).cumsum(0) - 1
    sums = torch.zeros_like(tokens, dtype=torch.float32).index_add_(0, groups, tokens[order].float())
    sizes = torch.zeros_like(sums[:, 0]).index_add_(0, groups, torch.ones_like(sums[:, 0]))
    means = torch.empty_like(sums)
    means[order] = (sums / sizes.clamp(min=1).unsqueeze(-1))[groups]
    return means[~is_merged].to(tokens)


class Fusion:
    """The two phases of one video: called again and again, until `is_over`."""

    def __init__(self, num_layers: int, cost: float, similarity_threshold: float, least_share: float):
        """Takes what `FrameFusion` is set to."""
        self._num_layers, self._cost = num_layers, cost
        self._threshold, self._least_share = similarity_threshold, least_share
        self._remaining, self._spent, self._num_merges = 1.0, 0.0, 0
        self._merges, self.is_over = True, False

    @property
    def prunes(self) -> bool:
        """Whether the next call drops tokens by their scores."""
        return not self._merges

    @property
    def most(self) -> float:
        """The share of the tokens present that may go now, if all other layers read what is left then.

        Raises:
            ValueError: if the layers so far have read more than all of them may.
        """
        left = self._num_layers * self._cost - self._spent
        if left < 0:
            raise ValueError(
                f"retention_ratio is {self._cost}, which is spent after {self._num_merges} layers, as merging leaves "
                "more of this video: set a larger one."
            )
        return max(0.0, 1 - left / ((self._num_layers - self._num_merges) * self._remaining))

    def step(self, tokens: Tensor, places: Tensor, scores: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Merges or prunes once.

        Args:
            tokens: (n, D), the video tokens present; places: (n,), in their frames.
            scores: (n,), how much the last token of the prompt looks at each, where `prunes`.

        Returns:
            What is left, (m, D), and which tokens these are, (m,), in order.
        """
        rows = torch.arange(len(tokens), device=tokens.device)
        if self.prunes:
            self.is_over = True
            kept = greatest(scores, round(len(tokens) * (1 - self.most))).sort().values
            return tokens[kept], kept
        similarity = similarity_along_time(tokens, places)
        is_merged = similarity >= self._threshold
        share = int(is_merged.sum()) / max(1, len(tokens))
        if share >= self.most:
            is_merged = torch.zeros_like(is_merged)
            is_merged[greatest(similarity, int(self.most * len(tokens)))] = True
            self.is_over = True
        else:
            self._remaining *= 1 - share
            self._spent += self._remaining
            self._num_merges += 1
            self._merges = share >= self._least_share
            self.is_over = self._num_merges == self._num_layers
        return merge_into_earlier(tokens, places, is_merged), rows[~is_merged]


class FrameFusionDecoder(LayerLoop):
    """Merges before the first layer, and merges or prunes between attention and MLP of each, until the budget is met.

    Attributes:
        kept: rows of the prompt that are left.
    """

    def __init__(self, language_model: nn.Module, span: PromptSpan, tokens_per_frame: int, fusion: Fusion):
        super().__init__(language_model)
        self._span, self._tokens_per_frame, self._fusion = span, tokens_per_frame, fusion
        self.kept: Tensor | None = None

    def prefill(self, hidden: Tensor, positions: Tensor, cache) -> Tensor:
        """Reads the prompt."""
        span = self._span
        self._video = torch.arange(span.num_tokens, device=hidden.device)
        self.kept = torch.arange(hidden.shape[1], device=hidden.device)
        hidden = self._fuse(hidden)
        for index in range(self.num_layers):
            before, rotary = hidden, positions[:, self.kept]
            hidden = self.run_attention(index, before, rotary, cache)
            if not self._fusion.is_over:
                scores = self.attention_of_last(index, before, rotary, cache) if self._fusion.prunes else None
                hidden = self._fuse(hidden, scores)
            hidden = self.run_mlp(index, hidden)
        return hidden

    def _fuse(self, hidden: Tensor, scores: Tensor | None = None) -> Tensor:
        start, end = self._span.start, self._span.start + len(self._video)
        before, video, after = hidden[0, :start], hidden[0, start:end], hidden[0, end:]
        of_video = None if scores is None else scores[start:end]
        tokens, rows = self._fusion.step(video, self._video % self._tokens_per_frame, of_video)
        self._video = self._video[rows]
        self.kept = torch.cat([self.kept[:start], self.kept[start:end][rows], self.kept[end:]])
        return torch.cat([before, tokens, after]).unsqueeze(0)


@dataclass(frozen=True)
class FrameFusion(Baseline):
    """FrameFusion.

    Attributes:
        retention_ratio: the cost, the share of the video tokens that the language model's layers read on average.
        similarity_threshold: from which tokens are merged.
        least_share: of the tokens present; merging ends once fewer are merged.
    """

    name: ClassVar[str] = "framefusion"
    newline_positions: ClassVar[tuple[str, ...]] = ("one_token", "grid")

    retention_ratio: float = 0.3
    similarity_threshold: float = 0.6
    least_share: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        check_share("least_share", self.least_share)

    def reduce(self, video: EncodedVideo) -> ReducedVideo:
        return ReducedVideo(video.with_newlines(), tokens_per_frame=video.placeholders_per_frame)

    @property
    def works_inside(self) -> bool:
        return True

    def wrap(self, language_model: nn.Module, span: PromptSpan, video: ReducedVideo) -> nn.Module:
        # Where frames have newlines, that of the last row is the one that ends the video.
        whole_frames = -(-span.num_tokens // video.tokens_per_frame) * video.tokens_per_frame
        fusion = Fusion(len(language_model.layers), self.retention_ratio, self.similarity_threshold, self.least_share)
        return FrameFusionDecoder(language_model, PromptSpan(span.start, whole_frames), video.tokens_per_frame, fusion)

    def tokens_per_layer(self, num_tokens: int, num_layers: int) -> list[int]:
        """On average: how soon tokens go depends on the video, their sum does not."""
        return [round(self.retention_ratio * num_tokens)] * num_layers
