"""FLOPs of every part of a prompt, and the speed-up that they allow.

Counted as the paper counts (Eq. 17): a multiply-add is one FLOP, a layer has four square projections and an MLP of two
matrices. So the vision tower and the projector can be added to the language model's count.
"""

from modeling_aot_llava.cost_model import decode_flops, prefill_flops


def count_flops(config, *, num_frames: int, num_tokens: int, decode_tokens: int, batch: int) -> dict[str, int]:
    """FLOPs of reading videos and prompts of n tokens and of writing R tokens more."""
    vision, text = config.vision_config, config.text_config
    patches = config.patch_grid_size**2
    patch_embedding = patches * vision.hidden_size * vision.num_channels * vision.patch_size**2
    tower = num_frames * (patch_embedding + prefill_flops(patches, **_layers(vision)))
    projector = num_frames * patches * text.hidden_size * (vision.hidden_size + text.hidden_size)
    prefill = prefill_flops(num_tokens, **_layers(text))
    parts = {
        "vision_tower": tower,
        "projector": projector,
        "prefill": prefill,
        "first_token": tower + projector + prefill,
        "decode": decode_flops(num_tokens, decode_tokens, **_layers(text)),
    }
    return {name: batch * flops for name, flops in parts.items()}


def _layers(config) -> dict[str, int]:
    return {
        "num_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
    }
