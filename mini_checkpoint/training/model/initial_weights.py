"""How the weights begin: attention that looks in useful places, which random weights take thousands of steps to find.

Only the beginning: all of it is free to change.
"""

import math

import torch
from torch import Tensor, nn

# Wavelengths of the position embeddings, in patches.
SHORTEST_WAVE, LONGEST_WAVE = 4.0, 108.0
# Whom the heads of the lower layers look at first, (down, right) in patches, and how exclusively.
NEIGHBOURS = ((0, 1), (1, 0), (0, 0), (0, -1), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1), (0, 2), (2, 0), (0, 0))
NEIGHBOUR_SHARPNESS = 2.5
RESIDUAL_SCALE = 0.5
# How exclusively the language model's first head looks at the token before.
PREVIOUS_TOKEN_SHARPNESS = 6.0


@torch.no_grad()
def start_like_a_convolution(vision_tower: nn.Module) -> None:
    """Lets patches of the vision tower look at their neighbours.

    The first channels, as many as a head has, are left to the position alone, in sines and cosines. A head of the
    lower layers begins by comparing these channels after turning the query's by one neighbour's offset, so that it
    attends to that neighbour.
    """
    width = vision_tower.config.hidden_size
    channels = width // vision_tower.config.num_attention_heads
    grid = vision_tower.config.image_size // vision_tower.config.patch_size
    frequencies = _frequencies(channels // 4)
    embeddings = vision_tower.embeddings
    embeddings.position_embedding.weight.zero_()
    embeddings.position_embedding.weight[:, : 4 * len(frequencies)] = _sines_and_cosines(grid, frequencies)
    embeddings.patch_embedding.weight[:channels] = 0
    for layer in vision_tower.encoder.layers:
        for branch in (layer.self_attn.out_proj, layer.mlp.fc2):
            branch.weight *= RESIDUAL_SCALE
            branch.weight[:channels] = 0
    offsets = iter(NEIGHBOURS)
    for layer in vision_tower.encoder.layers:
        attention = layer.self_attn
        for head in range(vision_tower.config.num_attention_heads):
            rows = slice(head * channels, (head + 1) * channels)
            offset = next(offsets, None)
            if offset is None:
                # Elsewhere patches attend to those that are like them.
                attention.k_proj.weight[rows] = attention.q_proj.weight[rows]
                continue
            for projection, (down, right) in ((attention.q_proj, offset), (attention.k_proj, (0, 0))):
                turn = torch.block_diag(*_turns(down * frequencies), *_turns(right * frequencies))
                projection.weight[rows] = 0
                projection.weight[rows, : len(turn)][: len(turn)] = NEIGHBOUR_SHARPNESS * turn


@torch.no_grad()
def start_with_matching(language_model: nn.Module) -> None:
    """Lets tokens of the language model look at tokens that are like them, and its first head at the token before.

    So "red circle" soon finds tokens of the video that show one.
    """
    for layer in language_model.layers:
        attention = layer.self_attn
        nn.init.xavier_uniform_(attention.q_proj.weight)
        attention.k_proj.weight.copy_(attention.q_proj.weight[: len(attention.k_proj.weight)])
    first = language_model.layers[0].self_attn
    half = first.head_dim // 2
    # A constant query and key, of which the rotary embedding makes a function of the distance, greatest at one step.
    step = language_model.rotary_emb.inv_freq
    first.q_proj.weight[: 2 * half] = 0
    first.k_proj.weight[: 2 * half] = 0
    first.q_proj.bias[: 2 * half] = PREVIOUS_TOKEN_SHARPNESS * torch.cat([step.cos(), -step.sin()])
    first.k_proj.bias[: 2 * half] = PREVIOUS_TOKEN_SHARPNESS * torch.cat([torch.ones(half), torch.zeros(half)])


def _frequencies(count: int) -> Tensor:
    """(count,), in radians a patch; wavelengths from neighbours to four times the frame."""
    steps = torch.arange(count) / max(1, count - 1)
    return 2 * math.pi / (SHORTEST_WAVE * (LONGEST_WAVE / SHORTEST_WAVE) ** steps)


def _sines_and_cosines(grid: int, frequencies: Tensor) -> Tensor:
    """(grid * grid, 4 * len(frequencies)): cosine and sine of each for the row, then for the column."""
    angles = torch.arange(grid).unsqueeze(1) * frequencies
    axis = torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(1)
    rows = axis.unsqueeze(1).expand(-1, grid, -1)
    columns = axis.unsqueeze(0).expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def _turns(angles: Tensor) -> list[Tensor]:
    """Rotations of (cosine, sine) by these angles."""
    return [torch.stack([torch.stack([a.cos(), -a.sin()]), torch.stack([a.sin(), a.cos()])]) for a in angles]
