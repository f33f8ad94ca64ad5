"""Makes a scene from a seed: gives each object of the cast its size, path and shade."""

import math
from collections.abc import Callable
from random import Random

import numpy as np

from .casting import choose_cast
from .motion import KNOT_TIMES, MAX_DRIFT, REACH, bounce, collide, glide, still, swing
from .scene import Role, Scene, SceneObject, Sway
from .vocabulary import SPLITS

SIZES = {"small": (8.5, 10.5), "medium": (15.5, 18.5), "large": (25.0, 29.0)}
# How many paths of a kind are tried before all places are drawn anew.
TRIES = 25


def make_scene(seed: int, split: str) -> Scene:
    """Makes the scene of a seed, always the same.

    Args:
        seed: any number from 0 on; the same seed means different scenes in different splits.
        split: "train", whose clips never show the four withheld combinations of colour and shape, or "held_out", whose
            clips each show at least one of them.

    Raises:
        ValueError: a negative seed, or another split.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}: it must be one of {', '.join(SPLITS)}")
    if seed < 0:
        raise ValueError(f"seed is {seed}: it must be 0 or more")
    rng = Random(f"{split} {seed}")
    roles = choose_cast(rng, split)
    objects = None
    while objects is None:
        objects = _place(rng, roles)
    drift_x, drift_y = (Sway(rng.uniform(1.5, MAX_DRIFT), rng.uniform(0.3, 0.9), rng.random()) for _ in range(2))
    return Scene(seed, split, tuple(objects), drift_x, drift_y, rng.uniform(0.86, 1.04))


def _place(rng: Random, roles: list[Role]) -> list[SceneObject] | None:
    """Gives the roles sizes and paths; None where they got in each other's way."""
    radii = [_choose_radius(rng, role, len(roles)) for role in roles]
    paths = _find_paths(rng, roles, radii)
    if paths is None:
        return None
    return [
        SceneObject(
            **vars(role),
            radius=radius,
            path=tuple(map(tuple, paths[index].tolist())),
            shade=tuple(rng.randint(-12, 12) for _ in range(3)),
        )
        for index, (role, radius) in enumerate(zip(roles, radii))
    ]


def _find_paths(rng: Random, roles: list[Role], radii: list[float]) -> dict[int, np.ndarray] | None:
    """Paths on which no two objects ever cover one another, if they are found; one is sure to show a direction."""
    mover = rng.choice([index for index, role in enumerate(roles) if _may_be_asked_to_move(role)] or [None])
    paths = _find_collision(rng, roles, radii, mover)
    if paths is None:
        return None
    # The large ones first, as long as there is room.
    for index in sorted(range(len(roles)), key=lambda index: -radii[index]):
        if index in paths:
            continue
        draw_path = _choose_motion(rng, roles[index], radii[index], index == mover)
        for _ in range(TRIES):
            path = draw_path()
            if all(_keep_clear(roles, radii, index, path, other, paths[other]) for other in paths):
                paths[index] = path
                break
        else:
            return None
    return paths


def _find_collision(
    rng: Random, roles: list[Role], radii: list[float], mover: int | None
) -> dict[int, np.ndarray] | None:
    """In some clips the paths of two objects that collide; None where the border keeps them from parting again."""
    always = [index for index, role in enumerate(roles) if role.window == (0, 1) and index != mover]
    if len(always) < 2 or rng.random() >= 0.3:
        return {}
    first, second = rng.sample(always, 2)
    paths = collide(rng, radii[first], radii[second])
    if np.linalg.norm(paths[0] - paths[1], axis=1).min() < radii[first] + radii[second] - 1:
        return None
    return {first: paths[0], second: paths[1]}


def _choose_radius(rng: Random, role: Role, crowd: int) -> float:
    weights = (6, 3, 1) if role.brief or crowd > 4 else (4, 4, 2)
    return rng.uniform(*SIZES[rng.choices(list(SIZES), weights)[0]])


def _may_be_asked_to_move(role: Role) -> bool:
    start, end = role.window
    return role.keeps_name and end - start >= 0.35


def _choose_motion(rng: Random, role: Role, radius: float, is_mover: bool) -> Callable[[], np.ndarray]:
    """A function that draws one more path of the chosen kind with each call."""
    window = role.window
    angle = rng.randrange(4) * math.pi / 2 + rng.uniform(-0.15, 0.15)
    if is_mover:
        return lambda: glide(rng, radius, window, angle)
    if role.brief:
        return lambda: still(rng, radius)
    kind = rng.choices(("still", "along", "across", "bounce", "swing"), (3, 4, 1, 1, 1))[0]
    if kind == "across":
        angle = rng.uniform(0, 2 * math.pi)
    return {
        "still": lambda: still(rng, radius),
        "along": lambda: glide(rng, radius, window, angle),
        "across": lambda: glide(rng, radius, window, angle),
        "bounce": lambda: bounce(rng, radius, window),
        "swing": lambda: swing(rng, radius, window),
    }[kind]


def _keep_clear(
    roles: list[Role], radii: list[float], index: int, path: np.ndarray, other: int, other_path: np.ndarray
) -> bool:
    """Whether two objects stay apart while both are there."""
    start = max(roles[index].appears, roles[other].appears)
    end = min(roles[index].vanishes, roles[other].vanishes)
    step = KNOT_TIMES[1]
    both = (start - step <= KNOT_TIMES) & (end + step >= KNOT_TIMES)
    distance = np.square(path - other_path).sum(axis=1)
    apart = REACH * (radii[index] + radii[other]) + 2
    return bool((distance[both] >= apart * apart).all())
