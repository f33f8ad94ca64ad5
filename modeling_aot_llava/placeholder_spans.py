"""Where the video placeholders of a prompt are: a video is a run of them, one for each of its tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor


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
            "expand it; in a later turn, leave out the pixels of videos that the cache holds already."
        )
    return [
        PlaceholderSpan(run.row, run.start + offset, each) for run in runs for offset in range(0, run.length, each)
    ]


def _find_runs(is_placeholder: Tensor) -> list[PlaceholderSpan]:
    columns = is_placeholder.int().cpu()
    borders = torch.diff(columns, dim=1, prepend=columns[:, :1] * 0, append=columns[:, :1] * 0)
    starts, ends = (borders == 1).nonzero().tolist(), (borders == -1).nonzero().tolist()
    return [PlaceholderSpan(row, start, end - start) for (row, start), (_, end) in zip(starts, ends)]
