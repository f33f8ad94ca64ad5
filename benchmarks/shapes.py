"""LLaVA-OneVision by layer sizes, with random weights made on the device in the wanted dtype."""

from dataclasses import dataclass, field, replace
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
)
from transformers.initialization import no_init_weights

from modeling_aot_llava import AOTLlavaOnevisionConfig, AOTLlavaOnevisionForConditionalGeneration

WEIGHT_RANGE = 0.03
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26, "num_attention_heads": 16}
TINY_TOWER = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 7, "num_attention_heads": 4}
TEXT_TOKENS = 30

ALL_FRAMES = (8, 16, 32, 64, 128)
ALL_RATIOS = (1.0, 0.25, 0.2, 0.15, 0.1)


@dataclass(frozen=True)
class Shape:
    """Sizes of the language model and the vision tower, and how much of it a CPU can measure in reasonable time.

    `video_path` holds the fields of AOT's config by which the base model is another than LLaVA-OneVision.
    """

    text: dict[str, int]
    vision: dict[str, int]
    frames_on_cpu: tuple[int, ...]
    ratios_on_cpu: tuple[float, ...]
    repeats_on_cpu: int
    video_path: dict[str, str] = field(default_factory=dict)


SHAPES = {
    "tiny": Shape(
        text={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 1024,
        },
        vision=TINY_TOWER,
        frames_on_cpu=(2, 4),
        ratios_on_cpu=(1.0, 0.25, 0.1),
        repeats_on_cpu=3,
    ),
    "0.5b": Shape(
        text={
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
        },
        vision=SO400M,
        frames_on_cpu=(8,),
        ratios_on_cpu=(0.1,),
        repeats_on_cpu=3,
    ),
    "7b": Shape(
        text={
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 151936,
        },
        vision=SO400M,
        frames_on_cpu=(8,),
        ratios_on_cpu=(1.0, 0.1),
        repeats_on_cpu=1,
    ),
}
SHAPES["llava-video-7b"] = replace(
    SHAPES["7b"], video_path={"mm_spatial_pool_mode": "average", "mm_newline_position": "grid"}
)


def fill_in_defaults(options, device: torch.device) -> None:
    """Sets what the user left open: everything on a GPU, what a CPU can do on a CPU."""
    shape, on_gpu = SHAPES[options.shape], device.type == "cuda"
    defaults = {
        "frames": ALL_FRAMES if on_gpu else shape.frames_on_cpu,
        "ratios": ALL_RATIOS if on_gpu else shape.ratios_on_cpu,
        "batch": (1, 8) if on_gpu else (1,),
        "repeats": 5 if on_gpu else shape.repeats_on_cpu,
        "stage_frames": () if on_gpu else (32,),
        "decode_tokens": 32 if on_gpu else 8,
        "dtype": "bfloat16" if on_gpu else "float32",
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def build_models(shape: Shape, dtype: torch.dtype, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """The stock model and the AOT model, which share every weight.

    LLaVA-Video has no class of its own in transformers: its stock model is this project's with AOT off.

    Raises:
        MemoryError: if the weights do not fit into the device's free memory.
    """
    fields = _config_fields(shape)
    stock_config = LlavaOnevisionConfig(**fields)
    if shape.video_path:
        stock_config = AOTLlavaOnevisionConfig(**fields, **shape.video_path, retention_ratio=1.0)
    with torch.device("meta"):
        stock = AutoModelForImageTextToText.from_config(stock_config, dtype=dtype)
    check_memory(stock, device)
    with no_init_weights(), device:
        aot_config = AOTLlavaOnevisionConfig(**fields, **shape.video_path)
        aot = AutoModelForImageTextToText.from_config(aot_config, dtype=dtype)
    fill_with_noise(aot)
    share_tensors(aot, stock)
    assert type(aot) is AOTLlavaOnevisionForConditionalGeneration
    assert shape.video_path or type(stock) is LlavaOnevisionForConditionalGeneration
    for model in (stock, aot):
        model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)
    return stock.eval(), aot.eval()


def make_prompt(config, num_video_tokens: int, pixels: Tensor) -> dict[str, Any]:
    """What a processor would hand over: placeholders of each row's video, its newline tokens' too, then some text."""
    num_newlines = config.count_newlines(pixels.shape[1], is_compressed=True)
    text = torch.arange(1, TEXT_TOKENS + 1)
    placeholders = torch.full((num_video_tokens + num_newlines,), config.video_token_index)
    ids = torch.cat([text[:10], placeholders, text[10:]]).repeat(len(pixels), 1).to(pixels.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values_videos": pixels}


def random_videos(config, batch: int, num_frames: int, like: Tensor) -> Tensor:
    """Pixel values (batch, F, 3, side, side) with the dtype and device of a weight."""
    side = config.vision_config.image_size
    return torch.randn(batch, num_frames, 3, side, side, dtype=like.dtype, device=like.device)


def count_all_video_tokens(config, num_frames: int) -> int:
    """F * P: what the stock model makes of a video, newline tokens not counted."""
    return num_frames * config.pooled_grid_size**2


def _config_fields(shape: Shape) -> dict[str, Any]:
    vision = {"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 14, "vision_use_head": False}
    vocabulary = shape.text["vocab_size"]
    return {
        "vision_config": {**vision, **shape.vision},
        "text_config": {"model_type": "qwen2", **shape.text},
        "image_token_index": vocabulary - 2,
        "video_token_index": vocabulary - 1,
        "tie_word_embeddings": False,
    }


def check_memory(model: nn.Module, device: torch.device) -> None:
    """Raises MemoryError if the model's weights do not fit into the device's free memory."""
    needed = sum(parameter.nbytes for parameter in model.parameters())
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(
            f"The weights take {needed / 2**30:.1f} GiB, but {device} has {free / 2**30:.1f} GiB of free memory. Take "
            "a smaller --shape, a shorter --dtype or another --device."
        )


@torch.no_grad()
def fill_with_noise(model: nn.Module) -> None:
    """Random weights, with which activations stay in the range of real ones."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 or name.endswith("image_newline"):
            parameter.uniform_(-WEIGHT_RANGE, WEIGHT_RANGE)
        else:  # the scale of a norm, or a bias
            parameter.fill_(1 if name.endswith("weight") else 0)


def share_tensors(source: nn.Module, target: nn.Module) -> None:
    """Gives a model the parameters and buffers of another."""
    for name, parameter in source.named_parameters():
        owner, _, leaf = name.rpartition(".")
        target.get_submodule(owner).register_parameter(leaf, parameter)
    for name, buffer in source.named_buffers():
        owner, _, leaf = name.rpartition(".")
        target.get_submodule(owner).register_buffer(leaf, buffer, persistent=False)
