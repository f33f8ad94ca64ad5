"""What is asked, of transformers and of vLLM alike."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mini_checkpoint.questions import ask, make_scene, render_clip

RATIOS = (0.1, 0.2, 1.0)
SEEDS = (0, 1, 2)
TOLERANCE = 1e-4


class Answer(NamedTuple):
    """Token ids of prompt and answer, its text, and the log-probability of each of its tokens."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str
    logprobs: np.ndarray


@dataclass(frozen=True)
class Case:
    """A question about clips, (seed, number of frames) each, and images; `ratio` None leaves it to the processor."""

    question: str
    clips: tuple[tuple[int, int], ...] = ()
    images: tuple[int, ...] = ()
    ratio: float | None = None
    max_tokens: int = 6

    @property
    def prompt(self) -> str:
        """The chat template's, images first."""
        media = "<image>" * len(self.images) + "<video>" * len(self.clips)
        return f"<|im_start|>user {media}\n{self.question}<|im_end|><|im_start|>assistant\n"


def frames_of(seed: int, num_frames: int) -> np.ndarray:
    """(frames, height, width, 3) uint8."""
    return render_clip(make_scene(seed, "held_out"), num_frames)


def image_of(seed: int) -> np.ndarray:
    """An image that is not square."""
    return np.random.default_rng(seed).integers(0, 256, (120, 260, 3), dtype=np.uint8)


def question_about(seed: int) -> str:
    return ask(make_scene(seed, "held_out"))[0].text


CASES = {
    **{
        f"clip {seed} at {ratio}": Case(question_about(seed), ((seed, 16),), ratio=ratio)
        for seed in SEEDS
        for ratio in RATIOS
    },
    **{f"{frames} frames": Case(question_about(3), ((3, frames),)) for frames in (8, 16, 40, 160)},
    "three lengths in one prompt": Case(question_about(1), ((0, 16), (1, 8), (2, 40))),
    "image and video": Case(question_about(0), ((0, 16),), images=(0,), ratio=0.2),
    "image alone": Case("What is in the picture?", images=(1,)),
    "text alone": Case("What colour is the sky?"),
}
CLIPS_AT_RATIOS = [f"clip {seed} at {ratio}" for seed in SEEDS for ratio in RATIOS]

FRAMES_OF_FILES = 16
RATIO_OF_SERVER = 0.15
QUESTIONS_ABOUT_FILES = {
    (seed, ratio): Case(question_about(seed), ((seed, FRAMES_OF_FILES),), ratio=ratio)
    for seed in SEEDS
    for ratio in (RATIO_OF_SERVER, 0.1, 0.2)
}
