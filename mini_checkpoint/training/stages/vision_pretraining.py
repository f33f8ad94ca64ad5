"""Single-frame pretraining of the vision tower.

Every patch that shows an object is to tell its colour, shape, radius, centre and outline nearby; every patch is to
tell its own place, the centre of the nearest object, and how many objects of each shape the frame shows. The latter is
why patches of the background learn to attend to objects, as those of a real encoder do. What colours the rest of the
frame has no patch is asked, so a token of the background is no substitute for the objects' own.
"""

import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mini_checkpoint.questions import SHAPES, SIDE
from mini_checkpoint.training.data.frame_pool import WINDOW, FramePool
from mini_checkpoint.training.data.patch_targets import COLOUR_CLASSES, MOST_COUNTED, SHAPE_CLASSES
from mini_checkpoint.training.model.mini_model import normalise, tower_output
from mini_checkpoint.training.recipe import VisionRecipe

from .training_loop import train

HEADS = {
    "colour": COLOUR_CLASSES,
    "shape": SHAPE_CLASSES,
    "radius": 1,
    "centre": 2,
    "place": 2,
    "around": WINDOW**2,
    "counts": (1 + len(SHAPES)) * (MOST_COUNTED + 1),
}


class PretrainedTower(nn.Module):
    """The vision tower with linear heads that are thrown away afterwards."""

    def __init__(self, vision_tower: nn.Module):
        super().__init__()
        self.vision_tower = vision_tower
        width = vision_tower.config.hidden_size
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in HEADS.items()})

    def forward(self, frames: Tensor, patches: Tensor | None = None) -> dict[str, Tensor]:
        """(F, SIDE, SIDE, 3) uint8 -> for each head (F, n, size)."""
        hidden = self.norm(tower_output(self.vision_tower, normalise(frames), patches))
        return {name: head(hidden) for name, head in self.heads.items()}


def pretrain_vision(
    tower: PretrainedTower,
    frames: FramePool,
    held_out: FramePool,
    recipe: VisionRecipe,
    seed: int,
    state_folder: Path,
    workers: int = 1,
) -> None:
    """Trains the tower, or goes on with the state in the folder."""
    device = next(tower.parameters()).device

    def loss_of(batch: dict) -> tuple[Tensor, dict[str, float]]:
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        losses = _losses(tower(batch["frames"], batch.get("patches")), batch)
        return sum(losses.values()), {name: loss.item() for name, loss in losses.items()}

    draw = partial(_batch_of_step, frames, recipe, seed)
    held_out_figures = partial(evaluate_vision, tower, held_out)
    train("vision", tower, draw, loss_of, recipe.schedule, state_folder, held_out_figures, workers)


@torch.no_grad()
def evaluate_vision(tower: PretrainedTower, held_out: FramePool) -> dict[str, float]:
    """Accuracy on patches of objects, error of their centre in pixels, and accuracy of the counts on all patches."""
    device = next(tower.parameters()).device
    parts = []
    for frames in np.array_split(np.arange(len(held_out)), math.ceil(len(held_out) / 16)):
        part = {name: value.to(device) for name, value in held_out.batch(frames).items()}
        told = tower(part["frames"])
        is_object, background = part["owner"] >= 0, part["owner"] == -1
        counts = told["counts"].unflatten(-1, (1 + len(SHAPES), -1)).argmax(-1) == part["counts"].unsqueeze(1)
        small = is_object & (part["radius"] < 0.4)
        right_shape = told["shape"].argmax(-1) == part["shape"]
        right_colour = told["colour"].argmax(-1) == part["colour"]
        error = (told["centre"] - part["centre"]).norm(dim=-1) * SIDE
        parts.append(
            torch.stack(
                [
                    right_colour[is_object].float().mean(),
                    right_shape[is_object].float().mean(),
                    right_shape[small].float().mean(),
                    right_colour[background].float().mean(),
                    error[is_object].mean(),
                    counts[..., 0].float().mean(),
                    counts[..., 1:].float().mean(),
                ]
            )
        )
    names = ("colour", "shape", "small_shape", "background", "centre_error", "count", "counts_by_shape")
    return dict(zip(names, [round(value, 4) for value in torch.stack(parts).nanmean(0).tolist()]))


def _batch_of_step(pool: FramePool, recipe: VisionRecipe, seed: int, step: int) -> dict[str, Tensor]:
    draw = np.random.default_rng([seed, step])
    if step < recipe.sparse_share * recipe.schedule.steps:
        chosen = draw.choice(len(pool), recipe.batch_size, replace=False)
        batch = pool.sparse_batch(chosen, recipe.sparse_patches, draw)
    else:
        batch = pool.batch(draw.choice(len(pool), recipe.full_batch_size, replace=False))
    return _without_colour(batch, torch.from_numpy(draw.random(len(batch["frames"])) < recipe.grey_share))


def _without_colour(batch: dict[str, Tensor], grey: Tensor) -> dict[str, Tensor]:
    """Takes the colour from some frames, and does not ask for it there.

    That makes shapes independent of colours, so that a combination that training never shows is recognised too.
    """
    frames = batch["frames"]
    brightness = frames[grey].float().mean(-1, keepdim=True).to(frames.dtype)
    frames[grey] = brightness.expand(-1, -1, -1, 3)
    return {**batch, "has_colour": ~grey}


def _losses(told: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weighted terms of the loss."""
    on_object = batch["weight"] * (batch["owner"] >= 0)
    on_background = batch["weight"] * (batch["owner"] == -1)
    colour, shape = (_cross_entropy(told[name], batch[name]) for name in ("colour", "shape"))
    centre = functional.smooth_l1_loss(told["centre"], batch["centre"], reduction="none", beta=0.05).sum(-1)
    radius = functional.smooth_l1_loss(told["radius"][..., 0], batch["radius"], reduction="none", beta=0.05)
    around = functional.binary_cross_entropy_with_logits(told["around"], batch["around"], reduction="none").mean(-1)
    counts = told["counts"].unflatten(-1, (1 + len(SHAPES), -1))
    counts = _cross_entropy(counts, batch["counts"].unsqueeze(1).expand(counts.shape[:-1])).mean(-1)
    has_colour = batch["has_colour"].unsqueeze(1)
    return {
        "colour": _mean(colour, on_object * has_colour) + 0.5 * _mean(colour, on_background * has_colour),
        "shape": _mean(shape, on_object),
        "centre": 5 * _mean(centre, on_object) + _mean(centre, on_background * batch["has_centre"]),
        "radius": 2 * _mean(radius, on_object),
        "around": 3 * _mean(around, on_object),
        "place": 2 * functional.smooth_l1_loss(told["place"], batch["place"], beta=0.05),
        "counts": 0.3 * counts.mean(),
    }


def _cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), classes.flatten(), reduction="none").view(classes.shape)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)
