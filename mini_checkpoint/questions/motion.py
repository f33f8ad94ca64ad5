"""The paths that objects take: arrays of shape (KNOTS, 2), x and y in pixels at evenly spaced times of the clip."""

import math
from random import Random

import numpy as np

from .vocabulary import SIDE

KNOTS = 33
KNOT_TIMES = np.linspace(0, 1, KNOTS)
# Between an object and the border: the camera drifts by up to MAX_DRIFT pixels.
MAX_DRIFT = 5
BORDER = MAX_DRIFT + 2
# Corners lie up to so many radii from an object's centre.
REACH = 1.15
# A glide never crosses the whole picture, so that where it begins does not tell where it goes.
SHORTEST_GLIDE, LONGEST_GLIDE = 60, 110


def bounds(radius: float) -> tuple[float, float]:
    """Least and greatest coordinate of the centre of an object that stays inside the picture."""
    return radius * REACH + BORDER, SIDE - radius * REACH - BORDER


def still(rng: Random, radius: float) -> np.ndarray:
    """Stays where it is."""
    low, high = bounds(radius)
    return np.full((KNOTS, 2), (rng.uniform(low, high), rng.uniform(low, high)))


def glide(rng: Random, radius: float, window: tuple[float, float], angle: float) -> np.ndarray:
    """Moves straight on, or in a slight bow, during the window; `angle` is 0 to the right and pi / 2 downwards."""
    low, high = bounds(radius)
    length = rng.uniform(SHORTEST_GLIDE, LONGEST_GLIDE)
    step = length * np.array([math.cos(angle), math.sin(angle)])
    start = [rng.uniform(low - min(0, move), high - max(0, move)) for move in step]
    progress = _progress(window)
    eased = progress + rng.random() * (progress * progress * (3 - 2 * progress) - progress)
    bow = rng.uniform(-0.08, 0.08) * np.sin(math.pi * eased)
    path = start + eased[:, None] * step + bow[:, None] * np.array([-step[1], step[0]])
    return path.clip(low, high)


def bounce(rng: Random, radius: float, window: tuple[float, float]) -> np.ndarray:
    """Flies straight on and is thrown back by the borders of the picture."""
    low, high = bounds(radius)
    span = high - low
    angle = rng.uniform(0, 2 * math.pi)
    way = rng.uniform(1.0, 2.2) * span * (window[1] - window[0])
    start = np.array([rng.uniform(0, span), rng.uniform(0, span)])
    unfolded = start + _progress(window)[:, None] * way * np.array([math.cos(angle), math.sin(angle)])
    return low + span - np.abs(unfolded % (2 * span) - span)


def swing(rng: Random, radius: float, window: tuple[float, float]) -> np.ndarray:
    """Moves along an arc of an ellipse."""
    low, high = bounds(radius)
    half = np.array([rng.uniform(0.12, 0.4), rng.uniform(0.12, 0.4)]) * (high - low)
    center = np.array([rng.uniform(low + each, high - each) for each in half])
    turn = rng.uniform(0, 2 * math.pi) + rng.choice((-1, 1)) * rng.uniform(0.5, 1.0) * 2 * math.pi * _progress(window)
    return center + half * np.stack([np.cos(turn), np.sin(turn)], axis=1)


def collide(rng: Random, first_radius: float, second_radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Two objects approach, touch about the middle of the clip and part again; inside the picture."""
    moment = KNOT_TIMES[rng.randint(11, 21)]
    angle = rng.uniform(0, 2 * math.pi)
    axis = np.array([math.cos(angle), math.sin(angle)])
    deflected = angle + rng.choice((-1, 1)) * rng.uniform(0.3, 0.9)
    way_out = np.array([math.cos(deflected), math.sin(deflected)])
    meeting = np.array([rng.uniform(0.35, 0.65) * SIDE, rng.uniform(0.35, 0.65) * SIDE])
    before = np.maximum(moment - KNOT_TIMES, 0)[:, None] / moment
    after = np.maximum(KNOT_TIMES - moment, 0)[:, None] / (1 - moment)
    length = rng.uniform(40, 90)
    away = axis * before * length + way_out * after * length
    paths = []
    for side, radius in ((-1, first_radius), (1, second_radius)):
        paths.append((meeting + side * (axis * radius + away)).clip(*bounds(radius)))
    return paths[0], paths[1]


def _progress(window: tuple[float, float]) -> np.ndarray:
    start, end = window
    return ((KNOT_TIMES - start) / (end - start)).clip(0, 1)
