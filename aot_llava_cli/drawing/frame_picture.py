"""Paints what became of a frame over the frame itself."""

import numpy as np
from PIL import Image

from .token_map import FrameMap

# From the palette of Okabe and Ito, which colour-blind people can tell apart.
LOCAL_ANCHOR = (230, 159, 0)
GLOBAL_ANCHOR = (86, 180, 233)
MERGED_ALONG_TIME = (204, 121, 167)
KEPT_EDGE = (255, 255, 255)

# What is gone keeps this share of its light: enough to see what it was.
DIMMED_LIGHT = 0.6

STRIPE_PERIOD = 6
STRIPE_WIDTH = 2

# An outline is one pixel thick for so many pixels of the cell that it is around.
CELL_PER_LINE = 10


def paint_anchors(picture: Image.Image, frame: FrameMap, size: tuple[int, int]) -> Image.Image:
    """The frame with its anchors clear and outlined in their colour, and the other patches dimmed.

    Args:
        size: of the result, (width, height) in pixels.
    """
    pixels = _resized(picture, size)
    painted = _dimmed(pixels)
    outlines = _cell_outlines(frame.local_anchors.shape, size)
    for anchors, colour in ((frame.local_anchors, LOCAL_ANCHOR), (frame.global_anchors, GLOBAL_ANCHOR)):
        is_anchor = _spread(anchors, size)
        painted[is_anchor] = pixels[is_anchor]
        painted[is_anchor & outlines] = colour
    return Image.fromarray(painted)


def paint_tokens(picture: Image.Image, frame: FrameMap, size: tuple[int, int]) -> Image.Image:
    """The frame with its kept positions clear, those merged along time striped, and the others dimmed.

    Args:
        size: of the result, (width, height) in pixels.
    """
    pixels = _resized(picture, size)
    painted = _dimmed(pixels)
    painted[_spread(frame.merged_along_time, size) & _stripes(size)] = MERGED_ALONG_TIME
    kept = _spread(frame.kept, size)
    painted[kept] = pixels[kept]
    painted[_rim(kept, _line_width(frame.kept.shape, size))] = KEPT_EDGE
    return Image.fromarray(painted)


def _dimmed(pixels: np.ndarray) -> np.ndarray:
    """What is gone: (height, width, 3) uint8, as is the result."""
    return (DIMMED_LIGHT * pixels).astype(np.uint8)


def _spread(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Spreads a mask over the cells of a grid to pixels: bool, (height, width)."""
    rows, columns = _cells_of_pixels(mask.shape, size)
    return mask[rows][:, columns]


def _resized(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS))


def _cells_of_pixels(grid: tuple[int, int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The grid row of each row of pixels, and the grid column of each column."""
    width, height = size
    return np.arange(height) * grid[0] // height, np.arange(width) * grid[1] // width


def _cell_outlines(grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """The outermost pixels of all cells: bool, (height, width)."""
    rows, columns = _cells_of_pixels(grid, size)
    is_odd = (rows[:, None] + columns) % 2 == 1
    thickness = _line_width(grid, size)
    return _rim(is_odd, thickness) | _rim(~is_odd, thickness)


def _line_width(grid: tuple[int, int], size: tuple[int, int]) -> int:
    width, height = size
    return max(1, round(min(height / grid[0], width / grid[1]) / CELL_PER_LINE))


def _rim(mask: np.ndarray, thickness: int) -> np.ndarray:
    """The pixels of a mask that are this near to others, or to the edge of the picture."""
    inner = mask
    for _ in range(thickness):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _stripes(size: tuple[int, int]) -> np.ndarray:
    width, height = size
    return np.add.outer(np.arange(height), np.arange(width)) % STRIPE_PERIOD < STRIPE_WIDTH
