"""Where a prompt's video placeholders are, and the prompt with another number of them.

A video stands in the token sequence as a run of placeholders, one for each of its tokens. Where the number of tokens
turns out different from the number of placeholders, the rows of a batch change their lengths and are padded anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PADDING = -1
IGNORED_LABEL = -100


@dataclass(frozen=True)
class PlaceholderSpan:
    """The placeholders of one video: `length` of them from column `start` of a row."""

    row: int
    start: int
    length: int


@dataclass(frozen=True)
class Prompt:
    """What describes a prompt column by column; None where the caller passed nothing.

    Attributes:
        input_ids: (rows, columns).
        inputs_embeds: (rows, columns, hidden size).
        attention_mask: (rows, cached columns + columns), 0 where a row is padded; after a cache it also tells of the
            tokens there.
        position_ids: (rows, columns).
        labels: (rows, columns), each of its own token; `shift_labels`: the same of the token that follows.
    """

    input_ids: Tensor | None = None
    inputs_embeds: Tensor | None = None
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None
    labels: Tensor | None = None
    shift_labels: Tensor | None = None

    @property
    def num_columns(self) -> int:
        """Columns of the prompt, those in a cache not counted."""
        return (self.input_ids if self.inputs_embeds is None else self.inputs_embeds).shape[1]

    def has_labels_of(self, spans: Sequence["PlaceholderSpan"]) -> bool:
        """Whether placeholders of a video have labels that are not ignored."""
        if self.labels is None:
            return False
        labels = [self.labels[span.row, span.start : span.start + span.length] for span in spans]
        return bool((torch.cat(labels) != IGNORED_LABEL).any())

    def split_after(self, num_cached: int) -> tuple["Prompt", "Prompt"]:
        """The part that is in a cache, and the new part, whose mask still tells of both.

        A later turn may pass the whole conversation or, with a mask that is wider than it, the new part alone.
        """
        is_new_alone = self.attention_mask is not None and self.attention_mask.shape[-1] > self.num_columns
        start = 0 if is_new_alone else num_cached

        def take(columns: slice) -> dict[str, Tensor | None]:
            parts = {name: getattr(self, name) for name in ("input_ids", "inputs_embeds", "position_ids")}
            return {name: None if values is None else values[:, columns] for name, values in parts.items()}

        return Prompt(**take(slice(start))), Prompt(**take(slice(start, None)), attention_mask=self.attention_mask)

    def behind(self, cached: "Prompt") -> "Prompt":
        """The whole prompt again: the inverse of `split_after`."""

        def join(first: Tensor | None, second: Tensor | None) -> Tensor | None:
            return second if first is None or second is None else torch.cat([first, second], dim=1)

        return replace(
            self,
            input_ids=join(cached.input_ids, self.input_ids),
            inputs_embeds=join(cached.inputs_embeds, self.inputs_embeds),
            position_ids=join(cached.position_ids, self.position_ids),
        )

    def instead_of(self, other: "Prompt", sequences: Tensor) -> Tensor:
        """Generated sequences that begin with this prompt instead of the other, from which they were generated.

        sequences: (sequences, columns of the other + new columns); beams and samples of a row follow each other.
        """
        if self.input_ids is None:  # from embeddings alone: nothing stands before the new tokens
            return sequences
        prompts = self.input_ids.repeat_interleave(len(sequences) // len(self.input_ids), dim=0)
        return torch.cat([prompts.to(sequences), sequences[:, other.input_ids.shape[1] :]], dim=1)

    def with_lengths(
        self, spans: Sequence[PlaceholderSpan], new_lengths: Sequence[int], pad_token_id: int
    ) -> "Prompt":
        """The prompt with another number of placeholders for each video; see `resized_layout`.

        Raises:
            ValueError: if mask, labels or positions do not describe the columns one by one, or the mask is missing
                where the rows need new padding.
        """
        self._check_widths()
        whole_mask = self._checked_mask()
        cached_mask, mask = whole_mask[:, : -self.num_columns], whole_mask[:, -self.num_columns :]
        layout = resized_layout(mask, spans, new_lengths)
        if self.attention_mask is None and bool((layout == PADDING).any()):
            raise ValueError(
                "`attention_mask` is None, but the rows of the batch get different lengths as their video "
                "placeholders are fitted: pass the mask that the processor returned, or make the prompt with "
                "AOTLlavaOnevisionProcessor."
            )
        new_mask = None if self.attention_mask is None else torch.cat([cached_mask, take_columns(mask, layout, 0)], 1)
        return Prompt(
            input_ids=_take(self.input_ids, layout, pad_token_id),
            inputs_embeds=_take(self.inputs_embeds, layout, 0),
            attention_mask=new_mask,
            position_ids=_without_removed(self.position_ids, mask, layout),
            labels=_take(self.labels, layout, IGNORED_LABEL),
            shift_labels=_take(self.shift_labels, layout, IGNORED_LABEL),
        )

    def _check_widths(self) -> None:
        for name in ("labels", "shift_labels", "position_ids"):
            values = getattr(self, name)
            if values is not None and values.shape[-1] != self.num_columns:
                raise ValueError(
                    f"`{name}` has {values.shape[-1]} columns, but the prompt, whose number of video placeholders "
                    f"changes here, has {self.num_columns}: pass one value a column, or make the prompt with "
                    "AOTLlavaOnevisionProcessor."
                )

    def _checked_mask(self) -> Tensor:
        values = self.input_ids if self.inputs_embeds is None else self.inputs_embeds
        if self.attention_mask is None:
            return torch.ones(values.shape[:2], dtype=torch.long, device=values.device)
        if not isinstance(self.attention_mask, Tensor) or self.attention_mask.dim() != 2:
            shape = getattr(self.attention_mask, "shape", type(self.attention_mask).__name__)
            raise ValueError(
                f"`attention_mask` is {tuple(shape) if isinstance(shape, torch.Size) else shape}, but the number of "
                "video placeholders changes here, which needs a mask of (rows, columns): make the prompt with "
                "AOTLlavaOnevisionProcessor."
            )
        return self.attention_mask


def find_placeholder_spans(
    is_placeholder: Tensor, num_videos: int, implied_counts: Callable[[int], Sequence[int]] | None = None
) -> list[PlaceholderSpan]:
    """The placeholders of each video, in the order of the videos: row by row.

    Each run of placeholders belongs to one video. Where there are fewer runs than videos, some videos stand back to
    back in one run. They are told apart by the counts that their frames imply; without those, all videos have the same
    number of placeholders.

    Args:
        is_placeholder: (rows, columns) bool.
        num_videos: at least 1.
        implied_counts: gives each video's count, of the number of all placeholders.

    Raises:
        ValueError: if the placeholders cannot be shared out among the videos.
    """
    runs = _find_runs(is_placeholder)
    if len(runs) == num_videos:
        return runs
    total = sum(run.length for run in runs)
    counts = _equal_counts(total, num_videos) if implied_counts is None else implied_counts(total)
    spans = None if counts is None else _share_out(runs, counts)
    if spans is None:
        lengths = ", ".join(str(run.length) for run in runs) or "none"
        implied = f" of {', '.join(map(str, counts))} placeholders, as their frames imply" if implied_counts else ""
        raise ValueError(
            f"The prompt has {total} video placeholders in {len(runs)} runs ({lengths}), which cannot be shared out "
            f"among {num_videos} videos{implied}. Write one video token a video into the prompt and let "
            "AOTLlavaOnevisionProcessor expand it; in a later turn, leave out the pixels of videos that the cache "
            "holds already."
        )
    return spans


def tokens_to_keep(
    spans: Sequence[PlaceholderSpan], num_frames: Sequence[int], config, is_asked_for: bool
) -> list[int | None]:
    """B of each video as the prompt has it, newline tokens not counted; None where the config's ratio decides.

    Args:
        spans: the placeholders of each video.
        num_frames: F of each video.
        config: an `AOTLlavaOnevisionConfig`.
        is_asked_for: whether the full count asks for all tokens; else it is the stock processor's.

    Raises:
        ValueError: if a video has too few placeholders for its newline tokens, or more than its frames can fill.
    """
    kept: list[int | None] = []
    for video, (span, frames) in enumerate(zip(spans, num_frames)):
        num_newlines = config.count_newlines(frames, is_compressed=True)
        all_tokens = frames * config.pooled_grid_size**2
        full_count = all_tokens + config.count_newlines(frames, is_compressed=False)
        if not num_newlines < span.length <= full_count:
            raise ValueError(
                f"The prompt has {span.length} placeholders for video {video}, but its {frames} frames give from "
                f"{num_newlines + 1} to {full_count} (newline tokens included). Make prompt and pixels with one call "
                "of AOTLlavaOnevisionProcessor."
            )
        if span.length == full_count:
            kept.append(all_tokens if is_asked_for else None)
        else:
            kept.append(span.length - num_newlines)
    return kept


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


def _take(values: Tensor | None, layout: Tensor, padding: float) -> Tensor | None:
    return None if values is None else take_columns(values, layout, padding)


def _without_removed(positions: Tensor | None, mask: Tensor, layout: Tensor) -> Tensor | None:
    """Positions that advance from column to column as they did in the old rows.

    So removed placeholders leave no gap, gaps of the caller's own stay, and where the positions begin again, as in
    packed rows, they do so here.
    """
    if positions is None:
        return None
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


def _equal_counts(total: int, num_videos: int) -> list[int] | None:
    each, remainder = divmod(total, num_videos)
    return None if remainder or each == 0 else [each] * num_videos


def _share_out(runs: Sequence[PlaceholderSpan], counts: Sequence[int]) -> list[PlaceholderSpan] | None:
    """The videos one after the other, each within one run; None if they do not fill all runs."""
    spans, left = [], list(reversed(counts))
    for run in runs:
        start, end = run.start, run.start + run.length
        while start < end:
            if not left or start + left[-1] > end:
                return None
            spans.append(PlaceholderSpan(run.row, start, left[-1]))
            start += left.pop()
    return None if left else spans


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
        span_end = span.start + span.length
        columns.extend(range(position, span.start))
        columns.extend(max(span.start, column) for column in range(span_end - length, span_end))
        position = span_end
    columns.extend(range(position, end))
    return columns
