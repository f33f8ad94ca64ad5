"""Noise for training: each head of each layer misses some of the video tokens, though all of them are in the prompt.

Else a head may count on one token that stands for many, such as a frame's last one, and is blind where that one is
merged away. DropKey (Li et al., CVPR 2023) draws the keys that attention misses in the same way.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

KEY_DROPOUT = "key_dropout"
# Added to a score before the scaling by 1 / sqrt(d): nothing is left of it after the softmax.
OUT_OF_SIGHT = -1e4


def draw_hidden_keys(
    draw: np.random.Generator, clips: int, layers: int, heads: int, video_tokens: int, largest_share: float
) -> Tensor:
    """Draws a share for every clip, from 0 to the largest, and which video tokens each head misses.

    Returns:
        (C, layers, heads, T), True where a token is hidden.
    """
    share = draw.uniform(0, largest_share, (clips, 1, 1, 1))
    return torch.from_numpy(draw.random((clips, layers, heads, video_tokens)) < share)


def hidden_prompt_keys(hidden_video: Tensor, video_begins: int, prompt_tokens: int) -> Tensor:
    """The same for all tokens up to the newline; those that are no video are never hidden."""
    behind = prompt_tokens - video_begins - hidden_video.shape[-1]
    return functional.pad(hidden_video, (video_begins, behind))


def attention_with_hidden_keys(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    hidden_keys: Tensor | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """Attention of Transformers' kind, (C, heads, tokens, d), to all keys but the hidden ones.

    Args:
        hidden_keys: (C, layers, heads, n), of the first n keys; none by default.
    """
    if hidden_keys is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    hidden = hidden_keys[:, module.layer_idx]
    hidden = functional.pad(hidden, (0, key.shape[2] - hidden.shape[-1]))
    # As one more channel, not as a mask: without a mask the kernel still skips what causality hides.
    seen = (OUT_OF_SIGHT * hidden.to(key.dtype)).unsqueeze(-1)
    query, key = torch.cat([query, torch.ones_like(query[..., :1])], dim=-1), torch.cat([key, seen], dim=-1)
    padded_value = functional.pad(value, (0, 1))
    attended, _ = sdpa_attention_forward(module, query, key, padded_value, attention_mask, **kwargs)
    return attended[..., : value.shape[-1]], None


AttentionInterface.register(KEY_DROPOUT, attention_with_hidden_keys)
