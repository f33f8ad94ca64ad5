"""What reading a video costs: vision tower and language model, from the frames and tokens that each layer reads.

A multiply-add is one FLOP, as in the paper. Text, newlines, patch embedding, projector and pooling are not counted,
nor what a method needs to choose: of 32 frames at most 0.02 T, beside FastVID's pooling head of 0.06 T.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import LlavaOnevisionConfig

from modeling_aot_llava.cost_model import prefill_flops, qwen2_prefill_flops

from .interface import Baseline
from .vision_layers import TowerShape, num_layers_read


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model.

    Attributes:
        tower: of the vision tower.
        num_layers, hidden_size, intermediate_size: of the language model.
        key_value_size: width of its keys, all heads together; narrower than `hidden_size` where heads are grouped.
    """

    tower: TowerShape
    num_layers: int
    hidden_size: int
    intermediate_size: int
    key_value_size: int

    @classmethod
    def of(cls, config: LlavaOnevisionConfig) -> "ModelShape":
        """Of a model's config."""
        vision, text = config.vision_config, config.text_config
        patches = (vision.image_size // vision.patch_size) ** 2
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(
            TowerShape(num_layers_read(config), vision.hidden_size, vision.intermediate_size, patches),
            text.num_hidden_layers,
            text.hidden_size,
            text.intermediate_size,
            head * text.num_key_value_heads,
        )


# LLaVA-OneVision-7B and LLaVA-Video-7B: SigLIP so400m and Qwen2-7B.
LLAVA_7B = ModelShape(TowerShape(26, 1152, 4304, 729), 28, 3584, 18944, 512)


@dataclass(frozen=True)
class ReadingCost:
    """FLOPs of reading a video.

    Attributes:
        tower: of the vision tower, frame by frame.
        eq17: of the language model by the paper's Eq. 17.
        as_qwen2: of the language model as Qwen2 computes it, with grouped heads and three matrices in an MLP.
    """

    tower: float
    eq17: float
    as_qwen2: float

    @property
    def with_tower(self) -> float:
        """Tower and Eq. 17."""
        return self.tower + self.eq17

    @property
    def as_computed(self) -> float:
        """Tower and language model, as they are computed."""
        return self.tower + self.as_qwen2


def reading_cost(
    method: Baseline,
    shape: ModelShape,
    num_frames: int,
    num_tokens: int,
    *,
    frames_per_layer: Sequence[float] = (),
    tokens_per_layer: Sequence[float] = (),
) -> ReadingCost:
    """What a video of F frames costs of which the language model's first layer reads n tokens.

    Args:
        method: `Baseline()` where the layers all read the same.
        frames_per_layer, tokens_per_layer: what the layers read, where it was seen; else what the method says.
    """
    frames = frames_per_layer or method.frames_per_layer(num_frames, shape.tower)
    tokens = tokens_per_layer or method.tokens_per_layer(num_tokens, shape.num_layers)
    sizes = {"num_layers": 1, "hidden_size": shape.hidden_size, "intermediate_size": shape.intermediate_size}
    return ReadingCost(
        sum(frames) * shape.tower.flops_per_layer,
        sum(prefill_flops(of_layer, **sizes) for of_layer in tokens),
        sum(qwen2_prefill_flops(of_layer, **sizes, key_value_size=shape.key_value_size) for of_layer in tokens),
    )
