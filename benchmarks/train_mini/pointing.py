"""Training-only help for the language model: where to look when a text names an object, and what to find there.

That a few words belong to a few of thousands of tokens is what the answers alone teach last. So beginnings of
questions that end with the name of an object are read too. At their last word the first head of one low and one high
layer is to look at the tokens that show it: the low one finds what looks like the name; the high one, which can read
what the tokens know of the past, finds the object that had the name at first: at the moment that the text names, or
when it was last seen. And linear heads, thrown away afterwards, ask the last word what was found: colour, place, way,
fate, number. Where a question is to be answered, the first head of the layers above is to look at the names in it, and
in the end at the one in the right option.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2Tokenizer

from benchmarks.video_questions import COLOURS, SHAPES, SIDE, Scene, visible_objects
from benchmarks.video_questions.questions import LETTERS

from .conversations import QuestionTokens
from .patch_targets import COLOURS_IN_ORDER
from .tracking import MOST_OF_A_SHAPE, POOLED_GRID, TrackTargets, missed

LOW_LAYER, MIDDLE_LAYER, HIGH_LAYER = 1, 2, 3
ANSWER_LAYERS = (4, 5)
LAYERS = (LOW_LAYER, MIDDLE_LAYER, HIGH_LAYER, *ANSWER_LAYERS)

LAST_FRAME = slice(-(POOLED_GRID**2), None)
MOMENTS = (("at the beginning", slice(0, POOLED_GRID**2)), ("at the end", LAST_FRAME))
FATES = ("appears", "vanishes", "changes", "stays")
FOUND_SIZES = {
    "colour": len(COLOURS),
    "place": 2,
    "way": 2,
    "fate": len(FATES),
    "when": 1,
    "count": MOST_OF_A_SHAPE + 1,
}
CLASSES = ("colour", "fate", "count")
UNASKED = -100
UNKNOWN = float("nan")


@dataclass
class Pointer:
    """The beginning of a question about a clip of T video tokens, and what belongs to it.

    Attributes:
        text: the beginning.
        high, low, middle: (T,) bool, where the layers are to look; all false for anywhere.
        colour, fate, count: classes, or UNASKED. place: x and y; way: how far it went to the right and down, in frame
            sides; when: the time of its fate. UNKNOWN where they are not asked for.
    """

    text: str
    high: Tensor
    low: Tensor
    middle: Tensor
    colour: int = UNASKED
    fate: int = UNASKED
    count: int = UNASKED
    place: tuple[float, float] = (UNKNOWN, UNKNOWN)
    way: tuple[float, float] = (UNKNOWN, UNKNOWN)
    when: float = UNKNOWN


class FindingHeads(nn.Module):
    """Asks the hidden states of last words what was found."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in FOUND_SIZES.items()})

    def loss(self, hidden: Tensor, pointers: list[Pointer]) -> Tensor:
        """(P, width) and P pointers -> a number."""
        normed = self.norm(hidden)
        loss = hidden.new_zeros(())
        for name, head in self.heads.items():
            wanted = torch.tensor([getattr(pointer, name) for pointer in pointers], device=hidden.device)
            if name in CLASSES:
                asked = wanted != UNASKED
                if asked.any():
                    loss = loss + functional.cross_entropy(head(normed[asked]), wanted[asked])
            else:
                wanted = wanted.view(len(pointers), -1).float()
                asked = ~wanted.isnan().any(1)
                if asked.any():
                    loss = loss + 10 * functional.smooth_l1_loss(head(normed[asked]), wanted[asked], beta=0.1)
        return loss


def pointers(scene: Scene, times: np.ndarray, tracks: TrackTargets) -> list[Pointer]:
    """Names every object of a scene that the frames at these times show, in every way."""
    nowhere = torch.zeros_like(tracks.owner, dtype=torch.bool)
    last_frame = nowhere.clone()
    last_frame[LAST_FRAME] = True
    shapes = [thing.shape for thing in scene.objects]
    seen_at = [{index: (colour, x, y) for index, colour, x, y, _ in visible_objects(scene, time)} for time in times]
    found = []
    for index, thing in enumerate(scene.objects):
        views = [(time, view[index]) for time, view in zip(times, seen_at) if index in view]
        shown = tracks.owner == index
        if not views or not shown.any():
            continue
        first, last = views[0][1], views[-1][1]
        if thing.brief:
            if len(times) == 1:
                continue
            text = "What colour is the object that appears only for a moment"
            # All that came late, less what is still there.
            came_late, new = tracks.is_late > 0, tracks.is_new > 0
            colour = COLOURS_IN_ORDER.index(first[0])
            found.append(Pointer(text, came_late & last_frame, nowhere, came_late & new, colour=colour))
            continue
        fate, when = _fate(thing, views, times)
        way = tuple((after - before) / SIDE for before, after in zip(first[1:], last[1:]))
        alike = shown & (tracks.colour == tracks.first_colour)
        last_seen = max(frame for frame, view in enumerate(seen_at) if index in view)
        last_shown = shown.clone()
        last_shown[: last_seen * POOLED_GRID**2] = False
        names = [(f"{thing.colour} {thing.shape}", alike)] + [(thing.shape, shown)] * (shapes.count(thing.shape) == 1)
        for name, low in names:
            colour = COLOURS_IN_ORDER.index(last[0])
            found.append(
                Pointer(f"the {name}", last_shown, low, nowhere, colour=colour, fate=fate, way=way, when=when)
            )
            for (moment, frame), view in zip(MOMENTS, (seen_at[0], seen_at[-1])):
                if index in view and thing.keeps_name:
                    there = nowhere.clone()
                    there[frame] = shown[frame]
                    place = tuple(each / SIDE for each in view[index][1:])
                    found.append(Pointer(f"Where is the {name} {moment}", there, nowhere, nowhere, place=place))
    for shape in sorted(set(shapes)):
        count = sum(shapes[index] == shape for index in {index for view in seen_at for index in view})
        found.append(
            Pointer(f"How many {plural(shape)}", last_frame, nowhere, nowhere, count=min(count, MOST_OF_A_SHAPE))
        )
    return found


def pointing_loss(looks: dict[int, Tensor], pointers: list[Pointer]) -> Tensor:
    """How little of the attention of P beginnings to the video, (P, T) by layer, goes where it should."""
    loss = looks[LOW_LAYER].new_zeros(())
    for layer, name in ((LOW_LAYER, "low"), (MIDDLE_LAYER, "middle"), (HIGH_LAYER, "high")):
        wanted = torch.stack([getattr(pointer, name) for pointer in pointers])
        loss = loss + _missed(looks[layer], wanted.to(looks[layer].device))
    return loss


class Names:
    """Finds what questions name: objects, kinds of object and moments."""

    def __init__(self, tokenizer: Qwen2Tokenizer):
        words = (*SHAPES, *map(plural, SHAPES), "object", "moment", "beginning", "end")
        self.names = torch.tensor([tokenizer(f" {word}").input_ids[-1] for word in words])
        self.options = torch.tensor([tokenizer(f" {letter}").input_ids[-1] for letter in LETTERS])
        self.letters = torch.tensor([tokenizer(letter).input_ids[-1] for letter in LETTERS])

    def asking_loss(self, looks: dict[int, Tensor], questions: QuestionTokens) -> Tensor:
        """How little of the attention of questions to themselves, (Q, L) by layer, goes to what they name.

        In the upper layer it is to go to the right option alone, if the options name something.
        """
        named = torch.isin(questions.ids, self.names.to(questions.ids.device))
        chosen = named & self._in_right_option(questions)
        wanted = torch.where(chosen.any(1, keepdim=True), chosen, named)
        lower, upper = ANSWER_LAYERS
        return _missed(looks[lower], named) + _missed(looks[upper], wanted)

    def _in_right_option(self, questions: QuestionTokens) -> Tensor:
        """(Q, L) bool: from the letter that is the answer to the next one."""
        ids = questions.ids
        options, letters = self.options.to(ids.device), self.letters.to(ids.device)
        # Which option each token belongs to: letters stand in order.
        number = (ids.unsqueeze(-1) == options).any(-1).cumsum(1) - 1
        answer = (questions.answers[:, :1] == letters).long()
        right = torch.where(answer.any(1), answer.argmax(1), len(letters))
        return number == right.unsqueeze(1)


def plural(shape: str) -> str:
    """Several of them."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def _fate(thing, views: list, times: np.ndarray) -> tuple[int, float]:
    """What becomes of an object as these frames show it, and when."""
    if views[0][0] > times[0]:
        return FATES.index("appears"), views[0][0]
    if views[-1][0] < times[-1]:
        return FATES.index("vanishes"), views[-1][0]
    changed = [time for time, (colour, *_) in views if colour != views[0][1][0]]
    return (FATES.index("changes"), changed[0]) if changed else (FATES.index("stays"), UNKNOWN)


def _missed(attention: Tensor, wanted: Tensor) -> Tensor:
    points = wanted.any(1)
    if not points.any():
        return attention.new_zeros(())
    return missed((attention[points] * wanted[points]).sum(1))
