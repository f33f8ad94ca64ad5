"""FastV (arXiv 2403.06764, ECCV 2024): after a few layers only the video tokens that the last token looks at.

Program: `pkunlp-icler/FastV` d165972, `fastv_forward` of its port to Hugging Face (LLaVA-1.5). The tables' settings
are published nowhere: K 2 and 20 % kept is the only one that gives their FLOPs. Positions stay the original ones,
layers before K keep their whole cache, and the newline that ends the video is no candidate. The program's range of
video tokens has no gaps, so LLaVA-Video's newlines between them are candidates like tokens: our reading, as
no program runs FastV there.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import LlavaOnevisionConfig

from .interface import Baseline, PromptSpan, ReducedVideo, check_count
from .layer_loop import LayerLoop
from .ranking import greatest


class FastVDecoder(LayerLoop):
    """Layers before `layer` read everything, the others text and the kept video tokens."""

    def __init__(self, language_model: nn.Module, span: PromptSpan, layer: int, num_kept: int):
        super().__init__(language_model)
        self._span, self._layer, self._num_kept = span, layer, num_kept
        self.kept: Tensor | None = None

    def prefill(self, hidden: Tensor, positions: Tensor, cache) -> Tensor:
        """Reads the prompt."""
        for index in range(self._layer):
            before = hidden
            hidden = self.run_layer(index, hidden, positions, cache)
        attention = self.attention_of_last(self._layer - 1, before, positions, cache)
        self.kept = keep_of_video(
            attention[self._span.start : self._span.end], self._span, self._num_kept, len(attention)
        )
        return self.run_layers(
            range(self._layer, self.num_layers), hidden[:, self.kept], positions[:, self.kept], cache
        )


def keep_of_video(scores: Tensor, span: PromptSpan, num_kept: int, num_rows: int) -> Tensor:
    """The rows of a prompt that stay: all text, and the video tokens of the greatest scores, in order."""
    is_kept = torch.ones(num_rows, dtype=torch.bool, device=scores.device)
    is_kept[span.start : span.end] = False
    is_kept[span.start + greatest(scores, num_kept)] = True
    return is_kept.nonzero().flatten()


@dataclass(frozen=True)
class FastV(Baseline):
    """FastV.

    Attributes:
        retention_ratio: share of the video tokens that layers from K on read; 1 - R.
        layer: K, at least 1.
    """

    name: ClassVar[str] = "fastv"
    newline_positions: ClassVar[tuple[str, ...]] = ("one_token", "grid")

    retention_ratio: float = 0.20
    layer: int = 2

    def __post_init__(self):
        super().__post_init__()
        check_count("layer", self.layer)

    @property
    def works_inside(self) -> bool:
        return True

    def check_model(self, config: LlavaOnevisionConfig) -> None:
        check_depth("layer", self.layer, config)

    def wrap(self, language_model: nn.Module, span: PromptSpan, video: ReducedVideo) -> nn.Module:
        return FastVDecoder(language_model, span, self.layer, round(self.retention_ratio * span.num_tokens))

    def tokens_per_layer(self, num_tokens: int, num_layers: int) -> list[int]:
        kept = round(self.retention_ratio * num_tokens)
        return [num_tokens] * self.layer + [kept] * (num_layers - self.layer)


def check_depth(name: str, layer: int, config: LlavaOnevisionConfig) -> None:
    """Raises ValueError where the language model has no such layer."""
    num_layers = config.text_config.num_hidden_layers
    if layer >= num_layers:
        raise ValueError(f"{name} is {layer}, but the language model has {num_layers} layers, counted from 0.")
