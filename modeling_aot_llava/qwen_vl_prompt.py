"""Runs where a Qwen-VL prompt is fitted to its videos: placeholders as many as tokens, columns of the whole video.

The whole prompt has a placeholder for every token that the stock model would have. Which of its columns are left is
what tells the kept tokens' positions (mrope_positions).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .mrope_positions import WholePrompt
from .placeholder_spans import PlaceholderSpan
from .prompt import IGNORED_LABEL, Prompt


def find_spans(
    input_ids: Tensor, config, grids: Sequence[tuple[int, int, int]], has_span_a_frame: bool
) -> list[list[PlaceholderSpan]]:
    """The placeholders of each video: one run, or one run a frame.

    A run a frame stands between `vision_start` and `vision_end`, and may be empty.

    Args:
        input_ids: (rows, columns).
        config: an AOT config of the family.
        grids: frames, height and width of each video.

    Raises:
        ValueError: if there are not as many runs as the videos have.
    """
    spans = [
        span
        for row, ids in enumerate(input_ids.cpu())
        for span in (_framed_runs(row, ids, config) if has_span_a_frame else _runs(row, ids, config))
    ]
    counts = [grid[0] if has_span_a_frame else 1 for grid in grids]
    num_placeholders = int((input_ids == config.video_token_id).sum())
    if len(spans) != sum(counts) or sum(span.length for span in spans) != num_placeholders:
        what = "frames" if has_span_a_frame else "videos"
        raise ValueError(
            f"The prompt has {num_placeholders} video placeholders in {len(spans)} runs, but the call's videos are "
            f"{sum(counts)} {what}: make prompt and videos with one call of the processor."
        )
    rest = iter(spans)
    return [[next(rest) for _ in range(count)] for count in counts]


def _runs(row: int, ids: Tensor, config) -> list[PlaceholderSpan]:
    is_video = (ids == config.video_token_id).int()
    borders = torch.diff(is_video, prepend=is_video.new_zeros(1), append=is_video.new_zeros(1))
    starts, ends = ((borders == sign).nonzero().flatten().tolist() for sign in (1, -1))
    return [PlaceholderSpan(row, start, end - start) for start, end in zip(starts, ends)]


def _framed_runs(row: int, ids: Tensor, config) -> list[PlaceholderSpan]:
    others = (ids != config.video_token_id).nonzero().flatten()
    runs = []
    for start in ((ids == config.vision_start_token_id).nonzero().flatten() + 1).tolist():
        behind = others[others >= start]
        end = int(behind[0]) if len(behind) else len(ids)
        if end < len(ids) and ids[end] == config.vision_end_token_id:
            runs.append(PlaceholderSpan(row, start, end - start))
    return runs


def fit_prompt(
    written: Prompt, spans: Sequence[PlaceholderSpan], kept: Sequence[Tensor], video_token_id: int, pad_token_id: int
) -> tuple[Prompt, WholePrompt]:
    """The prompt with as many placeholders as tokens, and the whole one that it is a part of.

    Args:
        written: with ids; its mask, where there is one, is of (rows, columns).
        spans: the placeholders of all videos.
        kept: for each span (P,) bool, the tokens of the whole video that are left there.

    Returns:
        The prompt itself where each span has its number already, else one that is padded on the written one's side;
        labels of placeholders are then ignored.
    """
    ids = written.input_ids
    mask = torch.ones_like(ids) if written.attention_mask is None else written.attention_mask
    kept = [of_span.cpu() for of_span in kept]
    rows = [
        _whole_row(row_mask, [(span, of_span) for span, of_span in zip(spans, kept) if span.row == row])
        for row, row_mask in enumerate(mask.bool().cpu())
    ]
    whole_columns, is_kept = _padded([columns for columns, _ in rows], False), [kept for _, kept in rows]
    width = whole_columns.shape[1]
    whole = WholePrompt(
        input_ids=_ids(ids, whole_columns, video_token_id, pad_token_id),
        attention_mask=(whole_columns != _PADDING).to(mask),
        is_kept=torch.stack([torch.nn.functional.pad(row, (width - len(row), 0)) for row in is_kept]).to(ids.device),
    )
    if [span.length for span in spans] == [int(of_span.sum()) for of_span in kept]:
        return written, whole
    pads_on_the_right = bool((mask[:, 0].bool() & ~mask[:, -1].bool()).any())
    columns = _padded([columns[row_kept] for columns, row_kept in rows], pads_on_the_right)
    has_padding = bool((columns == _PADDING).any())
    return replace(
        written,
        input_ids=_ids(ids, columns, video_token_id, pad_token_id),
        attention_mask=(columns != _PADDING).to(mask) if has_padding or written.attention_mask is not None else None,
        labels=None if written.labels is None else _taken(written.labels, columns, IGNORED_LABEL),
    ), whole


# What a column is where it is none of the written prompt's.
_PADDING, _VIDEO = -1, -2


def _whole_row(mask: Tensor, resizes: list[tuple[PlaceholderSpan, Tensor]]) -> tuple[Tensor, Tensor]:
    """For each column of the whole row, which column of the written row it is, and whether it is left."""
    columns = torch.arange(len(mask))
    parts, kept, position = [], [], 0
    for span, of_span in resizes:
        text = columns[position : span.start][mask[position : span.start]]
        parts += [text, torch.full((len(of_span),), _VIDEO)]
        kept += [torch.ones(len(text), dtype=torch.bool), of_span]
        position = span.start + span.length
    text = columns[position:][mask[position:]]
    return torch.cat([*parts, text]), torch.cat([*kept, torch.ones(len(text), dtype=torch.bool)])


def _padded(rows: list[Tensor], on_the_right: bool) -> Tensor:
    width = max(map(len, rows))
    sides = [(0, width - len(row)) if on_the_right else (width - len(row), 0) for row in rows]
    return torch.stack([torch.nn.functional.pad(row, side, value=_PADDING) for row, side in zip(rows, sides)])


def _taken(values: Tensor, columns: Tensor, elsewhere: int) -> Tensor:
    columns = columns.to(values.device)
    return values.gather(1, columns.clamp(min=0)).masked_fill(columns < 0, elsewhere)


def _ids(ids: Tensor, columns: Tensor, video_token_id: int, pad_token_id: int) -> Tensor:
    columns = columns.to(ids.device)
    return _taken(ids, columns, pad_token_id).masked_fill(columns == _VIDEO, video_token_id)
