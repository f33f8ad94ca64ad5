"""Newline tokens, written one after the other."""

import torch


def with_newlines_by_hand(tokens_of_frames, newline, position, side):
    """(n, D): the tokens of a video with LLaVA-Video's newlines among them.

    Args:
        tokens_of_frames: for each frame a dict from the place on the pooled grid to its token, (D,).
        newline: (D,).
        position: `mm_newline_position`.
        side: of the pooled grid.
    """
    rows = []
    for tokens in tokens_of_frames:
        for place in range(side * side):
            if place in tokens:
                rows.append(tokens[place])
            if position == "grid" and place % side == side - 1:
                rows.append(newline)
        if position == "frame":
            rows.append(newline)
    if position == "one_token":
        rows.append(newline)
    return torch.stack(rows)
