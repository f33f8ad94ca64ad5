"""What a language model costs on a prompt, by the paper's cost model (Sec. 4.2, Eq. 17 and 18)."""


def prefill_flops(num_tokens: int, *, num_layers: int, hidden_size: int, intermediate_size: int) -> int:
    """Counts the FLOPs of reading n tokens (Eq. 17).

    T (4 n d^2 + 2 n^2 d + 2 n d m)
    """
    n, d, m = num_tokens, hidden_size, intermediate_size
    return num_layers * (4 * n * d**2 + 2 * n**2 * d + 2 * n * d * m)


def qwen2_prefill_flops(
    num_tokens: int, *, num_layers: int, hidden_size: int, intermediate_size: int, key_value_size: int
) -> int:
    """Counts the same as Qwen2 computes it: grouped key heads, whose width is k, and a gate in each MLP.

    T (2 n d (d + k) + 2 n^2 d + 3 n d m)
    """
    n, d, m = num_tokens, hidden_size, intermediate_size
    return num_layers * (2 * n * d * (d + key_value_size) + 2 * n**2 * d + 3 * n * d * m)


def decode_flops(
    num_tokens: int,
    num_generated: int,
    *,
    num_layers: int,
    hidden_size: int,
    intermediate_size: int,
) -> int:
    """Counts the FLOPs of writing R tokens after n (Eq. 18).

    T R ((4 d^2 + 2 d m) + 2 (d n + d (R + 1) / 2))
    """
    n, d, m, generated = num_tokens, hidden_size, intermediate_size, num_generated
    return num_layers * generated * (4 * d**2 + 2 * d * m + 2 * d * n + d * (generated + 1))


def count_flops(config, *, num_frames: int, num_tokens: int, decode_tokens: int, batch: int) -> dict[str, int]:
    """FLOPs of every part of reading videos and prompts of n tokens and of writing R tokens more.

    A layer of the vision tower has four square projections and an MLP of two matrices, as Eq. 17 counts, so tower and
    projector can be added to the language model's count.
    """
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
