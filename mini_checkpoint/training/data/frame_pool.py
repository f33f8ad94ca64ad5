"""Single frames with the targets of their patches, drawn once and kept on disk while the vision tower learns."""

import multiprocessing
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from hub_upload.whole_file import write_whole
from mini_checkpoint.questions import SIDE, make_scene, render_clip
from mini_checkpoint.training.model.mini_model import GRID, PATCH

from .patch_targets import CELL, PatchTargets, patch_targets

NUM_PATCHES = GRID * GRID
WINDOW = 10


class FramePool:
    """Frames of many scenes, a few of each.

    Attributes:
        frames: (F, SIDE, SIDE, 3) uint8.
        targets: the fields of `PatchTargets` with F in front.
    """

    def __init__(self, frames: np.ndarray, targets: dict[str, np.ndarray]):
        self.frames, self.targets = frames, targets

    def __len__(self) -> int:
        return len(self.frames)

    def batch(self, chosen: np.ndarray) -> dict[str, Tensor]:
        """The chosen frames with their targets, and two more for each patch.

        `place` (F, N, 2) says where it is, `around` (F, N, WINDOW ** 2) which cells around it show the same object.
        """
        batch = {name: _tensor(values[chosen]) for name, values in self.targets.items()}
        batch["frames"] = torch.from_numpy(self.frames[chosen])
        batch["place"] = _places().expand(len(chosen), -1, -1)
        batch["around"] = _around(batch.pop("cells"), batch["owner"])
        return batch

    def sparse_batch(self, chosen: np.ndarray, num_patches: int, draw: np.random.Generator) -> dict[str, Tensor]:
        """The same for a few patches of each frame: those of objects and, for the rest, random ones.

        `patches`, (F, n), says which; the other entries are those of these patches.
        """
        batch = self.batch(chosen)
        chance = torch.from_numpy(draw.random((len(chosen), NUM_PATCHES)))
        patches = (chance - (batch["owner"] != -1).double()).argsort(1)[:, :num_patches]
        rows = torch.arange(len(chosen)).unsqueeze(1)
        whole = ("frames", "counts")
        batch = {name: value if name in whole else value[rows, patches] for name, value in batch.items()}
        batch["patches"] = patches
        return batch


def frame_pool(file: Path, split: str, seed: int, num_scenes: int, frames_a_scene: int, workers: int) -> FramePool:
    """Opens the pool of a file, drawing it first if it is not there.

    Args:
        file: of the frames, `.npy`; the targets are next to it.
        seed: of the first scene.
        workers: processes that draw; 0 draws in this one.
    """
    targets_file = file.with_suffix(".npz")
    if not targets_file.exists():
        _draw(file, targets_file, split, range(seed, seed + num_scenes), frames_a_scene, workers)
    with np.load(targets_file) as targets:
        return FramePool(np.load(file, mmap_mode="r"), dict(targets))


def _draw(file: Path, targets_file: Path, split: str, seeds: range, frames_a_scene: int, workers: int) -> None:
    shape = (len(seeds) * frames_a_scene, SIDE, SIDE, 3)
    pool = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    targets: list[PatchTargets] = []
    draw = partial(_draw_scene, split, frames_a_scene)
    with multiprocessing.get_context("spawn").Pool(workers) if workers else nullcontext() as processes:
        scenes = processes.imap(draw, seeds, chunksize=8) if workers else map(draw, seeds)
        for frames, of_frames in tqdm(scenes, total=len(seeds), desc=f"drawing {split} frames", file=sys.stderr):
            pool[len(targets) : len(targets) + len(frames)] = frames
            targets += of_frames
    pool.flush()
    arrays = {name: np.stack([getattr(target, name) for target in targets]) for name in vars(targets[0])}
    # Last, because it is what says that the pool is complete.
    write_whole(targets_file, lambda temporary: np.savez(temporary, **arrays))


def _draw_scene(split: str, frames_a_scene: int, seed: int) -> tuple[np.ndarray, list[PatchTargets]]:
    scene = make_scene(seed, split)
    times = np.arange(frames_a_scene) / max(1, frames_a_scene - 1)
    return render_clip(scene, frames_a_scene), [patch_targets(scene, float(time)) for time in times]


def _tensor(values: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(values)
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def _around(cells: Tensor, owner: Tensor) -> Tensor:
    """(F, CELLS, CELLS) and (F, N) -> (F, N, WINDOW ** 2) of 0 and 1, the window being centred on the patch."""
    cells_a_patch = PATCH // CELL
    margin = (WINDOW - cells_a_patch) // 2
    padded = functional.pad(cells.float().unsqueeze(1), (margin,) * 4, value=-1.0)
    windows = functional.unfold(padded, WINDOW, stride=cells_a_patch).transpose(1, 2)
    return (windows == owner.unsqueeze(-1)).float()


def _places() -> Tensor:
    """(N, 2), the x and y of each patch in frame sides."""
    middle = (torch.arange(GRID) + 0.5) / GRID
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)
