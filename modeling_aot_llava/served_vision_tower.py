"""Runs in vLLM with `compile_mm_encoder`: SigLIP's vision tower as it can be compiled, attention included.

vLLM compiles the tower at its first call, by whoever it is made, and never looks at its arguments or marks again. So
each call makes the same: all hidden states, and queries and keys of the watched layers. These come out where attention
weights would, which transformers' attention functions return and its models hand on; fast ones leave that place empty.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, SiglipVisionConfig, SiglipVisionModel
from transformers.utils import ModelOutput
from transformers.utils.output_capturing import maybe_install_capturing_hooks

_ATTENTION = "aot_sdpa_with_queries_and_keys"


class ServedVisionTower(SiglipVisionModel):
    """The stock tower, whose `forward` says which argument is a tensor, as vLLM asks and transformers does not.

    What transformers does at the first call, under a lock, is done when the tower is built: it would break the graph.

    Args:
        config: of the stock tower.
        watched: indices of the layers whose queries and keys are wanted, counted from 0 or, if negative, from the end.
    """

    def __init__(self, config: SiglipVisionConfig, *, watched: tuple[int, ...]):
        super().__init__(config)
        layers = range(config.num_hidden_layers)
        self.watched = tuple(sorted({layers[index] for index in watched}))
        for place, layer in enumerate(self.encoder.layers):
            layer.self_attn.is_watched = place in self.watched
        self.set_attn_implementation(_ATTENTION)
        maybe_install_capturing_hooks(self)

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool | None = False, **kwargs):
        kwargs.update(output_hidden_states=True, output_attentions=True, return_dict=True)
        with torch.no_grad():  # vLLM traces it with gradients, and calls it in inference mode
            return super().forward(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs)

    def queries_and_keys(self, outputs: ModelOutput, layer: int) -> tuple[nn.Module, Tensor, Tensor]:
        """The attention module of a watched layer, and what it made in this run: (F, heads, N, d) each."""
        place = range(len(self.encoder.layers))[layer]
        return self.encoder.layers[place].self_attn, *outputs.attentions[self.watched.index(place)]


def _attend(module: nn.Module, queries: Tensor, keys: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
    attended, _ = AttentionInterface()["sdpa"](module, queries, keys, *args, **kwargs)
    return attended, (queries, keys) if module.is_watched else None


AttentionInterface.register(_ATTENTION, _attend)
