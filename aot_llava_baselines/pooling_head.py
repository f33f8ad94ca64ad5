"""SigLIP's attention-pooling head, which FastVID reads and LLaVA checkpoints do not have."""

import torch
from torch import Tensor, nn
from transformers import SiglipVisionModel

SIGLIP = "google/siglip-so400m-patch14-384"


class PoolingHead(nn.Module):
    """The head and the norm before it, as they follow SigLIP's last layer; here they follow the layer LLaVA reads."""

    def __init__(self, siglip: SiglipVisionModel):
        super().__init__()
        self.post_layernorm = siglip.post_layernorm
        self.head = siglip.head

    @classmethod
    def from_pretrained(cls, checkpoint: str = SIGLIP, **options) -> "PoolingHead":
        """Takes the head of a SigLIP checkpoint: a name on the Hub or a folder."""
        return cls(SiglipVisionModel.from_pretrained(checkpoint, **options).eval())

    @torch.inference_mode()
    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Pools each frame's patches.

        Args:
            hidden: (F, N, C), output of a layer of the vision tower.

        Returns:
            One feature a frame, (F, C), and the probe's attention to the patches, mean over heads, (F, N).
        """
        hidden = self.post_layernorm(hidden.to(self.post_layernorm.weight))
        probe = self.head.probe.expand(len(hidden), -1, -1)
        pooled, attention = self.head.attention(probe, hidden, hidden)
        pooled = pooled + self.head.mlp(self.head.layernorm(pooled))
        return pooled[:, 0], attention[:, 0]
