"""Two attention heads that tell the time: nothing else in a prompt says when a frame was.

A clock's attention goes to the first two tokens of every prompt alone: the farther away they are, the more to the
first one, whose share goes into a direction of the output. So it depends on distances between positions, not on how
many tokens lie between. Two channels are left to these two tokens, that the clocks may know them.
"""

import math

import torch
from torch import Tensor, nn

# Heads of the lowest layer that are clocks, and at which distance from the prompt's start each is halfway.
HALVES = {2: 200, 3: 1200}
# In radians a token; below a quarter of a turn for the longest videos in training.
FREQUENCY = 4e-4
# What the two tokens' scores are above all others', what they differ by at the start, and how much of it is heard.
GRIP, SWING, REACH = 16.0, 4.0, 5.0


@torch.no_grad()
def start_with_clocks(model: nn.Module, first_tokens: tuple[int, int]) -> None:
    """Sets the weights of the clocks, and of the channels that they read."""
    _leave_channels_to(first_tokens, model)
    for head, distance in HALVES.items():
        _set_clock(model.language_model, head, distance)


def keep_clocks(model: nn.Module, first_tokens: tuple[int, int]) -> None:
    """Keeps what the clocks are made of out of the gradient; weight decay still shrinks it, by a sixth in a whole run.

    Single frames, which come first in training, have no use for them, and would make something else of them.
    """
    attention, projection = model.language_model.layers[0].self_attn, model.multi_modal_projector.linear_2
    embeddings = model.language_model.embed_tokens.weight
    kept: list[tuple[nn.Parameter, object]] = [
        *((weight, slice(2)) for weight in (projection.weight, projection.bias)),
        *((embeddings, part) for part in ((slice(None), slice(2)), *first_tokens)),
    ]
    for head in HALVES:
        rows = _rows(attention, head)
        kept += [(weight, rows) for weight in _inputs(attention)]
        kept.append((attention.o_proj.weight, (slice(None), rows)))
    for parameter, part in kept:
        changes = torch.ones_like(parameter)
        changes[part] = 0
        parameter.register_hook(lambda gradient, changes=changes: gradient * changes)


def _leave_channels_to(first_tokens: tuple[int, int], model: nn.Module) -> None:
    """One channel for each of the two tokens, which are nothing else; no other token and no video has them."""
    embeddings = model.language_model.embed_tokens.weight
    embeddings[:, :2] = 0
    for channel, token in enumerate(first_tokens):
        embeddings[token] = 0
        embeddings[token, channel] = embeddings.std() * math.sqrt(embeddings.shape[1])
    for weight in (model.multi_modal_projector.linear_2.weight, model.multi_modal_projector.linear_2.bias):
        weight[:2] = 0


def _set_clock(language_model: nn.Module, head: int, distance: float) -> None:
    attention = language_model.layers[0].self_attn
    width, size = language_model.config.hidden_size, attention.head_dim
    frequencies = language_model.rotary_emb.inv_freq
    hand = int((frequencies - FREQUENCY).abs().argmin())
    for weight in _inputs(attention):
        weight[_rows(attention, head)] = 0
    first, still = head * size, head * size + size // 2 - 1
    # The norm before the layer makes the two tokens' embeddings sqrt(width) long.
    unit = math.sqrt(size) / math.sqrt(width)
    # Scores: GRIP for the second token; for the first one as much at this distance, and less before.
    attention.q_proj.bias[first + hand] = 1
    attention.k_proj.weight[first + hand + size // 2, 0] = SWING / torch.sin(frequencies[hand] * distance) * unit
    # By the channel that the rotary embedding turns least.
    attention.q_proj.bias[still] = 1
    attention.k_proj.weight[still, 0] = (GRIP - SWING) * unit
    attention.k_proj.weight[still, 1] = GRIP * unit
    attention.v_proj.weight[first, 0] = 1 / math.sqrt(width)
    direction = torch.randn(width)
    attention.o_proj.weight[:, first] = REACH * direction / direction.norm()


def _rows(attention: nn.Module, head: int) -> slice:
    return slice(head * attention.head_dim, (head + 1) * attention.head_dim)


def _inputs(attention: nn.Module) -> list[Tensor]:
    layers = (attention.q_proj, attention.k_proj, attention.v_proj)
    return [weight for layer in layers for weight in (layer.weight, layer.bias)]
