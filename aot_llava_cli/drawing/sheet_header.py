"""The upper part of a contact sheet: headline and legend."""

from dataclasses import dataclass

from PIL import Image, ImageDraw

from . import captions
from .compressed_video import CompressedVideo
from .legend_swatch import SWATCH, swatch
from .sheet_style import INK, PALE_INK, PAPER, font, largest_that_fits

# Everything in pixels.
HEADLINE_SIZES = range(40, 15, -1)
SUBTITLE_SIZES = range(22, 11, -1)
LEGEND_SIZE = 19
LINE_HEIGHT = 48
SWATCH_GAP = 10
ENTRY_GAP = 30


@dataclass(frozen=True)
class Entry:
    """Words of the legend, and a sample of what they explain; a title has none."""

    text: str
    swatch: Image.Image | None = None

    @property
    def text_offset(self) -> int:
        """From its left end."""
        return 0 if self.swatch is None else SWATCH + SWATCH_GAP

    @property
    def width(self) -> int:
        """Of both."""
        return self.text_offset + round(font(LEGEND_SIZE).getlength(self.text))


def draw_header(video: CompressedVideo, width: int) -> Image.Image:
    """Draws headline, subtitle and legend."""
    headline, subtitle = captions.headline(video), captions.subtitle(video)
    lines = [line for entries in _legend_entries(video) for line in _break_lines(entries, width)]
    header = Image.new("RGB", (width, (2 + len(lines)) * LINE_HEIGHT), PAPER)
    middles = iter(range(LINE_HEIGHT // 2, header.height, LINE_HEIGHT))
    draw = ImageDraw.Draw(header)
    draw.text((0, next(middles)), headline, INK, font(largest_that_fits(headline, HEADLINE_SIZES, width)), "lm")
    draw.text((0, next(middles)), subtitle, PALE_INK, font(largest_that_fits(subtitle, SUBTITLE_SIZES, width)), "lm")
    for line, middle in zip(lines, middles):
        _draw_entries(header, line, middle)
    return header


def _legend_entries(video: CompressedVideo) -> list[list[Entry]]:
    return [
        [Entry(f"{place}: {group.title}"), *(Entry(meaning, swatch(part)) for part, meaning in group.meanings.items())]
        for place, group in zip(("Above", "Below"), captions.legend(video))
    ]


def _break_lines(entries: list[Entry], width: int) -> list[list[Entry]]:
    """All on one line, or else the title on its own and the others on as many as they need."""
    if _width(entries) <= width:
        return [entries]
    title, *others = entries
    lines: list[list[Entry]] = [[title], []]
    for entry in others:
        if lines[-1] and _width([*lines[-1], entry]) > width:
            lines.append([])
        lines[-1].append(entry)
    return lines


def _width(line: list[Entry]) -> int:
    return sum(entry.width for entry in line) + (len(line) - 1) * ENTRY_GAP


def _draw_entries(header: Image.Image, entries: list[Entry], middle: int) -> None:
    x, draw = 0, ImageDraw.Draw(header)
    for entry in entries:
        if entry.swatch is not None:
            header.paste(entry.swatch, (x, middle - SWATCH // 2))
        colour = PALE_INK if entry.swatch is None else INK
        draw.text((x + entry.text_offset, middle), entry.text, colour, font(LEGEND_SIZE), "lm")
        x += entry.width + ENTRY_GAP
