"""The mini model: stock classes, small layers, AOT's patch grid."""

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    Qwen2Tokenizer,
)

from mini_checkpoint.questions import SIDE
from mini_checkpoint.training.recipe import Shape

from .clock_heads import start_with_clocks
from .conversations import first_tokens
from .initial_weights import start_like_a_convolution, start_with_matching
from .prompt_format import CHAT_TEMPLATE

PATCH = 8
GRID = SIDE // PATCH
LONGEST_PROMPT = 8192
# As Qwen2 has it: half of the channels compare tokens by what they are, however far apart they stand.
ROPE_THETA = 1e6


def build_model(shape: Shape, tokenizer: Qwen2Tokenizer, seed: int) -> LlavaOnevisionForConditionalGeneration:
    """Builds the untrained model; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = LlavaOnevisionForConditionalGeneration(_config(shape, tokenizer))
        start_like_a_convolution(model.model.vision_tower)
        start_with_matching(model.model.language_model)
        start_with_clocks(model.model, first_tokens(tokenizer))
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]),
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def build_processor(tokenizer: Qwen2Tokenizer, config: LlavaOnevisionConfig) -> LlavaOnevisionProcessor:
    """Builds the processor that belongs to the model."""
    size = {"height": SIDE, "width": SIDE}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=config.image_grid_pinpoints),
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        tokenizer=tokenizer,
        num_image_tokens=GRID**2,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        vision_aspect_ratio=config.vision_aspect_ratio,
        chat_template=CHAT_TEMPLATE,
    )


def normalise(frames: Tensor) -> Tensor:
    """Pixels as the processor hands them to the model: (..., SIDE, SIDE, 3) uint8 -> (..., 3, SIDE, SIDE) float."""
    mean = torch.tensor(LlavaOnevisionVideoProcessor.image_mean, device=frames.device)
    deviation = torch.tensor(LlavaOnevisionVideoProcessor.image_std, device=frames.device)
    return ((frames.float() / 255 - mean) / deviation).movedim(-1, -3)


def tower_output(vision_tower: nn.Module, pixels: Tensor, patches: Tensor | None = None) -> Tensor:
    """What the projector reads: the last layer's output, before the tower's final norm.

    Args:
        pixels: (F, 3, SIDE, SIDE), normalised.
        patches: (F, n), the only patches that the tower sees; all of them by default.

    Returns:
        (F, n, D).
    """
    hidden = vision_tower.embeddings(pixels)
    if patches is not None:
        hidden = hidden.gather(1, patches.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
    return vision_tower.encoder(inputs_embeds=hidden).last_hidden_state


def _config(shape: Shape, tokenizer: Qwen2Tokenizer) -> LlavaOnevisionConfig:
    image, video = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
    return LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "image_size": SIDE,
            "patch_size": PATCH,
            "hidden_size": shape.vision_width,
            "intermediate_size": shape.vision_mlp,
            "num_hidden_layers": shape.vision_layers,
            "num_attention_heads": shape.vision_heads,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "hidden_size": shape.text_width,
            "intermediate_size": shape.text_mlp,
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": shape.text_heads,
            "num_key_value_heads": shape.text_heads,
            "max_position_embeddings": LONGEST_PROMPT,
            "initializer_range": 0.05,
            "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        },
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_token_index=image,
        video_token_index=video,
        image_grid_pinpoints=[[rows * SIDE, columns * SIDE] for rows in range(1, 7) for columns in range(1, 7)],
        tie_word_embeddings=False,
    )
