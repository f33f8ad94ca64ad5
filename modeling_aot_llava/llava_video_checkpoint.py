"""Runs on loading LLaVA-Video's original checkpoints (`lmms-lab/LLaVA-Video-7B-Qwen2`): in transformers' terms.

They were saved by LLaVA-NeXT: one flat config for language model, vision tower and video path, other names of the
weights, no processor. What is read here is read as it lies; no file is converted. Standard library alone, so that
`hub_upload` can use it without torch.
"""

from typing import Any

# Name in the file -> name in the model, as regular expressions. No name of LLaVA-OneVision matches any of them.
KEY_RENAMINGS = {
    r"^model\.vision_tower\.vision_tower\.vision_model\.": "model.vision_tower.",
    r"^model\.mm_projector\.0\.": "model.multi_modal_projector.linear_1.",
    r"^model\.mm_projector\.2\.": "model.multi_modal_projector.linear_2.",
    r"^model\.(embed_tokens|layers|norm)\.": r"model.language_model.\1.",
}

IMAGE_TOKEN_ID, VIDEO_TOKEN_ID = 151646, 151647
NUM_FRAMES = 64
SO400M = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    # The tower has 27; LLaVA-NeXT deletes the last, and reads what the last but one returns.
    "num_hidden_layers": 26,
    "patch_size": 14,
    "vision_use_head": False,
}

# conv_qwen of LLaVA-NeXT, with the placeholders of images and videos before the text of their turn.
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] if part['type'] in ('image', 'video') %}"
    "{{ '<' + part['type'] + '>\n' }}"
    "{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_TEXT_FIELDS = (
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "max_window_layers",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "use_cache",
    "use_sliding_window",
    "vocab_size",
)
_MODEL_TYPES = ("llava", "llava_qwen")
# Field -> the values that this package computes as LLaVA-NeXT does; an absent field is fine.
_SUPPORTED = {
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_spatial_pool_stride": (2, None),
    "add_faster_video": (False, None),
    "mm_resampler_type": ("spatial_pool", None),
    "mm_patch_merge_type": ("spatial_unpad", None),
}


def is_original(config: dict[str, Any]) -> bool:
    """Whether a config file is one that LLaVA-NeXT wrote."""
    return config.get("model_type") in _MODEL_TYPES and "mm_vision_tower" in config


def config_of_original(flat: dict[str, Any]) -> dict[str, Any]:
    """The fields of an `AOTLlavaOnevisionConfig`, `model_type` left out, of a flat config.

    Raises:
        ValueError: if the checkpoint has what this package does not compute; the message names the field.
    """
    _check_supported(flat)
    fields = {
        "text_config": {"model_type": "qwen2", **{name: flat[name] for name in _TEXT_FIELDS if name in flat}},
        "vision_config": dict(SO400M),
        "image_token_index": IMAGE_TOKEN_ID,
        "video_token_index": VIDEO_TOKEN_ID,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": flat.get("image_aspect_ratio") or "anyres_max_9",
        "tie_word_embeddings": flat.get("tie_word_embeddings", False),
    }
    as_they_are = ("image_grid_pinpoints", "mm_spatial_pool_mode", "mm_newline_position", "torch_dtype", "dtype")
    return {**fields, **{name: flat[name] for name in as_they_are if flat.get(name) is not None}}


def processor_config_of_original(flat: dict[str, Any]) -> dict[str, Any]:
    """The fields of an `AOTLlavaOnevisionProcessor`, its image and video processor included."""
    config = config_of_original(flat)
    pixels = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": SO400M["image_size"], "width": SO400M["image_size"]},
    }
    pinpoints = {name: config[name] for name in ("image_grid_pinpoints",) if name in config}
    as_they_are = ("mm_spatial_pool_mode", "mm_newline_position")
    return {
        "image_processor": {
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "do_pad": True,
            **pixels,
            **pinpoints,
        },
        "video_processor": {"video_processor_type": "LlavaOnevisionVideoProcessor", **pixels},
        "num_image_tokens": (SO400M["image_size"] // SO400M["patch_size"]) ** 2,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": config["vision_aspect_ratio"],
        "num_frames": NUM_FRAMES,
        "add_time_instruction": bool(flat.get("add_time_instruction", False)),
        **{name: config[name] for name in as_they_are if name in config},
    }


def _check_supported(flat: dict[str, Any]) -> None:
    tower = flat["mm_vision_tower"]
    if not isinstance(tower, str) or not tower.endswith("siglip-so400m-patch14-384"):
        raise ValueError(
            f"`mm_vision_tower` is {tower!r}, but of LLaVA-NeXT's checkpoints those with the tower "
            "google/siglip-so400m-patch14-384 are supported, such as lmms-lab/LLaVA-Video-7B-Qwen2."
        )
    architecture = next(iter(flat.get("architectures") or ["LlavaQwenForCausalLM"]))
    if architecture != "LlavaQwenForCausalLM":
        raise ValueError(
            f"`architectures` is [{architecture!r}], but of LLaVA-NeXT's checkpoints those with Qwen2 as language "
            "model (LlavaQwenForCausalLM) are supported."
        )
    for name, supported in _SUPPORTED.items():
        if name in flat and flat[name] not in supported:
            allowed = " or ".join(repr(value) for value in supported)
            raise ValueError(f"`{name}` is {flat[name]!r}, which is not supported: it must be {allowed}.")
    pinpoints = flat.get("image_grid_pinpoints")
    if pinpoints is not None and not isinstance(pinpoints, list):
        raise ValueError(f"`image_grid_pinpoints` is {pinpoints!r}, but it must be a list of [height, width].")
