"""More questions about a clip, for training alone: short ones about everything that it shows.

The questions that count, of which a clip has about six, need several steps of seeing and comparing. These need one
each, and a clip has dozens of them: they teach what the words mean and where to look, as captions do in LLaVA's first
stage. A clip is read once for all of its questions, so they cost little.
"""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import permutations

import numpy as np

from mini_checkpoint.questions import SIDE, Question, Scene, SceneObject, visible_objects
from mini_checkpoint.questions.questions import LETTERS, NUMBERS, ONE_LETTER, ONE_WORD, QUARTERS

TYPE = "grounding"
MOMENTS = (("at the beginning", 0), ("at the end", -1))
CLEAR_OF_MIDDLE = 16
SHORTEST_MOVE = 30
STRAIGHTNESS = 2
APART = 0.1
EVENTS = {"appear": "appears", "vanish": "vanishes", "change": "changes colour"}

Seen = tuple[int, str, float, float, float]


def ground(scene: Scene, times: np.ndarray, count: int, seed: int) -> list[Question]:
    """Draws questions about a scene that the frames at these times answer.

    Args:
        times: of the frames, from 0 to 1; both included, but for a single frame.
        count: of questions, at most.
    """
    questions = [
        question
        for moment, frame in MOMENTS
        for question in _at(scene, moment, visible_objects(scene, float(times[frame])))
    ]
    if len(times) > 1:
        questions += _along(scene, times)
    return random.Random(f"{seed} {scene.seed}").sample(questions, min(count, len(questions)))


def _at(scene: Scene, moment: str, seen: list[Seen]) -> Iterator[Question]:
    """What is there at one moment."""
    shapes = Counter(scene.objects[index].shape for index, *_ in seen)
    colours = Counter(colour for _, colour, *_ in seen)
    for index, colour, x, y, _ in seen:
        shape = scene.objects[index].shape
        if shapes[shape] == 1:
            yield _word(f"What colour is the {shape} {moment}?", colour)
        if colours[colour] == 1:
            yield _word(f"What shape is the {colour} object {moment}?", shape)
        if min(abs(x - SIDE / 2), abs(y - SIDE / 2)) >= CLEAR_OF_MIDDLE:
            quarter = 2 * (y > SIDE / 2) + (x > SIDE / 2)
            options = " ".join(f"{letter}) {name}" for letter, name in zip(LETTERS, QUARTERS))
            text = f"Where is the {colour} {shape} {moment}? {options} {ONE_LETTER}"
            yield Question(TYPE, text, LETTERS[quarter], len(QUARTERS))
    for shape, number in shapes.items():
        if number <= len(NUMBERS):
            plural = f"{shape}es" if shape.endswith("s") else f"{shape}s"
            yield _word(f"How many {plural} are there {moment}?", NUMBERS[number - 1])


def _along(scene: Scene, times: np.ndarray) -> Iterator[Question]:
    """What becomes of each object, and in which order."""
    events = []
    for thing in scene.objects:
        if thing.brief:
            continue
        name = f"the {thing.colour} {thing.shape}"
        fate, time = _fate(thing)
        yield _word(f"Does {name} appear, vanish, change or stay?", fate)
        if fate in EVENTS:
            events.append((time, f"{name} {EVENTS[fate]}"))
        direction = _direction(scene, thing, times)
        if direction and thing.keeps_name:
            yield _word(f"Which way does {name} move: left, right, up or down?", direction)
    for (first, one), (second, other) in permutations(events, 2):
        # Told apart by these frames: at least one lies between the two.
        between = (times > min(first, second)) & (times < max(first, second))
        if abs(first - second) >= APART and between.any():
            text = f"What happens first? A) {one} B) {other} {ONE_LETTER}"
            yield Question(TYPE, text, "A" if first < second else "B", 2)


def _fate(thing: SceneObject) -> tuple[str, float]:
    fates = (("appear", thing.appears, thing.appears > 0), ("vanish", thing.vanishes, thing.vanishes < 1))
    fates += (("change", thing.changes, thing.changes < 1), ("stay", 1.0, True))
    return next((fate, time) for fate, time, is_so in fates if is_so)


def _direction(scene: Scene, thing: SceneObject, times: np.ndarray) -> str | None:
    way = [np.add(thing.position(time), scene.drift(time)) for time in times.tolist() if thing.is_visible(time)]
    if len(way) < 2:
        return None
    across, down = way[-1] - way[0]
    if max(abs(across), abs(down)) < max(SHORTEST_MOVE, STRAIGHTNESS * min(abs(across), abs(down))):
        return None
    return ("left", "right")[int(across > 0)] if abs(across) > abs(down) else ("up", "down")[int(down > 0)]


def _word(text: str, answer: str) -> Question:
    return Question(TYPE, f"{text} {ONE_WORD}", answer, 2)
