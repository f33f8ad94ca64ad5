"""Runs in each call with videos: where their placeholders are, a run for each video, one for each of its tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PlaceholderSpan:
    """The placeholders of one video: `length` of them from column `start` of a row."""

    row: int
    start: int
    length: int


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
