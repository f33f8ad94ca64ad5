"""PyramidDrop (arXiv 2410.17247, CVPR 2025): video tokens are dropped in stages, by what the last token looks at.

Program: `Cooperx521/PyramidDrop` 6444f30, `pdrop_forward` (LLaVA-1.5 and NeXT). The tables' settings are published
nowhere: layers 2, 7 and 14, half of the tokens each time, give their FLOPs. The newline is a candidate, and so are
LLaVA-Video's, by our reading: the program takes all features of a video. After each stage positions are counted anew.
The program does not repeat keys for grouped heads; Qwen2 needs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import LlavaOnevisionConfig

from .fastv import check_depth, keep_of_video
from .interface import Baseline, PromptSpan, ReducedVideo, check_count
from .layer_loop import LayerLoop


class PDropDecoder(LayerLoop):
    """Before each of `layers` only so many video tokens stay."""

    def __init__(self, language_model: nn.Module, span: PromptSpan, layers: Sequence[int], counts: Sequence[int]):
        super().__init__(language_model)
        self._span, self._stages = span, dict(zip(layers, counts))
        # How much lower than in the prompt each layer's positions are.
        self._offsets = [0] * self.num_layers
        self.kept: list[Tensor] = []

    def prefill(self, hidden: Tensor, positions: Tensor, cache) -> Tensor:
        """Reads the prompt."""
        rows = torch.arange(hidden.shape[1], device=hidden.device)
        span = self._span
        for index in range(self.num_layers):
            if index in self._stages:
                staying = self._rows_of_stage(index, hidden, positions, span)
                hidden, rows = hidden[:, staying], rows[staying]
                positions = torch.arange(len(staying), device=hidden.device).unsqueeze(0)
                span = PromptSpan(span.start, self._stages[index])
                self.kept.append(rows)
            self._offsets[index] = hidden.shape[1]
            hidden = self.run_layer(index, hidden, positions, cache)
        self._offsets = [self._offsets[0] - length for length in self._offsets]
        return hidden

    def decode(self, hidden: Tensor, positions: Tensor, cache) -> Tensor:
        """Reads one token more, at the place that it has in each layer."""
        for index, offset in enumerate(self._offsets):
            hidden = self.run_layer(index, hidden, positions - offset, cache)
        return hidden

    def _rows_of_stage(self, index: int, hidden: Tensor, positions: Tensor, span: PromptSpan) -> Tensor:
        queries = self.rotated(self.queries(index, hidden[:, -1:]), positions[:, -1:])
        keys = self.rotated(self.keys(index, hidden), positions)
        scores = self.attention(index, queries, keys).mean(1)[0, 0]
        return keep_of_video(scores[span.start : span.end], span, self._stages[index], hidden.shape[1])


@dataclass(frozen=True)
class PDrop(Baseline):
    """PyramidDrop.

    Attributes:
        retention_ratio: share of the video tokens that the last stage leaves; each stage drops the same share of what
            it finds, half where it is 1/8.
        layers: before which tokens are dropped, ascending, at least 1.
    """

    name: ClassVar[str] = "pdrop"
    newline_positions: ClassVar[tuple[str, ...]] = ("one_token", "grid")

    retention_ratio: float = 1 / 8
    layers: tuple[int, ...] = (2, 7, 14)

    def __post_init__(self):
        super().__post_init__()
        for layer in self.layers:
            check_count("layers", layer)
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"layers is {self.layers!r}, but must be ascending layers, at least one.")

    @property
    def works_inside(self) -> bool:
        return True

    def check_model(self, config: LlavaOnevisionConfig) -> None:
        check_depth("layers", self.layers[-1], config)

    def wrap(self, language_model: nn.Module, span: PromptSpan, video: ReducedVideo) -> nn.Module:
        with_newline = PromptSpan(span.start, span.num_tokens + 1)
        return PDropDecoder(language_model, with_newline, self.layers, self._counts(with_newline.num_tokens))

    def tokens_per_layer(self, num_tokens: int, num_layers: int) -> list[int]:
        counts = [num_tokens, *self._counts(num_tokens)]
        return [counts[sum(layer <= index for layer in self.layers)] for index in range(num_layers)]

    def _counts(self, num_tokens: int) -> list[int]:
        # Of the original count, not of the last stage's.
        stages = len(self.layers)
        return [int(num_tokens * self.retention_ratio ** (stage / stages)) for stage in range(1, stages + 1)]
