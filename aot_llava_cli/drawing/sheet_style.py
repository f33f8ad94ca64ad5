"""Colours, lines and lettering of a contact sheet."""

from collections.abc import Sequence
from functools import cache

from PIL import ImageFont

PAPER = (255, 255, 255)
CLIP = (226, 231, 235)
INK = (33, 37, 41)
PALE_INK = (84, 92, 99)
FIRST_FRAME = (0, 158, 115)

# Pixels.
FIRST_FRAME_EDGE = 4


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font: the same letters on every machine."""
    return ImageFont.load_default(size)


def first_that_fits(texts: Sequence[str], size: int, width: int) -> str:
    """The first of these texts that is no wider; the last where none is."""
    return next((text for text in texts if font(size).getlength(text) <= width), texts[-1])


def largest_that_fits(text: str, sizes: range, width: int) -> int:
    """The first of these sizes, from large to small, at which the text is no wider; the last where it never is."""
    return next((size for size in sizes if font(size).getlength(text) <= width), sizes[-1])
