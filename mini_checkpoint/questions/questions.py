"""Questions about a scene, with their true answers."""

from dataclasses import dataclass
from random import Random

import numpy as np

from .scene import Scene, visible_objects
from .vocabulary import COLOURS, HELD_OUT_LOOKS, SIDE

QUESTION_TYPES = ("colour", "where", "count", "direction", "order", "brief", "change")

NUMBERS = ("one", "two", "three", "four")
LETTERS = "ABCD"
QUARTERS = ("top left", "top right", "bottom left", "bottom right")

ONE_WORD = "Answer with one word."
ONE_LETTER = "Answer with one letter."

# Pixels between an object's centre and a middle line, so that its quarter is beyond doubt.
CLEAR_OF_MIDDLE = 24
# A direction is asked for where the way along one axis is this long, this many times the way along the other, and
# nowhere goes back by more than so many pixels.
SHORTEST_MOVE = 40
STRAIGHTNESS = 3
MAX_STEP_BACK = 4


@dataclass(frozen=True)
class Question:
    """A question about a clip.

    `text` is the whole prompt, with the options and the form of the answer; chance is `1 / num_answers`.
    """

    type: str
    text: str
    answer: str
    num_answers: int


def ask(scene: Scene) -> list[Question]:
    """All questions about a scene, always the same."""
    rng = Random(f"questions {scene.split} {scene.seed}")
    questions = [_ask_colour(scene), _ask_count(scene)]
    questions += _ask_where(rng, scene)
    questions += _ask_direction(rng, scene)
    questions += _ask_order(rng, scene)
    questions += _ask_brief(scene)
    questions += _ask_change(rng, scene)
    return questions


def name_of(scene: Scene, index: int) -> str:
    """What questions call an object. The first one by its shape alone, as its colour is asked for."""
    thing = scene.objects[index]
    return f"the {thing.shape}" if index == 0 else f"the {thing.colour} {thing.shape}"


def _ask_colour(scene: Scene) -> Question:
    thing = scene.objects[0]
    return Question("colour", f"What colour is the {thing.shape}? {ONE_WORD}", thing.colour, len(COLOURS))


def _ask_count(scene: Scene) -> Question:
    # The second object's shape is the one whose number is evenly spread.
    shape = scene.objects[1].shape
    count = sum(thing.shape == shape for thing in scene.objects)
    text = f"How many {_plural(shape)} are there in the whole clip? {ONE_WORD}"
    return Question("count", text, NUMBERS[count - 1], len(NUMBERS))


def _plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def _ask_where(rng: Random, scene: Scene) -> list[Question]:
    questions = []
    for moment, time in (("at the beginning", 0.0), ("at the end", 1.0)):
        quarters = _clear_quarters(scene, time)
        if quarters:
            index = _choose(rng, scene, list(quarters))
            text = f"Where is {name_of(scene, index)} {moment}? {_options(QUARTERS)} {ONE_LETTER}"
            questions.append(Question("where", text, LETTERS[quarters[index]], len(QUARTERS)))
    return questions if rng.random() < 0.3 else rng.sample(questions, min(1, len(questions)))


def _clear_quarters(scene: Scene, time: float) -> dict[int, int]:
    """The quarter of each object that may be asked for and that lies clearly within one."""
    quarters = {}
    for index, _, x, y, radius in visible_objects(scene, time):
        margin = max(CLEAR_OF_MIDDLE, radius)
        if scene.objects[index].keeps_name and min(abs(x - SIDE / 2), abs(y - SIDE / 2)) >= margin:
            quarters[index] = 2 * (y > SIDE / 2) + (x > SIDE / 2)
    return quarters


def _ask_direction(rng: Random, scene: Scene) -> list[Question]:
    directions = {}
    for index, thing in enumerate(scene.objects):
        if thing.keeps_name:
            seen = {_direction(scene, index, num_frames) for num_frames in (8, 16, 32)}
            if len(seen) == 1:
                directions[index] = seen.pop()
    directions = {index: direction for index, direction in directions.items() if direction}
    if not directions:
        return []
    index = _choose(rng, scene, list(directions))
    text = f"Which way does {name_of(scene, index)} move: left, right, up or down? {ONE_WORD}"
    return [Question("direction", text, directions[index], 4)]


def _direction(scene: Scene, index: int, num_frames: int) -> str | None:
    """Where an object goes from the first to the last of the sampled frames that show it, if that is clear."""
    way = _way(scene, index, num_frames)
    if len(way) < 2:
        return None
    across, down = way[-1] - way[0]
    axis = int(abs(down) > abs(across))
    along, aside = (down, across) if axis else (across, down)
    steps = np.diff(way[:, axis]) * np.sign(along)
    if abs(along) < max(SHORTEST_MOVE, STRAIGHTNESS * abs(aside)) or steps.min() < -MAX_STEP_BACK:
        return None
    return (("left", "right"), ("up", "down"))[axis][int(along > 0)]


def _way(scene: Scene, index: int, num_frames: int) -> np.ndarray:
    """The centres of an object in those of the sampled frames that show it; x and y in pixels."""
    thing = scene.objects[index]
    times = [frame / (num_frames - 1) for frame in range(num_frames)]
    return np.array([np.add(thing.position(time), scene.drift(time)) for time in times if thing.is_visible(time)])


def _ask_order(rng: Random, scene: Scene) -> list[Question]:
    events = []
    for index, thing in enumerate(scene.objects):
        # To name the brief object would give its colour away.
        if thing.brief:
            continue
        if thing.appears > 0:
            events.append((thing.appears, f"{name_of(scene, index)} appears"))
        elif thing.vanishes < 1:
            events.append((thing.vanishes, f"{name_of(scene, index)} vanishes"))
        elif thing.changes < 1:
            events.append((thing.changes, f"{name_of(scene, index)} changes colour"))
    if len(events) < 3:
        return []
    options = rng.sample(events, 3)
    answer = LETTERS[options.index(min(options))]
    text = f"What happens first? {_options([event for _, event in options])} {ONE_LETTER}"
    return [Question("order", text, answer, len(options))]


def _ask_brief(scene: Scene) -> list[Question]:
    text = f"What colour is the object that appears only for a moment? {ONE_WORD}"
    return [Question("brief", text, thing.colour, len(COLOURS)) for thing in scene.objects if thing.brief]


def _ask_change(rng: Random, scene: Scene) -> list[Question]:
    questions = []
    for index, thing in enumerate(scene.objects):
        if thing.new_colour:
            text = rng.choice(("What colour does {} become?", "What colour is {} at the end?"))
            text = f"{text.format(name_of(scene, index))} {ONE_WORD}"
            questions.append(Question("change", text, thing.new_colour, len(COLOURS) - 1))
    return questions


def _choose(rng: Random, scene: Scene, candidates: list[int]) -> int:
    """One of the candidates, if possible one of a withheld combination of colour and shape."""
    withheld = [index for index in candidates if scene.objects[index].looks & HELD_OUT_LOOKS]
    return rng.choice(withheld or candidates)


def _options(options: list[str] | tuple[str, ...]) -> str:
    return " ".join(f"{letter}) {option}" for letter, option in zip(LETTERS, options))
