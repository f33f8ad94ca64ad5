"""The vision tower's run over the frames of a video, and its layers one by one for the methods that work inside it."""

from dataclasses import dataclass

from torch import Tensor, nn
from transformers import LlavaOnevisionConfig

from modeling_aot_llava.attention_capture import run_and_read_attention
from modeling_aot_llava.cost_model import prefill_flops
from modeling_aot_llava.token_anchors import attention_received


@dataclass(frozen=True)
class TowerOutput:
    """What comes out of the tower; F' frames where a method drops or merges some.

    Attributes:
        patches: (F', N, C), output of the layer that the projector reads.
        attention: (F', N), attention received at that layer, or where a method says so.
        keys: (F', N, w), key vectors of that layer, mean over heads.
        runs: first and last frame of each run of like frames (EarlyTom).
        frames_per_layer: how many frames each layer read, where it is not all.
    """

    patches: Tensor
    attention: Tensor
    keys: Tensor
    runs: tuple[tuple[int, int], ...] = ()
    frames_per_layer: tuple[int, ...] = ()


@dataclass(frozen=True)
class TowerShape:
    """Sizes of the vision tower.

    Attributes:
        num_layers: that are run.
        hidden_size: C.
        intermediate_size: of the MLPs.
        num_patches: N, of a frame.
    """

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_patches: int

    @property
    def flops_per_layer(self) -> int:
        """Of one frame, which attends to itself alone."""
        sizes = {"hidden_size": self.hidden_size, "intermediate_size": self.intermediate_size}
        return prefill_flops(self.num_patches, num_layers=1, **sizes)


class VisionLayers:
    """SigLIP's layers up to the one that the projector reads."""

    def __init__(self, vision_tower: nn.Module, feature_layer: int):
        """Takes a `SiglipVisionModel`, and which of its hidden states are read, as `vision_feature_layer`."""
        self._tower, self._feature_layer = vision_tower, feature_layer
        # The first of the hidden states is what goes into the first layer.
        self.last = feature_layer if feature_layer < 0 else feature_layer - 1
        every = vision_tower.encoder.layers
        self.layers = list(every)[: _num_layers(len(every), feature_layer)]

    @property
    def num_heads(self) -> int:
        """Of each layer."""
        return self._tower.config.num_attention_heads

    def embed(self, frames: Tensor) -> Tensor:
        """What goes into the first layer: (F, channels, height, width) -> (F, N, C)."""
        return self._tower.embeddings(frames)

    def run(self, frames: Tensor) -> TowerOutput:
        """The stock run, with the tower's own attention kernel, compiled or not."""
        outputs, received = run_and_read_attention(
            self._tower, frames, (self.last,), output_hidden_states=True, return_dict=True
        )
        given = outputs.hidden_states[len(self.layers) - 1]
        keys = self.layers[-1].self_attn.k_proj(self.layers[-1].layer_norm1(given))
        patches = outputs.hidden_states[self._feature_layer]
        return TowerOutput(patches, received[self.last], self.mean_over_heads(keys))

    def mean_over_heads(self, projected: Tensor) -> Tensor:
        """(F, N, C) -> (F, N, w)."""
        return projected.unflatten(-1, (self.num_heads, -1)).mean(-2)

    def attention_received(self, index: int, queries: Tensor, keys: Tensor) -> Tensor:
        """Of a layer's projections: twice (F, N, C) -> (F, N)."""
        of_heads = [values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for values in (queries, keys)]
        return attention_received(*of_heads, scale=self.layers[index].self_attn.scale)


def num_layers_read(config: LlavaOnevisionConfig) -> int:
    """How many of the vision tower's layers come before what the projector reads."""
    return _num_layers(config.vision_config.num_hidden_layers, config.vision_feature_layer)


def _num_layers(num_layers: int, feature_layer: int) -> int:
    # The first hidden state comes before all layers.
    return feature_layer % (num_layers + 1)
