"""The Qwen-VL family by layer sizes, with random weights made on the device in the wanted dtype, and its prompts."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, GenerationConfig
from transformers.initialization import no_init_weights

from aot_llava_cli.hosts import HOSTS, Host
from modeling_aot_llava.token_budget import plan_token_budget

from .shapes import TEXT_TOKENS, check_memory, fill_with_noise, share_tensors

# Columns of the time that Qwen3-VL writes before each frame, such as `<12.3 seconds>`.
TIME_TOKENS = 7
_HOSTS = {host.model_types[1]: host for host in HOSTS}


@dataclass(frozen=True)
class QwenShape:
    """Sizes of a host's language model and vision tower.

    Attributes:
        host: the stock model's type.
        aot: AOT's fields, where the sizes ask for others than the default's.
    """

    host: str
    text: dict[str, Any]
    vision: dict[str, Any]
    aot: dict[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> Host:
        """The host's classes with AOT."""
        return _HOSTS[self.host]


def _rope(theta: float, sections: list[int]) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta, "mrope_section": sections}


_TINY_TEXT = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rope_parameters": _rope(1e4, [4, 2, 2]),
}
_TINY_TOWER = {"depth": 4, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
_TINY_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_TEXT_OF_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "rope_parameters": _rope(1e6, [16, 24, 24]),
}
_TOWER_OF_QWEN3 = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16}

# The published layer sizes.
QWEN_SHAPES = {
    "qwen2-vl-tiny": QwenShape(
        "qwen2_vl",
        text=_TINY_TEXT,
        vision={"depth": 4, "embed_dim": 32, "mlp_ratio": 2, "num_heads": 2, "hidden_size": 64, "patch_size": 14},
        aot={"local_attention_layer": 1},
    ),
    "qwen2.5-vl-tiny": QwenShape(
        "qwen2_5_vl",
        text=_TINY_TEXT,
        vision={**_TINY_TOWER, "patch_size": 14, "fullatt_block_indexes": [1, 3], "window_size": 112},
        aot={"local_attention_layer": 1, "global_attention_layer": 3},
    ),
    "qwen3-vl-tiny": QwenShape(
        "qwen3_vl",
        text=_TINY_TEXT,
        vision={**_TINY_TOWER, "patch_size": 16, "deepstack_visual_indexes": [0, 1]},
        aot={"local_attention_layer": 1},
    ),
    "qwen3-vl-moe-tiny": QwenShape(
        "qwen3_vl_moe",
        text={**_TINY_TEXT, **_TINY_EXPERTS},
        vision={**_TINY_TOWER, "patch_size": 16, "deepstack_visual_indexes": [0, 1]},
        aot={"local_attention_layer": 1},
    ),
    "qwen2-vl-7b": QwenShape(
        "qwen2_vl",
        text=_TEXT_OF_7B,
        vision={"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "hidden_size": 3584},
    ),
    "qwen2.5-vl-3b": QwenShape(
        "qwen2_5_vl",
        text={
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "rope_parameters": _rope(1e6, [16, 24, 24]),
        },
        vision={"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048},
    ),
    "qwen2.5-vl-7b": QwenShape(
        "qwen2_5_vl",
        text=_TEXT_OF_7B,
        vision={"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584},
    ),
    "qwen3-vl-2b": QwenShape(
        "qwen3_vl",
        text={
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_parameters": _rope(5e6, [24, 20, 20]),
        },
        vision={
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "deepstack_visual_indexes": [5, 11, 17],
        },
    ),
    "qwen3-vl-8b": QwenShape(
        "qwen3_vl",
        text={
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_parameters": _rope(5e6, [24, 20, 20]),
        },
        vision={**_TOWER_OF_QWEN3, "out_hidden_size": 4096},
    ),
    "qwen3-vl-30b-a3b": QwenShape(
        "qwen3_vl_moe",
        text={
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
            "rope_parameters": _rope(5e6, [24, 20, 20]),
        },
        vision={**_TOWER_OF_QWEN3, "out_hidden_size": 2048},
    ),
}


def build_models(shape: QwenShape, dtype: torch.dtype, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """The stock model and the AOT model, which share every weight.

    Raises:
        MemoryError: if the weights do not fit into the device's free memory.
    """
    ours, vocabulary = shape.classes.config, shape.text["vocab_size"]
    fields = {
        "text_config": {**shape.text, "max_position_embeddings": 2**17, "pad_token_id": 0},
        "vision_config": shape.vision,
        "image_token_id": vocabulary - 1,
        "video_token_id": vocabulary - 2,
        "vision_start_token_id": vocabulary - 3,
        "vision_end_token_id": vocabulary - 4,
        "tie_word_embeddings": False,
    }
    with torch.device("meta"):
        stock = AutoModelForImageTextToText.from_config(ours.__bases__[-1](**fields), dtype=dtype)
    check_memory(stock, device)
    with no_init_weights(), device:
        aot = AutoModelForImageTextToText.from_config(ours(**fields, **shape.aot), dtype=dtype)
    fill_with_noise(aot)
    share_tensors(aot, stock)
    for model in (stock, aot):
        model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)
    return stock.eval(), aot.eval()


def random_video(config, grid_thw: tuple[int, int, int], like: Tensor) -> Tensor:
    """Pixel values (patches, values of a patch) with the dtype and device of a weight."""
    vision = config.vision_config
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return torch.randn(grid_thw[0] * grid_thw[1] * grid_thw[2], values, dtype=like.dtype, device=like.device)


def make_prompt(model: nn.Module, grid_thw: tuple[int, int, int], pixels: Tensor) -> tuple[dict[str, Any], int]:
    """What a processor would hand over, with as many placeholders as the AOT model's config says, and their number."""
    config = model.config
    budget = plan_token_budget(config, grid_thw[0], grid=config.grid_of(grid_thw))
    words = torch.arange(1, TEXT_TOKENS + 1)
    start, end = torch.tensor([config.vision_start_token_id]), torch.tensor([config.vision_end_token_id])
    if model.model.has_span_a_frame:
        times = words[:TIME_TOKENS]
        spans = [(times, start, _placeholders(config, kept), end) for kept in budget.kept_per_frame]
    else:
        spans = [(start, _placeholders(config, budget.num_video_tokens), end)]
    ids = torch.cat([words[:10], *(part for span in spans for part in span), words[10:]])[None].to(pixels.device)
    prompt = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": 2 * (ids == config.video_token_id).int(),
        "pixel_values_videos": pixels,
        "video_grid_thw": torch.tensor([grid_thw], device=pixels.device),
    }
    return prompt, budget.num_video_tokens


def _placeholders(config, number: int) -> Tensor:
    return torch.full((number,), config.video_token_id)
