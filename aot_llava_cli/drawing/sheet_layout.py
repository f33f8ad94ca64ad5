"""Where the frames stand on a contact sheet: clip after clip, on lines of 8 frames, of many frames of 16."""

from collections.abc import Sequence
from dataclasses import dataclass

# Everything in pixels.
WIDTH = 3600
WIDTH_OF_FEW = 1800
LARGEST_CELL = 420
MARGIN = 32
CLIP_GAP = 16
CLIP_PADDING = 12
FRAME_GAP = 8

# So that a frame is as large as eight on a line of the narrower sheet, however many there are.
COLUMNS = 8
COLUMNS_OF_MANY = 16
MANY_FRAMES = 65


@dataclass(frozen=True)
class Run:
    """Consecutive frames of one clip that stand on one line."""

    clip: int
    frames: range


@dataclass(frozen=True)
class SheetLayout:
    """What stands on each line, and the (width, height) of a frame."""

    lines: tuple[tuple[Run, ...], ...]
    cell: tuple[int, int]

    @property
    def width(self) -> int:
        """Of the sheet."""
        return 2 * MARGIN + max(_bare_width(line) + _num_frames(line) * self.cell[0] for line in self.lines)

    def run_width(self, run: Run) -> int:
        """Of a run with the padding around it."""
        return _bare_width([run]) + len(run.frames) * self.cell[0]


def lay_out(clip_lengths: Sequence[int], aspect_ratio: float) -> SheetLayout:
    """Makes the frames as large as the sheet is wide enough for.

    Args:
        clip_lengths: frames of each clip.
        aspect_ratio: a frame's width by its height.
    """
    has_many = sum(clip_lengths) >= MANY_FRAMES
    lines = _break_lines(clip_lengths, COLUMNS_OF_MANY if has_many else COLUMNS)
    width = WIDTH if has_many else WIDTH_OF_FEW
    room = min((width - 2 * MARGIN - _bare_width(line)) // _num_frames(line) for line in lines)
    side = min(room, LARGEST_CELL)
    return SheetLayout(
        lines=lines,
        cell=(max(1, round(side * min(1.0, aspect_ratio))), max(1, round(side / max(1.0, aspect_ratio)))),
    )


def _break_lines(clip_lengths: Sequence[int], columns: int) -> tuple[tuple[Run, ...], ...]:
    """Keeps clips whole, unless they are longer than a line: these fill up the line that they begin on."""
    lines: list[list[Run]] = [[]]
    first = 0
    for clip, length in enumerate(clip_lengths):
        rest = range(first, first + length)
        first += length
        if columns - _num_frames(lines[-1]) < length <= columns:
            lines.append([])
        while rest:
            if _num_frames(lines[-1]) == columns:
                lines.append([])
            room = columns - _num_frames(lines[-1])
            lines[-1].append(Run(clip, rest[:room]))
            rest = rest[room:]
    return tuple(map(tuple, lines))


def _num_frames(line: Sequence[Run]) -> int:
    return sum(len(run.frames) for run in line)


def _bare_width(line: Sequence[Run]) -> int:
    """What is not covered by frames between the left and the right end of a line."""
    gaps_in_clips = sum((len(run.frames) - 1) * FRAME_GAP for run in line)
    return gaps_in_clips + len(line) * 2 * CLIP_PADDING + (len(line) - 1) * CLIP_GAP
