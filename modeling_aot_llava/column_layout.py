"""Runs where a prompt is fitted to its videos: the batch's columns, whose rows change lengths and are padded anew."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .placeholder_spans import PlaceholderSpan

PADDING = -1


def resized_layout(attention_mask: Tensor, spans: Sequence[PlaceholderSpan], new_lengths: Sequence[int]) -> Tensor:
    """The columns that a batch's rows consist of once each video has its new number of placeholders.

    The padding around the old rows is dropped; the new rows are padded on the same side: on the right where one of the
    old ones was, else on the left, as generation needs it. Rows without any token tell no side. Of a video's columns
    the last ones stay, so that what is said of the token after a column (`shift_labels`) is still true.

    Args:
        attention_mask: (rows, columns), 0 where the prompt is padded.
        spans: the placeholders of each video.
        new_lengths: how many placeholders each video shall have, at least 1.

    Returns:
        (rows, new columns) indices into the old columns, `PADDING` where the new rows are padded.
    """
    mask = attention_mask.bool().cpu()
    pads_on_the_right = bool((mask[:, 0] & ~mask[:, -1]).any())
    rows = []
    for row, row_mask in enumerate(mask):
        resizes = [(span, length) for span, length in zip(spans, new_lengths) if span.row == row]
        rows.append(_resized_row(row_mask, resizes))
    width = max(len(row) for row in rows)
    padded = [
        row + [PADDING] * (width - len(row)) if pads_on_the_right else [PADDING] * (width - len(row)) + row
        for row in rows
    ]
    return torch.tensor(padded, dtype=torch.long, device=attention_mask.device)


def take_columns(values: Tensor, layout: Tensor, padding: float) -> Tensor:
    """Lays (rows, columns, ...) out anew: (rows, new columns, ...), with `padding` where the layout has padding."""
    index = layout.clamp(min=0).to(values.device)
    rows = torch.arange(len(index), device=values.device).unsqueeze(1)
    is_padding = (layout == PADDING).to(values.device).view(*layout.shape, *[1] * (values.dim() - 2))
    return values.expand(len(index), *values.shape[1:])[rows, index].masked_fill(is_padding, padding)


def take_positions(positions: Tensor, mask: Tensor, layout: Tensor) -> Tensor:
    """Positions (rows, columns) that advance from column to column as they did in the old rows.

    So removed placeholders leave no gap, gaps of the caller's own stay, and where the positions begin again, as in
    packed rows, they do so here.
    """
    rows = []
    old_rows = positions.expand(len(mask), -1).tolist()
    for old, is_used, columns in zip(old_rows, mask.bool().tolist(), layout.tolist()):
        first = old[is_used.index(True)] if any(is_used) else 0
        row: list[int] = []
        before = PADDING
        for column in columns:
            if column == PADDING:
                row.append(max(0, first - 1) if before == PADDING else row[-1])
                continue
            if before == PADDING:
                row.append(first)
            elif column == before:  # a placeholder more than the old row has
                row.append(row[-1] + 1)
            else:
                step = old[before + 1] - old[before]
                row.append(row[-1] + step if step >= 0 else old[before + 1])
            before = column
        rows.append(row)
    return torch.tensor(rows, dtype=positions.dtype, device=positions.device)


def _resized_row(mask: Tensor, resizes: list[tuple[PlaceholderSpan, int]]) -> list[int]:
    used = mask.nonzero().flatten().tolist()
    position, end = (used[0], used[-1] + 1) if used else (0, 0)
    columns: list[int] = []
    for span, length in resizes:
        span_end = span.start + span.length
        columns.extend(range(position, span.start))
        columns.extend(max(span.start, column) for column in range(span_end - length, span_end))
        position = span_end
    columns.extend(range(position, end))
    return columns
