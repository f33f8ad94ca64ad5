"""The loop that both phases share: schedule, log, and a state from which a run goes on as if never interrupted."""

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from hub_upload.whole_file import write_whole
from mini_checkpoint.training.recipe import Schedule

from .optimizers import Optimizers

SAVE_EVERY_SECONDS = 60
LOG_EVERY_STEPS = 20
LAST_RATE_SHARE = 0.02
CLIP_GRADIENT_NORM = 1.0


class BatchOfStep(Dataset):
    """A step's batch as a function of its number alone, so that a resumed run sees what it would have seen."""

    def __init__(self, draw: Callable[[int], dict], steps: int):
        self.draw, self.steps = draw, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict:
        return self.draw(step)


def train(
    name: str,
    module: nn.Module,
    draw: Callable[[int], dict],
    loss_of: Callable[[dict], tuple[torch.Tensor, dict[str, float]]],
    schedule: Schedule,
    state_folder: Path,
    evaluate: Callable[[], dict[str, float]],
    workers: int = 1,
) -> None:
    """Trains a module's parameters that want gradients, going on from the state in the folder if there is one.

    Args:
        name: of the phase; it names the state file and the lines of the log.
        draw: the batch of a step.
        loss_of: the loss of a batch and figures for the log.
        evaluate: held-out figures for the log.
        workers: processes that draw batches ahead; 0 draws in this one.
    """
    optimizer = Optimizers(module, schedule)
    state_file = state_folder / f"{name}.pt"
    step = load_state(state_file, module, optimizer)
    batches = DataLoader(
        BatchOfStep(draw, schedule.steps),
        batch_size=None,
        sampler=range(step, schedule.steps),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    last_saved = started = time.monotonic()
    module.train()
    try:
        for batch in tqdm(batches, desc=name, initial=step, total=schedule.steps, file=sys.stderr, dynamic_ncols=True):
            optimizer.set_rates(rate_share(schedule, step))
            optimizer.zero_grad()
            loss, figures = loss_of(batch)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(optimizer.parameters, CLIP_GRADIENT_NORM)
            optimizer.step()
            step += 1
            if step % LOG_EVERY_STEPS == 0 or step == schedule.steps:
                seconds = time.monotonic() - started
                figures = {"loss": loss.item(), "gradient_norm": norm.item(), **figures}
                append_log(state_folder, phase=name, step=step, seconds=round(seconds, 1), **figures)
            if step % schedule.evaluate_every == 0 or step == schedule.steps:
                module.eval()
                append_log(state_folder, phase=name, step=step, held_out=evaluate())
                module.train()
            if time.monotonic() - last_saved > SAVE_EVERY_SECONDS:
                save_state(state_file, module, optimizer, step)
                last_saved = time.monotonic()
    finally:
        module.eval()
        # Also on Ctrl-C, which is how a run is interrupted.
        save_state(state_file, module, optimizer, step)


def rate_share(schedule: Schedule, step: int) -> float:
    """The learning rate as a share of its peak: linear warm-up, then half a cosine."""
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    progress = (step - schedule.warmup_steps) / max(1, schedule.steps - schedule.warmup_steps)
    cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return LAST_RATE_SHARE + (1 - LAST_RATE_SHARE) * cosine


def save_state(file: Path, module: nn.Module, optimizer: Optimizers, step: int) -> None:
    """Writes the state, or leaves the one before."""
    state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    write_whole(file, lambda temporary: torch.save(state, temporary))


def load_state(file: Path, module: nn.Module, optimizer: Optimizers | None = None) -> int:
    """Takes over a state and returns its step, 0 if there is none."""
    if not file.exists():
        return 0
    state = torch.load(file, map_location="cpu", weights_only=True)
    module.load_state_dict(state["module"])
    if optimizer is not None:
        optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def append_log(state_folder: Path, **fields) -> None:
    """Adds a line to the run's log."""
    with (state_folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(fields) + "\n")
