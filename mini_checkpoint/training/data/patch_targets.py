"""What the vision tower is to tell about each patch of a frame."""

from dataclasses import dataclass

import numpy as np

from mini_checkpoint.questions import COLOURS, SHAPES, SIDE, object_map, visible_objects
from mini_checkpoint.training.model.mini_model import GRID, PATCH

# A finer grid than that of the patches, for the outlines of objects.
CELL = 4
CELLS = SIDE // CELL

# A patch shows an object if so much of it is covered; with less, but some, it is not asked about.
SMALLEST_COVER = 0.25
MOST_COUNTED = 7
LARGEST_RADIUS = 32.0

COLOUR_CLASSES = len(COLOURS) + 1  # the last one is the background
SHAPE_CLASSES = len(SHAPES) + 1


@dataclass
class PatchTargets:
    """Targets of one frame; N = GRID * GRID patches.

    Attributes:
        owner: (N,) the number of the visible object that the patch shows, -1 background, -2 not asked about.
        colour, shape: (N,) classes.
        radius: (N,) of the patch's object, in units of `LARGEST_RADIUS`.
        centre: (N, 2) x, y of the patch's object or, on the background, of the nearest one; in frame sides.
        has_centre: (N,) false where the frame shows nothing.
        counts: (1 + shapes,) how many objects the frame shows, and how many of each shape.
        cells: (CELLS, CELLS) the number of the visible object at the middle of each cell of the frame, -1 background.
        weight: (N,) of the patch among its kind; an object counts by the root of its patches, not by their number.
    """

    owner: np.ndarray
    colour: np.ndarray
    shape: np.ndarray
    radius: np.ndarray
    centre: np.ndarray
    has_centre: np.ndarray
    counts: np.ndarray
    cells: np.ndarray
    weight: np.ndarray


def patch_targets(scene, time: float) -> PatchTargets:
    """Reads the targets of a scene's frame at a time between 0 and 1."""
    visible = visible_objects(scene, time)
    indices = [index for index, *_ in visible]
    pixels = object_map(scene, time)
    owner = _owners(pixels, indices)
    colours = np.array([COLOURS_IN_ORDER.index(colour) for _, colour, *_ in visible] + [len(COLOURS)])
    shapes = np.array([SHAPES_IN_ORDER.index(scene.objects[index].shape) for index, *_ in visible] + [len(SHAPES)])
    radii = np.array([radius for *_, radius in visible] + [0.0])
    centres = np.array([(x, y) for _, _, x, y, _ in visible] + [(0.0, 0.0)])
    row = np.where(owner >= 0, owner, len(visible))
    nearest = _nearest(centres[:-1]) if visible else row
    patches_of = np.bincount(row, minlength=len(visible) + 1)
    return PatchTargets(
        owner=owner,
        colour=colours[row],
        shape=shapes[row],
        radius=radii[row] / LARGEST_RADIUS,
        centre=centres[np.where(owner >= 0, owner, nearest)] / SIDE,
        has_centre=np.full(len(owner), bool(visible)),
        counts=np.minimum([len(visible), *np.bincount(shapes[:-1], minlength=len(SHAPES))], MOST_COUNTED),
        cells=_cells(pixels, indices),
        weight=np.where(owner >= 0, np.maximum(patches_of[row], 1) ** -0.5, owner == -1),
    )


COLOURS_IN_ORDER = list(COLOURS)
SHAPES_IN_ORDER = list(SHAPES)


def _owners(pixels: np.ndarray, visible: list[int]) -> np.ndarray:
    """Which of the visible objects covers most of each patch."""
    patches = pixels.reshape(GRID, PATCH, GRID, PATCH).swapaxes(1, 2).reshape(GRID * GRID, -1)
    covered = np.stack([(patches == index).mean(1) for index in visible] or [np.zeros(GRID * GRID)])
    most = covered.max(0)
    return np.where(most >= SMALLEST_COVER, covered.argmax(0), np.where(most > 0, -2, -1))


def _cells(pixels: np.ndarray, visible: list[int]) -> np.ndarray:
    middles = pixels[CELL // 2 :: CELL, CELL // 2 :: CELL]
    numbers = np.full(max(visible, default=0) + 2, -1, np.int8)
    numbers[visible] = np.arange(len(visible))
    return numbers[middles]


def _nearest(centres: np.ndarray) -> np.ndarray:
    """The object whose centre is nearest to the middle of each patch."""
    middle = (np.arange(GRID) + 0.5) * PATCH
    x, y = np.meshgrid(middle, middle)
    places = np.stack([x.ravel(), y.ravel()], axis=1)
    return np.linalg.norm(places[:, None] - centres[None], axis=-1).argmin(1)
