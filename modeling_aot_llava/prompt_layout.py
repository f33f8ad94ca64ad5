"""Where a prompt's video placeholders are, and the prompt with another number of them.

A video stands in the token sequence as a run of placeholders, one for each of its tokens. Where the number of tokens
turns out different from the number of placeholders, the rows of a batch change their lengths and are padded anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PADDING = -1


@dataclass(frozen=True)
class PlaceholderSpan:
    """The placeholders of one video: `length` of them from column `start` of a row."""

    row: int
    start: int
    length: int


def find_placeholder_spans(is_placeholder: Tensor, num_videos: int) -> list[PlaceholderSpan]:
    """The placeholders of each video, in the order of the videos: row by row.

    Each run of placeholders belongs to one video. Where there are fewer runs than videos, some videos stand back to
    back in one run; then all videos have the same number of placeholders.

    Args:
        is_placeholder: (rows, columns) bool.
        num_videos: at least 1.

    Raises:
        ValueError: if the placeholders cannot be shared out among the videos.
    """
    runs = _find_runs(is_placeholder)
    if len(runs) == num_videos:
        return runs
    total = sum(run.length for run in runs)
    each, remainder = divmod(total, num_videos)
    if len(runs) > num_videos or remainder or each == 0 or any(run.length % each for run in runs):
        raise ValueError(
            f"The prompt has {total} video placeholders in {len(runs)} runs, which cannot be shared out among "
            f"{num_videos} videos. Write one video token a video into the prompt and let AOTLlavaOnevisionProcessor "
            "expand it."
        )
    return [
        PlaceholderSpan(run.row, run.start + offset, each) for run in runs for offset in range(0, run.length, each)
    ]


def resized_layout(attention_mask: Tensor, spans: Sequence[PlaceholderSpan], new_lengths: Sequence[int]) -> Tensor:
    """The columns that a batch's rows consist of once each video has its new number of placeholders.

    The padding around the old rows is dropped; the new rows are padded on the same side: on the right where the old
    batch was, else on the left, as generation needs it.

    Args:
        attention_mask: (rows, columns), 0 where the prompt is padded.
        spans: the placeholders of each video.
        new_lengths: how many placeholders each video shall have, at least 1.

    Returns:
        (rows, new columns) indices into the old columns, `PADDING` where the new rows are padded.
    """
    mask = attention_mask.bool().cpu()
    pads_on_the_right = bool((~mask[:, -1]).any())
    rows = []
    for row, row_mask in enumerate(mask):
        resizes = [(span, length) for span, length in zip(spans, new_lengths) if span.row == row]
        rows.append(_resized_row(row_mask, resizes))
    width = max(len(row) for row in rows)
    padded = [
        row + [PADDING] * (width - len(row)) if pads_on_the_right else [PADDING] * (width - len(row)) + row
        for row in rows
    ]
    return torch.tensor(padded, device=attention_mask.device)


def take_columns(values: Tensor, layout: Tensor, padding: float) -> Tensor:
    """Lays (rows, columns, ...) out anew: (rows, new columns, ...), with `padding` where the layout has padding."""
    index = layout.clamp(min=0).to(values.device)
    rows = torch.arange(len(index), device=values.device).unsqueeze(1)
    is_padding = (layout == PADDING).to(values.device).view(*layout.shape, *[1] * (values.dim() - 2))
    return values.expand(len(index), *values.shape[1:])[rows, index].masked_fill(is_padding, padding)


def _find_runs(is_placeholder: Tensor) -> list[PlaceholderSpan]:
    columns = is_placeholder.int().cpu()
    borders = torch.diff(columns, dim=1, prepend=columns[:, :1] * 0, append=columns[:, :1] * 0)
    starts, ends = (borders == 1).nonzero().tolist(), (borders == -1).nonzero().tolist()
    return [PlaceholderSpan(row, start, end - start) for (row, start), (_, end) in zip(starts, ends)]


def _resized_row(mask: Tensor, resizes: list[tuple[PlaceholderSpan, int]]) -> list[int]:
    used = mask.nonzero().flatten().tolist()
    position, end = (used[0], used[-1] + 1) if used else (0, 0)
    columns: list[int] = []
    for span, length in resizes:
        columns.extend(range(position, span.start))
        columns.extend([span.start] * length)
        position = span.start + span.length
    columns.extend(range(position, end))
    return columns
