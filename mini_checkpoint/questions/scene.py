"""What a clip shows: objects, when each is there, where it is and in which colour. Times run from 0 to 1."""

import math
from dataclasses import dataclass

from .motion import KNOTS


@dataclass(frozen=True, kw_only=True)
class Role:
    """What an object looks like and when.

    It is there from `appears` until just before `vanishes`, and has `new_colour` from `changes` on.
    """

    shape: str
    colour: str
    appears: float = 0.0
    vanishes: float = math.inf
    changes: float = math.inf
    new_colour: str | None = None
    brief: bool = False

    @property
    def looks(self) -> set[tuple[str, str]]:
        """Every (colour, shape) that it ever has."""
        return {(colour, self.shape) for colour in (self.colour, self.new_colour) if colour}

    @property
    def window(self) -> tuple[float, float]:
        """From when until when it is there, within the clip."""
        return self.appears, min(self.vanishes, 1.0)

    @property
    def keeps_name(self) -> bool:
        """Whether "the red circle" means it whenever the question is asked: not brief, and always of one colour."""
        return not self.brief and self.new_colour is None

    def is_visible(self, time: float) -> bool:
        """Whether it is there at this time."""
        return self.appears <= time < self.vanishes

    def colour_at(self, time: float) -> str:
        """The name of its colour at this time."""
        return self.new_colour if self.new_colour and time >= self.changes else self.colour


@dataclass(frozen=True, kw_only=True)
class SceneObject(Role):
    """An object of a clip: a role with a size and a place.

    `path` holds its centre's x and y in pixels, before the camera's drift, at evenly spaced times of the clip; `shade`
    is added to its colour's red, green and blue.
    """

    radius: float
    path: tuple[tuple[float, float], ...]
    shade: tuple[int, int, int] = (0, 0, 0)

    def position(self, time: float) -> tuple[float, float]:
        """Its centre's x and y in pixels, before the camera's drift."""
        knot = min(int(time * (KNOTS - 1)), KNOTS - 2)
        share = time * (KNOTS - 1) - knot
        (x0, y0), (x1, y1) = self.path[knot], self.path[knot + 1]
        return x0 + share * (x1 - x0), y0 + share * (y1 - y0)


@dataclass(frozen=True)
class Sway:
    """A slow movement of the camera along one axis: `height` pixels at most."""

    height: float
    frequency: float
    phase: float

    def at(self, time: float) -> int:
        """The shift at this time, in whole pixels."""
        return round(self.height * math.sin(2 * math.pi * (self.frequency * time + self.phase)))


@dataclass(frozen=True)
class Scene:
    """All that a clip shows."""

    seed: int
    split: str
    objects: tuple[SceneObject, ...]
    drift_x: Sway
    drift_y: Sway
    brightness: float

    def drift(self, time: float) -> tuple[int, int]:
        """By how many pixels the camera has shifted everything to the right and down."""
        return self.drift_x.at(time), self.drift_y.at(time)


def visible_objects(scene: Scene, time: float) -> list[tuple[int, str, float, float, float]]:
    """What is there at a time of the clip, from 0 to 1.

    Returns:
        For each object that is visible then: its index in `scene.objects`, the name of its colour at that time, x and
        y of its centre in the picture and its radius, in pixels.

    Raises:
        ValueError: the time is outside 0 to 1.
    """
    if not 0 <= time <= 1:
        raise ValueError(f"time is {time}: a clip runs from 0 to 1")
    right, down = scene.drift(time)
    seen = []
    for index, thing in enumerate(scene.objects):
        if thing.is_visible(time):
            x, y = thing.position(time)
            seen.append((index, thing.colour_at(time), x + right, y + down, thing.radius))
    return seen
