"""Who plays in a clip: the shapes, colours and events of its objects, before they get their places."""

from dataclasses import replace
from random import Random

from .scene import Role
from .vocabulary import COLOURS, HELD_OUT_LOOKS, SHAPES

# How often a shape has the colour that training withholds. The other colours share what keeps every colour as
# frequent as any other over all shapes.
WITHHELD_SHARE = {"train": 0.0, "held_out": 0.3}

# Two events never fall between the same two of 8 sampled frames, which are 1/7 apart.
EVENT_GAP = 0.15
FIRST_EVENT, LAST_EVENT = 0.22, 0.78
# Long enough for one of 8 sampled frames, short enough for at most 3 of 16.
SHORTEST_MOMENT, LONGEST_MOMENT = 0.16, 0.19


def choose_cast(rng: Random, split: str) -> list[Role]:
    """The roles of a clip. The first one's shape is its own, and it neither changes colour nor is brief."""
    shapes = _choose_shapes(rng)
    others = list(range(1, len(shapes)))
    rng.shuffle(others)
    brief = others.pop() if rng.random() < 0.75 else None
    changing = others.pop() if rng.random() < 0.75 else None
    roles = _colour_roles(rng, split, shapes, changing)
    if brief is not None:
        roles[brief] = _make_brief(rng, roles[brief])
    return _set_events(rng, roles, [0, *others], changing)


def _choose_shapes(rng: Random) -> list[str]:
    """One shape of its own, one that occurs one to four times, alike often, and others."""
    own, crowd, *rest = rng.sample(SHAPES, len(SHAPES))
    crowd_size = rng.randint(1, 4)
    total = max(crowd_size + 1, rng.choices((3, 4, 5), (1, 3, 3))[0])
    return [own] + [crowd] * crowd_size + [rng.choice(rest) for _ in range(total - crowd_size - 1)]


def _colour_roles(rng: Random, split: str, shapes: list[str], changing: int | None) -> list[Role]:
    while True:
        looks: set[tuple[str, str]] = set()
        # The colour that is asked for comes first, while every colour is still to be had.
        new_colour = None if changing is None else _choose_colour(rng, split, shapes[changing], looks)
        roles = [Role(shape=shape, colour=_choose_colour(rng, split, shape, looks)) for shape in shapes]
        if changing is not None:
            roles[changing] = replace(roles[changing], new_colour=new_colour)
        if split == "train" or looks & HELD_OUT_LOOKS:
            return roles


def _choose_colour(rng: Random, split: str, shape: str, taken: set[tuple[str, str]]) -> str:
    """A colour that no other object of this shape has; noted in `taken`."""
    free = [colour for colour in COLOURS if (colour, shape) not in taken]
    colour = rng.choices(free, [_share(split, colour, shape) for colour in free])[0]
    taken.add((colour, shape))
    return colour


def _share(split: str, colour: str, shape: str) -> float:
    fair = 1 / len(COLOURS)
    withheld = WITHHELD_SHARE[split]
    if (colour, shape) in HELD_OUT_LOOKS:
        return withheld
    if any(colour == other for other, _ in HELD_OUT_LOOKS):
        return (len(SHAPES) * fair - withheld) / (len(SHAPES) - 1)
    return fair


def _make_brief(rng: Random, role: Role) -> Role:
    appears = rng.uniform(0.1, 0.72)
    return replace(role, brief=True, appears=appears, vanishes=appears + rng.uniform(SHORTEST_MOMENT, LONGEST_MOMENT))


def _set_events(rng: Random, roles: list[Role], candidates: list[int], changing: int | None) -> list[Role]:
    """Lets one object change colour, others appear or vanish, each at a time of its own."""
    eventful = [] if changing is None else [changing]
    wanted = rng.choice((3, 3, 4)) if rng.random() < 0.85 else rng.choice((0, 1))
    rng.shuffle(candidates)
    eventful += candidates[: max(0, wanted - len(eventful))]
    roles = list(roles)
    for index, time in zip(eventful, _event_times(rng, len(eventful))):
        event = "changes" if index == changing else rng.choice(("appears", "vanishes"))
        roles[index] = replace(roles[index], **{event: time})
    return roles


def _event_times(rng: Random, count: int) -> list[float]:
    """Times in random order, at least EVENT_GAP apart."""
    slack = LAST_EVENT - FIRST_EVENT - EVENT_GAP * max(0, count - 1)
    offsets = sorted(rng.uniform(0, slack) for _ in range(count))
    times = [FIRST_EVENT + offset + EVENT_GAP * index for index, offset in enumerate(offsets)]
    rng.shuffle(times)
    return times
