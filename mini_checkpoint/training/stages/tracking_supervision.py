"""Training-only help for the language model: what each video token is to know about the past.

The answers alone say little to a model that sees a clip for the first time: one word for thousands of tokens. So
linear heads, thrown away afterwards, ask the hidden states of the video tokens. Low in the model, a token that shows
an object is asked where that object was when it was first seen and in which colour, how long ago that was, and whether
it was there from the beginning. Somewhat higher, each token of the video is asked how many objects of each shape have
been seen up to its frame, and in which colour one came and went in a moment. The layers above can read all that.

One head of a low layer is shown where all this is to be found: at the tokens that first showed the object. And what
comes out of the projector is to have colour, shape and place of a token's object in certain directions, strong enough
that attention soon finds and carries them; most of what the tower says is about other things.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mini_checkpoint.questions import COLOURS, SHAPES, SIDE, Scene, object_map, visible_objects
from mini_checkpoint.training.data.patch_targets import COLOURS_IN_ORDER, SHAPES_IN_ORDER

POOLED_GRID = 14
MOST_OF_A_SHAPE = 5

SHOWN = ("colour", "shape", "place")
SHOWN_SIZES = (len(COLOURS), len(SHAPES), 2)
# From one border of the frame to the other, a place is from minus to plus so much.
PLACE_REACH = 6.0
OWN_SIZES = {"moved": 2, "first_colour": len(COLOURS), "is_new": 1, "is_late": 1, "age": 1, "time": 1}
COMMON_SIZES = {"seen": len(SHAPES) * (MOST_OF_A_SHAPE + 1), "gone": len(COLOURS)}

# Layers whose output is asked about a token's own object, and about all objects.
OWN_LAYER, COMMON_LAYER = 2, 3
# The head that is to look back at where a token's object was first seen.
TRACKING_LAYER, TRACKING_HEAD = 1, 1
SMALLEST_SHARE = 1e-4
# Times are told as the logarithm of distances between positions, in units of so many.
SHORT_DISTANCE = 20
# Centred, because the heads begin at 0 and learn slowly to be elsewhere.
MIDDLE_LOG, LOG_SPREAD = 3.0, 2.0


@dataclass
class TrackTargets:
    """Targets of one clip's video tokens, T = frames * POOLED_GRID ** 2.

    Attributes:
        owner: (T,) index of the token's object in the scene, -1 for none; what follows is about that object:
        place, moved: (T, 2) x, y of the object's centre, and from where it was first seen to there, in frame sides.
        shape, colour, first_colour: (T,) classes; the colours now and when it was first seen.
        is_new, is_late: (T,) 1 in the first frame that shows it; and where that is not the clip's first frame.
        age, time: (T,) frames since then, and since the clip's start.
        seen: (T, shapes) objects of each shape seen up to the token's frame.
        gone: (T, colours) 1 for the colour of a brief object that has been seen and is gone.
    """

    owner: Tensor
    place: Tensor
    moved: Tensor
    shape: Tensor
    colour: Tensor
    first_colour: Tensor
    is_new: Tensor
    is_late: Tensor
    age: Tensor
    time: Tensor
    seen: Tensor
    gone: Tensor


class TrackingHeads(nn.Module):
    """Reads the language model's hidden states."""

    def __init__(self, width: int):
        super().__init__()
        # Fixed, so that it is the projector that has to speak up.
        directions = nn.init.orthogonal_(torch.empty(sum(SHOWN_SIZES), width))
        self.register_buffer("shown", directions)
        self.own = _Heads(width, OWN_SIZES)
        self.common = _Heads(width, COMMON_SIZES)

    def loss(self, hidden: tuple[Tensor, ...], targets: list[TrackTargets], position_scale: Tensor) -> Tensor:
        """The hidden states of each layer, (C, T, width), and the targets and scales of C clips -> a number."""
        wanted = {name: torch.stack([getattr(target, name) for target in targets]) for name in vars(targets[0])}
        wanted = {name: value.to(hidden[0].device) for name, value in wanted.items()}
        told = self.common(hidden[min(COMMON_LAYER, len(hidden) - 1)])
        seen = told["seen"].unflatten(-1, (len(SHAPES), -1)).flatten(0, -2)
        loss = 0.3 * functional.cross_entropy(seen, wanted["seen"].flatten()) + _yes_or_no(
            told["gone"], wanted["gone"]
        )
        on_object = wanted["owner"] >= 0
        if on_object.any():
            loss = loss + self._shown_loss(hidden[0][on_object], {name: wanted[name][on_object] for name in SHOWN})
            told = self.own(hidden[min(OWN_LAYER, len(hidden) - 1)][on_object])
            wanted = {name: wanted[name][on_object] for name in told}
            loss = loss + 10 * functional.smooth_l1_loss(told["moved"], wanted["moved"], beta=0.1)
            loss = loss + functional.cross_entropy(told["first_colour"], wanted["first_colour"])
            scale = position_scale.unsqueeze(1).expand_as(on_object)[on_object]
            for name in ("age", "time"):
                distance = wanted[name] * POOLED_GRID**2 * scale / SHORT_DISTANCE
                wanted_log = (distance.log1p() - MIDDLE_LOG) / LOG_SPREAD
                loss = loss + functional.smooth_l1_loss(told[name][..., 0], wanted_log, beta=0.1)
            for name in ("is_new", "is_late"):
                loss = loss + 0.5 * _yes_or_no(told[name][..., 0], wanted[name])
        return loss

    def _shown_loss(self, projected: Tensor, wanted: dict[str, Tensor]) -> Tensor:
        colour, shape, place = (projected @ self.shown.T).split(SHOWN_SIZES, dim=-1)
        loss = functional.cross_entropy(colour, wanted["colour"]) + functional.cross_entropy(shape, wanted["shape"])
        return loss + functional.smooth_l1_loss(place, PLACE_REACH * (2 * wanted["place"] - 1))


class _Heads(nn.Module):
    def __init__(self, width: int, sizes: dict[str, int]):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})

    def forward(self, hidden: Tensor) -> dict[str, Tensor]:
        normed = self.norm(hidden)
        return {name: head(normed) for name, head in self.heads.items()}


def track_targets(scene: Scene, times: np.ndarray) -> TrackTargets:
    """Follows the objects of a scene through the frames at these times."""
    shape = (len(times), POOLED_GRID**2)
    owners = np.full(shape, -1)
    place, moved = np.zeros((*shape, 2), np.float32), np.zeros((*shape, 2), np.float32)
    kind, now_colour, first_colour = (np.zeros(shape, np.int64) for _ in range(3))
    is_new, is_late, age, since_start = (np.zeros(shape, np.float32) for _ in range(4))
    seen, gone = np.zeros((*shape, len(SHAPES)), np.int64), np.zeros((*shape, len(COLOURS)), np.float32)
    middle = ((np.arange(POOLED_GRID) + 0.5) * SIDE / POOLED_GRID).astype(int)
    first: dict[int, tuple[float, float, str, int]] = {}
    for frame, time in enumerate(map(float, times)):
        owners[frame] = object_map(scene, time)[np.ix_(middle, middle)].ravel()
        visible = visible_objects(scene, time)
        for index, colour, x, y, _ in visible:
            x0, y0, colour0, frame0 = first.setdefault(index, (x, y, colour, frame))
            shows = owners[frame] == index
            place[frame, shows] = x / SIDE, y / SIDE
            moved[frame, shows] = (x - x0) / SIDE, (y - y0) / SIDE
            kind[frame, shows] = SHAPES_IN_ORDER.index(scene.objects[index].shape)
            now_colour[frame, shows] = COLOURS_IN_ORDER.index(colour)
            first_colour[frame, shows] = COLOURS_IN_ORDER.index(colour0)
            is_new[frame, shows], is_late[frame, shows] = frame == frame0, frame0 > 0
            age[frame, shows], since_start[frame, shows] = frame - frame0, frame
        for index, (*_, colour0, _) in first.items():
            thing = scene.objects[index]
            seen[frame, :, SHAPES_IN_ORDER.index(thing.shape)] += 1
            if thing.brief and index not in [other for other, *_ in visible]:
                gone[frame, :, COLOURS_IN_ORDER.index(colour0)] = 1
    own = (owners, place, moved, kind, now_colour, first_colour, is_new, is_late, age, since_start)
    fields = (*own, seen.clip(max=MOST_OF_A_SHAPE), gone)
    return TrackTargets(*(torch.from_numpy(field).flatten(0, 1) for field in fields))


def look_back_loss(looks_back: list[Tensor], targets: list[TrackTargets]) -> Tensor:
    """How little of the attention of objects' tokens, (M, T) by clip, goes to where their object was first seen."""
    shares = []
    for attention, target in zip(looks_back, targets):
        owner, is_new = target.owner.to(attention.device), target.is_new.to(attention.device) > 0
        there = (owner[owner >= 0].unsqueeze(1) == owner) & is_new
        shares.append((attention * there).sum(1))
    return missed(torch.cat(shares))


def missed(share: Tensor) -> Tensor:
    """A loss on shares of attention that went where they should."""
    return -(share + SMALLEST_SHARE).log().mean()


def _yes_or_no(logits: Tensor, wanted: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, wanted)
