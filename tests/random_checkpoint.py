"""Small LLaVA-OneVision models with random weights, and checkpoints of them.

They have the real thing's architecture, patch grid, chat template and processors, so they take every path that a real
checkpoint takes; only their answers mean nothing.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GenerationConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedModel,
    Qwen2Tokenizer,
)

from mini_checkpoint.training.model.prompt_format import CHAT_TEMPLATE, SPECIAL_TOKENS
from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor


def save_random_checkpoint(
    folder: str | Path,
    *,
    model_class: type[PreTrainedModel] = AOTLlavaOnevisionForConditionalGeneration,
    processor_class: type = AOTLlavaOnevisionProcessor,
    seed: int = 0,
    **config_overrides: Any,
) -> None:
    """Saves a seeded model with random weights and its processor, as safetensors.

    Args:
        folder: where to; it is made if need be.
        model_class: the stock `LlavaOnevisionForConditionalGeneration` gives a stock checkpoint.
        processor_class: the stock `LlavaOnevisionProcessor` likewise.
        seed: of the weights.
        config_overrides: see `random_config`.
    """
    model = random_model(model_class, seed=seed, **config_overrides)
    model.save_pretrained(folder)
    random_processor(processor_class, model.config).save_pretrained(folder)


def random_model(
    model_class: type[PreTrainedModel] = AOTLlavaOnevisionForConditionalGeneration,
    *,
    seed: int = 0,
    **config_overrides: Any,
) -> PreTrainedModel:
    """Builds a model with seeded random weights; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = model_class(random_config(model_class.config_class, **config_overrides))
    model.generation_config = random_generation_config()
    return model.eval()


def random_config(config_class: type, **overrides: Any):
    """Builds a small config.

    Args:
        config_class: `AOTLlavaOnevisionConfig` or the stock `LlavaOnevisionConfig`.
        overrides: fields to change. `vision_config` and `text_config` are merged with the default's
            field by field, so `vision_config={"image_size": 56}` keeps the rest of the tower.
    """
    fields = _fields()
    for name, value in overrides.items():
        fields[name] = {**fields[name], **value} if name in ("vision_config", "text_config") else value
    fields.setdefault("image_grid_pinpoints", _image_grid_pinpoints(fields["vision_config"]["image_size"]))
    return config_class(**fields)


def random_processor(processor_class: type, config):
    """Builds the processor that belongs to a model of this config."""
    shared = (
        "vision_feature_select_strategy",
        "vision_aspect_ratio",
        "retention_ratio",
        "num_clips",
        "mm_spatial_pool_mode",
        "mm_newline_position",
        "aot_newline_position",
    )
    side = config.vision_config.image_size
    size = {"height": side, "width": side}
    return processor_class(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=config.image_grid_pinpoints),
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        tokenizer=random_tokenizer(),
        num_image_tokens=(side // config.vision_config.patch_size) ** 2,
        **{name: getattr(config, name) for name in shared if hasattr(config, name)},
        chat_template=CHAT_TEMPLATE,
    )


def random_tokenizer() -> Qwen2Tokenizer:
    """Builds Qwen2's tokenizer without merges: a token is a byte or one of the special tokens."""
    # In this order the bytes have the numbers that they have in Qwen2's own vocabulary.
    tokens = [*sorted(ByteLevel.alphabet()), *SPECIAL_TOKENS]
    return Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>", "<image>", "<video>"],
        padding_side="left",
    )


def random_generation_config() -> GenerationConfig:
    """Builds the generation config: answers end where Qwen2's end."""
    tokenizer = random_tokenizer()
    return GenerationConfig(eos_token_id=_end_tokens(tokenizer), pad_token_id=tokenizer.pad_token_id)


def _end_tokens(tokenizer: Qwen2Tokenizer) -> list[int]:
    return tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])


def _fields() -> dict[str, Any]:
    tokenizer = random_tokenizer()
    return {
        "vision_config": {
            "model_type": "siglip_vision_model",
            "image_size": 384,
            "patch_size": 14,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 7,
            "num_attention_heads": 4,
            "vision_use_head": False,
        },
        "text_config": {
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            # Wide enough that what the model says depends on what it sees.
            "initializer_range": 0.2,
        },
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "video_token_index": tokenizer.convert_tokens_to_ids("<video>"),
        "tie_word_embeddings": False,
    }


def _image_grid_pinpoints(side: int) -> list[list[int]]:
    """The published checkpoints' grid of 6 x 6 tiles, for tiles of this side."""
    return [[rows * side, columns * side] for rows in range(1, 7) for columns in range(1, 7)]
