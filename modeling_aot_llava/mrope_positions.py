"""Positions of kept tokens under multimodal rotary positions (M-RoPE): those that they have in the whole prompt.

No rule of a host is written here: its own is asked about the whole prompt, and the columns that are left are taken.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class WholePrompt:
    """The rows of a prompt with all video placeholders, left padded.

    Attributes:
        input_ids, attention_mask: (rows, columns).
        is_kept: (rows, columns) bool, the columns that are no padding and have a token.
    """

    input_ids: Tensor
    attention_mask: Tensor
    is_kept: Tensor


def modality_types(input_ids: Tensor, config) -> Tensor:
    """(rows, columns): 0 for text, 1 for an image's placeholders, 2 for a video's; the processor's
    `mm_token_type_ids`."""
    is_image, is_video = (input_ids == token for token in (config.image_token_id, config.video_token_id))
    return is_image.int() + 2 * is_video.int()


def positions_of_kept(
    whole: WholePrompt, attention_mask: Tensor | None, rule: Callable[..., tuple[Tensor, Tensor]], config, **grids
) -> tuple[Tensor, Tensor]:
    """The positions of the fitted prompt's columns.

    Args:
        whole: the prompt with all placeholders.
        attention_mask: (rows, columns) of the fitted prompt; None where nothing is padded.
        rule: the stock model's `get_rope_index`.
        grids: its further arguments, such as `image_grid_thw` and `video_grid_thw`.

    Returns:
        (3, rows, columns): time, height and width, 0 where a row is padded; and (rows, 1): what is added to a later
        column's number to get its position.
    """
    types = modality_types(whole.input_ids, config)
    positions, deltas = rule(whole.input_ids, types, attention_mask=whole.attention_mask, **grids)
    num_kept = whole.is_kept.sum(-1, keepdim=True)
    deltas = deltas + whole.attention_mask.sum(-1, keepdim=True) - num_kept
    if attention_mask is None:
        columns = int(num_kept[0])
        return positions[:, whole.is_kept].view(3, -1, columns), deltas
    fitted = torch.zeros(3, *attention_mask.shape, dtype=positions.dtype, device=positions.device)
    fitted[:, attention_mask.bool()] = positions[:, whole.is_kept]
    return fitted, deltas


def with_text_positions(positions: Tensor, attention_mask: Tensor | None) -> Tensor:
    """(4, rows, columns), as `generate` takes them: the columns' plain numbers in front."""
    if attention_mask is None:
        plain = torch.arange(positions.shape[-1], device=positions.device).expand(positions.shape[1:])
    else:
        plain = (attention_mask.long().cumsum(-1) - 1).masked_fill(attention_mask == 0, 0)
    return torch.cat([plain[None].to(positions), positions])
