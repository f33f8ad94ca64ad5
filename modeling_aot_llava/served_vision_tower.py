"""Runs in vLLM with `compile_mm_encoder`: SigLIP's vision tower as it can be compiled, in one graph."""

import torch
from torch import Tensor
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.utils.output_capturing import maybe_install_capturing_hooks


class ServedVisionTower(SiglipVisionModel):
    """The stock tower, whose `forward` says which argument is a tensor, as vLLM asks and transformers does not.

    What transformers does at the first call, under a lock, is done when the tower is built: it would break the graph.
    """

    def __init__(self, config: SiglipVisionConfig):
        super().__init__(config)
        maybe_install_capturing_hooks(self)

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool | None = False, **kwargs):
        with torch.no_grad():  # vLLM traces it with gradients, and calls it in inference mode
            return super().forward(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs)
