"""The tower's output for the clips that the language model learns from, kept on disk in half precision."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from hub_upload.whole_file import write_whole
from mini_checkpoint.questions import Scene, make_scene, render_clip
from mini_checkpoint.training.model.mini_model import GRID, normalise, tower_output

SAVE_EVERY_CLIPS = 25
MOST_FRAMES_AT_ONCE = 16


class FeatureCache:
    """Clips of one split and number of frames.

    Attributes:
        features: (C, F, N, D) float16, what the projector reads.
        split, first_seed: clip i shows `make_scene(first_seed + i, split)`.
    """

    def __init__(self, features: np.ndarray, split: str, first_seed: int):
        self.features, self.split, self.first_seed = features, split, first_seed

    def __len__(self) -> int:
        return len(self.features)

    @property
    def num_frames(self) -> int:
        """Frames of each clip, at times i / (num_frames - 1)."""
        return self.features.shape[1]

    def scene(self, clip: int) -> Scene:
        """What a clip shows."""
        return make_scene(self.first_seed + clip, self.split)

    def of_clip(self, clip: int, frames: np.ndarray | slice = slice(None)) -> Tensor:
        """(F, N, D) float32, of the chosen frames or all."""
        return torch.from_numpy(self.features[clip, frames].astype(np.float32))


def feature_cache(
    file: Path, vision_tower: nn.Module, split: str, first_seed: int, num_clips: int, num_frames: int, workers: int = 1
) -> FeatureCache:
    """Opens the cache of a file, computing what it lacks. What was computed stays if that is interrupted."""
    shape = (num_clips, num_frames, GRID**2, vision_tower.config.hidden_size)
    progress = file.with_suffix(".json")
    done = json.loads(progress.read_text())["clips"] if progress.exists() else 0
    if done == 0:
        np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape).flush()
    if done < num_clips:
        features = np.load(file, mmap_mode="r+")
        clips = DataLoader(
            _Clips(split, first_seed, num_frames, num_clips),
            batch_size=None,
            sampler=range(done, num_clips),
            num_workers=workers,
        )
        bar = tqdm(clips, desc=f"features {file.stem}", initial=done, total=num_clips, file=sys.stderr)
        for clip, frames in enumerate(bar, start=done):
            features[clip] = _features(vision_tower, frames)
            if (clip + 1) % SAVE_EVERY_CLIPS == 0 or clip + 1 == num_clips:
                features.flush()
                text = json.dumps({"clips": clip + 1})
                write_whole(progress, lambda temporary, text=text: temporary.write_text(text))
    return FeatureCache(np.load(file, mmap_mode="r"), split, first_seed)


class _Clips(Dataset):
    def __init__(self, split: str, first_seed: int, num_frames: int, num_clips: int):
        self.split, self.first_seed, self.num_frames, self.num_clips = split, first_seed, num_frames, num_clips

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, clip: int) -> Tensor:
        return torch.from_numpy(render_clip(make_scene(self.first_seed + clip, self.split), self.num_frames))


@torch.inference_mode()
def _features(vision_tower: nn.Module, frames: Tensor) -> np.ndarray:
    device = next(vision_tower.parameters()).device
    parts = [tower_output(vision_tower, normalise(part.to(device))) for part in frames.split(MOST_FRAMES_AT_ONCE)]
    return torch.cat(parts).half().cpu().numpy()
