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

from mini_checkpoint.questions import COLOURS, SHAPES, SIDE, Scene, visible_objects
from mini_checkpoint.questions.questions import LETTERS
from mini_checkpoint.training.data.patch_targets import COLOURS_IN_ORDER
from mini_checkpoint.training.model.conversations import QuestionTokens

from .tracking_supervision import MOST_OF_A_SHAPE, POOLED_GRID, TrackTargets, missed

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
        looks: where layers are to look, (T,) bool each; layers that may look anywhere are left out.
        colour, fate, count: classes, or UNASKED. place: x and y; way: how far it went to the right and down, in frame
            sides; when: the time of its fate. UNKNOWN where they are not asked for.
    """

    text: str
    looks: dict[int, Tensor]
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
    seen_at = [{index: (colour, x, y) for index, colour, x, y, _ in visible_objects(scene, time)} for time in times]
    found = []
    for index, thing in enumerate(scene.objects):
        views = [(time, view[index]) for time, view in zip(times, seen_at) if index in view]
        shown = tracks.owner == index
        if not views or not shown.any():
            continue
        if not thing.brief:
            found += _to_object(scene, index, views, times, shown, tracks)
        elif len(times) > 1:
            found.append(_to_what_is_gone(views[0][1][0], tracks))
    shapes = [thing.shape for thing in scene.objects]
    for shape in sorted(set(shapes)):
        count = sum(shapes[index] == shape for index in {index for view in seen_at for index in view})
        looks = {HIGH_LAYER: _within(torch.ones_like(tracks.owner, dtype=torch.bool), LAST_FRAME)}
        found.append(Pointer(f"How many {plural(shape)}", looks, count=min(count, MOST_OF_A_SHAPE)))
    return found


def pointing_loss(looks: dict[int, Tensor], pointers: list[Pointer]) -> Tensor:
    """How little of the attention of P beginnings to the video, (P, T) by layer, goes where it should."""
    loss = looks[LOW_LAYER].new_zeros(())
    for layer in (LOW_LAYER, MIDDLE_LAYER, HIGH_LAYER):
        rows = [row for row, pointer in enumerate(pointers) if layer in pointer.looks]
        if rows:
            wanted = torch.stack([pointers[row].looks[layer] for row in rows])
            loss = loss + _missed(looks[layer][rows], wanted.to(loss.device))
    return loss


class Names:
    """Finds what questions name: objects, kinds of object and moments."""

    def __init__(self, tokenizer: Qwen2Tokenizer, device: torch.device):
        def last_tokens(*texts: str) -> Tensor:
            return torch.tensor([tokenizer(text).input_ids[-1] for text in texts], device=device)

        words = (*SHAPES, *map(plural, SHAPES), "object", "moment", "beginning", "end")
        self._names = last_tokens(*(f" {word}" for word in words))
        self._options = last_tokens(*(f" {letter}" for letter in LETTERS))
        self._letters = last_tokens(*LETTERS)

    def asking_loss(self, looks: dict[int, Tensor], questions: QuestionTokens) -> Tensor:
        """How little of the attention of questions to themselves, (Q, L) by layer, goes to what they name.

        In the upper layer it is to go to the right option alone, if the options name something.
        """
        named = torch.isin(questions.ids, self._names)
        chosen = named & self._in_right_option(questions)
        wanted = torch.where(chosen.any(1, keepdim=True), chosen, named)
        lower, upper = ANSWER_LAYERS
        return _missed(looks[lower], named) + _missed(looks[upper], wanted)

    def _in_right_option(self, questions: QuestionTokens) -> Tensor:
        """(Q, L) bool: from the letter that is the answer to the next one."""
        # Which option each token belongs to: letters stand in order.
        number = (questions.ids.unsqueeze(-1) == self._options).any(-1).cumsum(1) - 1
        answer = (questions.answers[:, :1] == self._letters).long()
        right = torch.where(answer.any(1), answer.argmax(1), len(LETTERS))
        return number == right.unsqueeze(1)


def plural(shape: str) -> str:
    """Several of them."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def _to_object(
    scene: Scene, index: int, views: list, times: np.ndarray, shown: Tensor, tracks: TrackTargets
) -> list[Pointer]:
    """By colour and shape, and by the shape alone where no other object has it; at a moment, and at last."""
    thing = scene.objects[index]
    first, (last_time, last) = views[0][1], views[-1]
    fate, when = _fate(thing, views, times)
    way = tuple((after - before) / SIDE for before, after in zip(first[1:], last[1:]))
    last_seen = int(np.flatnonzero(times == last_time)[0]) * POOLED_GRID**2
    last_shown = _within(shown, slice(last_seen, None))
    names = {f"{thing.colour} {thing.shape}": shown & (tracks.colour == tracks.first_colour)}
    if [other.shape for other in scene.objects].count(thing.shape) == 1:
        names[thing.shape] = shown
    found = []
    for name, looks_like_it in names.items():
        looks = {LOW_LAYER: looks_like_it, HIGH_LAYER: last_shown}
        colour = COLOURS_IN_ORDER.index(last[0])
        found.append(Pointer(f"the {name}", looks, colour=colour, fate=fate, way=way, when=when))
        for (moment, frame), time, (seen_time, view) in zip(MOMENTS, times[[0, -1]], (views[0], views[-1])):
            if seen_time == time and thing.keeps_name:
                looks = {HIGH_LAYER: _within(shown, frame)}
                place = tuple(each / SIDE for each in view[1:])
                found.append(Pointer(f"Where is the {name} {moment}", looks, place=place))
    return found


def _to_what_is_gone(colour: str, tracks: TrackTargets) -> Pointer:
    """All that came late, less what is still there: the first is for the middle layer, the second for the high one."""
    came_late = tracks.is_late > 0
    looks = {MIDDLE_LAYER: came_late & (tracks.is_new > 0), HIGH_LAYER: _within(came_late, LAST_FRAME)}
    text = "What colour is the object that appears only for a moment"
    return Pointer(text, looks, colour=COLOURS_IN_ORDER.index(colour))


def _within(tokens: Tensor, part: slice) -> Tensor:
    """Those of the tokens, (T,) bool, that lie in a part of the video."""
    inside = torch.zeros_like(tokens)
    inside[part] = tokens[part]
    return inside


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
