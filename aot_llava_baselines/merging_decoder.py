"""HoliTom's and EarlyTom's stage in the language model: dropped video tokens are merged into those that stay.

Programs: `cokeshao/HoliTom` e9b2972 and `viridisGreen/EarlyTom` b909322, `modeling_qwen2.py`, which compute the same.
Before layer k (18 of 28) half of the video tokens go, by the attention of layer k - 1. To get at that attention, their
only path that runs lets layer k - 1 read the prompt without the causal mask, so that all tokens see all: "released".
The papers do not say so: "causal".
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlavaOnevisionConfig

from .fastv import check_depth, keep_of_video
from .interface import Baseline, PromptSpan, ReducedVideo, check_choice, check_count, check_share
from .layer_loop import LayerLoop
from .ranking import cosine_similarities

MASKS = ("released", "causal")


class MergingDecoder(LayerLoop):
    """Layers before `layer` read everything, the others text and the kept video tokens, the newline among them."""

    def __init__(self, language_model: nn.Module, span: PromptSpan, layer: int, num_kept: int, mask: str):
        """Takes what `FastVDecoder` does, and one of `MASKS`; the span's tokens include the newline at the end."""
        super().__init__(language_model)
        self._span, self._layer, self._num_kept, self._mask = span, layer, num_kept, mask
        self.kept: Tensor | None = None

    def prefill(self, hidden: Tensor, positions: Tensor, cache) -> Tensor:
        """Reads the prompt."""
        last = self._layer - 1
        before = self.run_layers(range(last), hidden, positions, cache)
        hidden = self.run_layer(last, before, positions, cache, causal=self._mask == "causal")
        attention = self.attention_of_last(last, before, positions, cache)
        scores = attention[self._span.start : self._span.end]
        self.kept = keep_of_video(scores, self._span, self._num_kept, len(attention))
        merged = self._merge_dropped(hidden[0])
        return self.run_layers(
            range(self._layer, self.num_layers), merged[self.kept].unsqueeze(0), positions[:, self.kept], cache
        )

    def _merge_dropped(self, hidden: Tensor) -> Tensor:
        """(n, D) -> (n, D), in which the kept video tokens have taken up the others."""
        rows = torch.arange(self._span.start, self._span.end, device=hidden.device)
        stays = torch.isin(rows, self.kept)
        kept, dropped = rows[stays], rows[~stays]
        if len(kept) == 0 or len(dropped) == 0:
            return hidden
        merged = hidden.clone()
        merged[kept] = merge_by_halves(hidden[kept], hidden[dropped])
        return merged


def merge_by_halves(kept: Tensor, dropped: Tensor) -> Tensor:
    """Each dropped token in turn halves itself into the kept one most like it: h <- (h + dropped) / 2.

    So of several the later weigh more. What is most alike is decided before anything is merged.

    Args:
        kept: (m, D), one or more; dropped: (n, D).

    Returns:
        (m, D).
    """
    nearest = cosine_similarities(dropped, kept).argmax(-1)
    members = torch.nn.functional.one_hot(nearest, len(kept)).T.float()  # (m, n)
    # Each is halved by itself and by all that come later.
    halvings = members.flip(1).cumsum(1).flip(1)
    weights = members * 0.5**halvings
    own = 0.5 ** members.sum(1, keepdim=True)
    return (own * kept.float() + weights @ dropped.float()).to(kept)


@dataclass(frozen=True)
class MergesInside(Baseline):
    """A method with this stage.

    Attributes:
        layer: k; before it the video is cut a second time, at least 1.
        inner_ratio: share of the video tokens, newline included, that layers from k on read; 1 switches the stage off.
        mask: "released", layer k - 1 reads the prompt without a causal mask, as in the programs; or "causal".
    """

    layer: int = 18
    inner_ratio: float = 1.0
    mask: str = "released"

    def __post_init__(self):
        super().__post_init__()
        check_count("layer", self.layer)
        check_share("inner_ratio", self.inner_ratio)
        check_choice("mask", self.mask, MASKS)

    @property
    def works_inside(self) -> bool:
        return self.inner_ratio < 1

    def check_model(self, config: LlavaOnevisionConfig) -> None:
        if self.works_inside:
            check_depth("layer", self.layer, config)

    def wrap(self, language_model: nn.Module, span: PromptSpan, video: ReducedVideo) -> nn.Module | None:
        if not self.works_inside:
            return None
        with_newline = PromptSpan(span.start, span.num_tokens + 1)
        num_kept = round(self.inner_ratio * with_newline.num_tokens)
        return MergingDecoder(language_model, with_newline, self.layer, num_kept, self.mask)

    def tokens_per_layer(self, num_tokens: int, num_layers: int) -> list[int]:
        whole = min(self.layer, num_layers) if self.works_inside else num_layers
        return [num_tokens] * whole + [round(self.inner_ratio * num_tokens)] * (num_layers - whole)
