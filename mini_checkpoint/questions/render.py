"""Draws the frames of a scene."""

import math

import numpy as np

from .backdrop import draw_backdrop
from .motion import MAX_DRIFT
from .scene import Scene, visible_objects
from .vocabulary import COLOURS, SIDE, SPLITS

NOISE_MARGIN = 32


def render_clip(scene: Scene, num_frames: int) -> np.ndarray:
    """Draws frames at evenly spaced times from the first moment of the clip to the last.

    Returns:
        uint8 of shape (num_frames, SIDE, SIDE, 3); frame i shows time i / (num_frames - 1), a single frame time 0.

    Raises:
        ValueError: fewer than one frame.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}: it must be 1 or more")
    canvas = _Canvas(scene)
    clip = np.empty((num_frames, SIDE, SIDE, 3), dtype=np.uint8)
    for index, frame in enumerate(clip):
        frame[:] = canvas.draw(index / max(1, num_frames - 1))
    return clip


def render_frame(scene: Scene, time: float) -> np.ndarray:
    """Draws the frame at a time from 0 to 1; uint8 of shape (SIDE, SIDE, 3).

    Many frames of one scene come faster from `render_clip`, which makes the background once.

    Raises:
        ValueError: the time is outside 0 to 1.
    """
    return _Canvas(scene).draw(time).astype(np.uint8)


def object_map(scene: Scene, time: float) -> np.ndarray:
    """Which object is seen at each pixel at a time from 0 to 1.

    Returns:
        int16 of shape (SIDE, SIDE): indices into `scene.objects`, and -1 where the background is seen.

    Raises:
        ValueError: the time is outside 0 to 1.
    """
    pixels = np.full((SIDE, SIDE), -1, dtype=np.int16)
    for index, _, x, y, radius in visible_objects(scene, time):
        box, coverage = _stamp(scene.objects[index].shape, x, y, radius)
        pixels[box][coverage >= 0.5] = index
    return pixels


class _Canvas:
    """What all frames of a scene share: the background and a sheet of noise, both larger than a frame."""

    def __init__(self, scene: Scene):
        self.scene = scene
        self.rng_key = [scene.seed, SPLITS.index(scene.split)]
        rng = np.random.default_rng(self.rng_key)
        backdrop = draw_backdrop(rng, SIDE + 2 * MAX_DRIFT) * np.float32(scene.brightness)
        self.backdrop = backdrop.clip(0, 255).astype(np.int16)
        noise_side = SIDE + NOISE_MARGIN
        noise = rng.standard_normal((noise_side, noise_side, 3), dtype=np.float32)
        noise *= np.float32(rng.uniform(1, 4))
        self.noise = noise.astype(np.int8)

    def draw(self, time: float) -> np.ndarray:
        """The frame at this time: int16 of shape (SIDE, SIDE, 3), from 0 to 255."""
        seen = visible_objects(self.scene, time)
        right, down = self.scene.drift(time)
        top, left = MAX_DRIFT - down, MAX_DRIFT - right
        picture = self.backdrop[top : top + SIDE, left : left + SIDE].copy()
        for index, colour, x, y, radius in seen:
            thing = self.scene.objects[index]
            box, coverage = _stamp(thing.shape, x, y, radius)
            paint = (np.array(COLOURS[colour]) + thing.shade) * self.scene.brightness
            picture[box] += (coverage[..., None] * (paint - picture[box])).round().astype(np.int16)
        # A part of the sheet of noise that depends on the time alone, so that a frame is always the same.
        row, column = np.random.default_rng([*self.rng_key, round(time * 100_000)]).integers(NOISE_MARGIN, size=2)
        picture += self.noise[row : row + SIDE, column : column + SIDE]
        return np.clip(picture, 0, 255, out=picture)


def _stamp(shape: str, x: float, y: float, radius: float) -> tuple[tuple[slice, slice], np.ndarray]:
    """The box of pixels around an object, and how much of each pixel in it the object covers, from 0 to 1."""
    reach = 1.2 * radius + 1
    top, bottom = max(0, math.floor(y - reach)), min(SIDE, math.ceil(y + reach) + 1)
    left, right = max(0, math.floor(x - reach)), min(SIDE, math.ceil(x + reach) + 1)
    down = (np.arange(top, bottom) - y)[:, None]
    across = (np.arange(left, right) - x)[None]
    coverage = (0.5 - DISTANCES[shape](across, down, radius)).clip(0, 1)
    return (slice(top, bottom), slice(left, right)), coverage


def _circle(across: np.ndarray, down: np.ndarray, radius: float) -> np.ndarray:
    return np.sqrt(across * across + down * down) - radius


def _square(across: np.ndarray, down: np.ndarray, radius: float) -> np.ndarray:
    return np.maximum(np.abs(across), np.abs(down)) - 0.82 * radius


def _triangle(across: np.ndarray, down: np.ndarray, radius: float) -> np.ndarray:
    """Equilateral, its tip up, and its corners 1.15 radii from its centre."""
    inner = 0.575 * radius
    slope = 0.5 * math.sqrt(3) * np.abs(across) - 0.5 * down
    return np.maximum(slope, down) - inner


def _cross(across: np.ndarray, down: np.ndarray, radius: float) -> np.ndarray:
    across, down = np.abs(across), np.abs(down)
    arm, half_width = 1.05 * radius, 0.34 * radius
    return np.minimum(np.maximum(across - arm, down - half_width), np.maximum(down - arm, across - half_width))


# Signed distances to the outline, in pixels: negative inside.
DISTANCES = {"circle": _circle, "square": _square, "triangle": _triangle, "cross": _cross}
