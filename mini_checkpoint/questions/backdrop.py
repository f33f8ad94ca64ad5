"""The textured, dull-coloured background of a clip."""

import numpy as np


def draw_backdrop(rng: np.random.Generator, side: int) -> np.ndarray:
    """A picture of a gradient, waves, patches and grain in random shares; float32 of shape (side, side, 3)."""
    rows, columns = np.meshgrid(np.linspace(0, 1, side, dtype=np.float32), np.linspace(0, 1, side, dtype=np.float32))
    light = rng.uniform(80, 125) + _gradient(rng, rows, columns) + _waves(rng, rows, columns)
    light += rng.uniform(2, 9) * rng.standard_normal((side, side), dtype=np.float32)
    tint = rng.uniform(-10, 10, size=3).astype(np.float32)
    return light[..., None] + tint + _patches(rng, side)


def _gradient(rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    down, right = rng.uniform(-25, 25, size=2).astype(np.float32)
    return down * (rows - 0.5) + right * (columns - 0.5)


def _waves(rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    height = np.float32(rng.uniform(0, 14))
    down, right, bend = rng.uniform(-60, 60, size=3).astype(np.float32)
    return height * np.sin(down * rows + right * columns + bend * rows * columns)


def _patches(rng: np.random.Generator, side: int) -> np.ndarray:
    """Soft blots, of a light and a slight colour of their own."""
    coarse = int(rng.integers(4, 20))
    light = rng.uniform(2, 16) * rng.standard_normal((coarse, coarse, 1), dtype=np.float32)
    colour = rng.uniform(0, 7) * rng.standard_normal((coarse, coarse, 3), dtype=np.float32)
    return _enlarge(np.clip(light + colour, -35, 35), side)


def _enlarge(picture: np.ndarray, side: int) -> np.ndarray:
    """Linear interpolation from (n, n, 3) to (side, side, 3)."""
    coarse = len(picture)
    position = np.linspace(0, coarse - 1, side, dtype=np.float32)
    weights = np.clip(1 - np.abs(position[:, None] - np.arange(coarse, dtype=np.float32)), 0, None)
    wide = weights @ picture.transpose(2, 0, 1) @ weights.T
    return wide.transpose(1, 2, 0)
