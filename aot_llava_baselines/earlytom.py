"""EarlyTom (arXiv 2605.30010, CVPR 2026): frames that are alike are merged or dropped inside the vision tower.

Program: `viridisGreen/EarlyTom` b909322, `siglip_encoder.py`, `earlytom/llava_arch.py`, `modeling_qwen2.py`, for
LLaVA-OneVision; on LLaVA-Video it keeps only the first frame of a run and puts a newline after every token. Threshold
and layers are chosen for each benchmark and ratio; here they are VideoMME's, and for other ratios those that it has
without any set. Where it claims to merge the last pair of a run it drops a frame. In the model it does what HoliTom
does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers import LlavaOnevisionConfig

from .interface import EncodedVideo, ReducedVideo, check_count
from .merging_decoder import MergesInside
from .ranking import greatest
from .vision_layers import TowerOutput, TowerShape, VisionLayers, num_layers_read

MOMENTUM = 0.9
# Threshold and layers of VideoMME's runs by ratio.
VIDEOMME = {0.10: (0.3, (10, 21, 23)), 0.15: (0.4, (8, 21, 23)), 0.20: (0.5, (8, 21, 23)), 0.25: (0.7, (10, 21, 23))}
WITHOUT_VARIABLES = (0.6, (6, 21, 23))
# Its Table 5: the mean share of the frames that the first merging layer leaves.
SHARE_AFTER_FIRST = 0.739

# A frame that goes on: the first of two frames, the second, and the weight of the first.
Mix = tuple[int, int, float]


def frame_similarities(hidden: Tensor) -> list[list[float]]:
    """Mean over the patches of the cosine of each two frames: (F, N, C) -> F lists of F."""
    units = torch.nn.functional.normalize(hidden.float(), dim=-1)
    return (torch.einsum("anc,bnc->ab", units, units) / hidden.shape[1]).tolist()


def find_runs(similarity: Sequence[Sequence[float]], threshold: float, longest: int) -> list[tuple[int, int]]:
    """First and last frame of runs that resemble their first frame, each shorter than `longest` frames."""
    first, smoothed, runs = 0, 1.0, []
    for frame in range(1, len(similarity)):
        smoothed = MOMENTUM * similarity[first][frame] + (1 - MOMENTUM) * smoothed
        if smoothed < threshold or frame - first + 1 >= longest:
            runs.append((first, frame - 1))
            first, smoothed = frame, 1.0
    return [*runs, (first, len(similarity) - 1)]


def merging_plan(similarity: Sequence[Sequence[float]], runs: Sequence[tuple[int, int]]) -> list[Mix]:
    """What becomes of the frames: of longer runs first and last stay, and those between are merged in pairs."""
    plan: list[Mix] = []
    for first, last in runs:
        plan.append((first, first, 1.0))
        plan += _mixes_between(similarity, first, last)
        if last > first:
            plan.append((last, last, 1.0))
    return plan


def _mixes_between(similarity: Sequence[Sequence[float]], first: int, last: int) -> list[Mix]:
    frames = range(first + 1, last)
    if len(frames) <= 1:
        return [(frame, frame, 1.0) for frame in frames]
    of_pairs = [similarity[frame][frame + 1] for frame in frames[:-1]]
    mixes, place = [], 0
    while place < len(of_pairs):
        frame, own = frames[place], of_pairs[place]
        is_last_pair = place == len(of_pairs) - 1
        following = -math.inf if is_last_pair else of_pairs[place + 1]
        if own > similarity[first][last] and own > following:
            # Of the last pair the second is dropped, for all that its program says.
            mixes.append((frame, frame + 1, 1.0 if is_last_pair else own / (own + following)))
            place += 2
        else:
            mixes.append((frame, frame, 1.0))
            place += 1
    return mixes  # a last frame that is reached alone is dropped


def merge_frames(values: Tensor, plan: Sequence[Mix]) -> Tensor:
    """(F, ...) -> (F', ...)."""
    first, second, weights = zip(*plan)
    weight = torch.tensor(weights, dtype=values.dtype, device=values.device).view(-1, *[1] * (values.dim() - 1))
    return weight * values[list(first)] + (1 - weight) * values[list(second)]


def earlytom(
    tokens: Tensor, attention: Tensor, runs: Sequence[tuple[int, int]], retention_ratio: float, num_frames: int
) -> tuple[Tensor, Tensor]:
    """After the tower: the most attended of frames at the ends of runs, and of windows of the frames between.

    Args:
        tokens: (F', P, D), after projector and pooling, of the frames that are left of `num_frames`.
        attention: (F', P).
        runs: first and last frame of each.
        retention_ratio: share of the tokens of all frames.

    Returns:
        (n, D), unchanged, and their places, (n,), in order.
    """
    left, num_places = tokens.shape[:2]
    total = num_frames * num_places
    ratio = min(retention_ratio / ((total - (num_frames - left) * num_places) / total), 1)
    count, num_windows = math.ceil(num_places * ratio), max(1, round(num_places * ratio))
    at_ends = {frame for run in runs for frame in run}
    most_attended = greatest(attention, count).sort(-1).values
    of_windows = greatest_of_windows(attention, num_windows)
    kept = torch.cat(
        [frame * num_places + (most_attended if frame in at_ends else of_windows)[frame] for frame in range(left)]
    )
    return tokens.flatten(0, 1)[kept], kept


def greatest_of_windows(scores: Tensor, num_windows: int) -> Tensor:
    """The place of the greatest score of each window of a frame, the first ones one longer: (F, P) -> (F, windows)."""
    shortest, remainder = divmod(scores.shape[1], num_windows)
    number = torch.arange(num_windows, device=scores.device)
    starts = number * shortest + number.clamp(max=remainder)
    places = starts.unsqueeze(1) + torch.arange(shortest + 1, device=scores.device)
    in_window = places < starts.unsqueeze(1) + shortest + (number < remainder).unsqueeze(1)
    of_windows = scores[:, places.clamp(max=scores.shape[1] - 1)].masked_fill(~in_window, -math.inf)
    return starts + of_windows.argmax(-1)


@dataclass(frozen=True)
class EarlyTom(MergesInside):
    """EarlyTom.

    Attributes:
        retention_ratio: share of the video tokens; it keeps a little more.
        similarity_threshold: tau; if None, VideoMME's at its ratios, else 0.6.
        merging_layers: of the vision tower, counted from 0, after which frames are merged; if None likewise.
        longest_run: M; runs are shorter than it.
        layer, inner_ratio, mask: as in `MergesInside`.
    """

    name: ClassVar[str] = "earlytom"

    retention_ratio: float = 0.10
    similarity_threshold: float | None = None
    merging_layers: tuple[int, ...] | None = None
    longest_run: int = 6
    inner_ratio: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        check_count("longest_run", self.longest_run, least=2)
        layers = self.layers_of_tower
        for layer in layers:
            check_count("merging_layers", layer, least=0)
        if not layers or list(layers) != sorted(set(layers)):
            raise ValueError(f"merging_layers is {layers!r}, but must be ascending layers, at least one.")

    @property
    def threshold(self) -> float:
        """tau."""
        chosen, _ = VIDEOMME.get(self.retention_ratio, WITHOUT_VARIABLES)
        return chosen if self.similarity_threshold is None else self.similarity_threshold

    @property
    def layers_of_tower(self) -> tuple[int, ...]:
        """After which frames are merged."""
        _, chosen = VIDEOMME.get(self.retention_ratio, WITHOUT_VARIABLES)
        return chosen if self.merging_layers is None else self.merging_layers

    def check_model(self, config: LlavaOnevisionConfig) -> None:
        super().check_model(config)
        num_layers = num_layers_read(config)
        if self.layers_of_tower[-1] >= num_layers:
            raise ValueError(
                f"merging_layers is {self.layers_of_tower}, but the model reads {num_layers} layers of its vision "
                "tower, counted from 0: set others."
            )

    @property
    def tower_settings(self) -> tuple:
        return self.name, self.threshold, self.layers_of_tower, self.longest_run

    def run_tower(self, tower: VisionLayers, frames: Tensor) -> TowerOutput:
        return self.run_layers(tower, tower.embed(frames))

    def run_layers(self, tower: VisionLayers, hidden: Tensor) -> TowerOutput:
        """From what goes into the first layer, (F, N, C)."""
        merging, frames_per_layer = self.layers_of_tower, []
        for index, layer in enumerate(tower.layers):
            frames_per_layer.append(len(hidden))
            given, hidden = hidden, layer(hidden, attention_mask=None)
            if index in merging:
                plan = self._plan(hidden)
                hidden = merge_frames(hidden, plan)
            if index == merging[-1]:
                received = merge_frames(self._received(tower, index, given), plan)
                runs = self._runs(frame_similarities(hidden))
        keys = layer.self_attn.k_proj(layer.layer_norm1(given))
        if index == merging[-1]:
            keys = merge_frames(keys, plan)
        return TowerOutput(hidden, received, tower.mean_over_heads(keys), tuple(runs), tuple(frames_per_layer))

    def _plan(self, hidden: Tensor) -> list[Mix]:
        similarity = frame_similarities(hidden)
        return merging_plan(similarity, self._runs(similarity))

    def _runs(self, similarity: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
        return find_runs(similarity, self.threshold, self.longest_run)

    def _received(self, tower: VisionLayers, index: int, given: Tensor) -> Tensor:
        layer = tower.layers[index]
        normed = layer.layer_norm1(given)
        return tower.attention_received(index, layer.self_attn.q_proj(normed), layer.self_attn.k_proj(normed))

    def reduce(self, video: EncodedVideo) -> ReducedVideo:
        if not video.runs:
            raise ValueError(
                "The video has no runs of frames, so another method's run of the tower has encoded it: give "
                "`encode_video` this method."
            )
        tokens, _ = earlytom(video.tokens, video.attention, video.runs, self.retention_ratio, video.num_frames)
        return ReducedVideo(tokens)

    def frames_per_layer(self, num_frames: int, tower: TowerShape) -> list[float]:
        """As on average in its paper: the first merging layer leaves 73.9 % of the frames; later ones are not told."""
        whole = min(self.layers_of_tower[0] + 1, tower.num_layers)
        return [num_frames] * whole + [SHARE_AFTER_FIRST * num_frames] * (tower.num_layers - whole)

    def num_video_tokens(self, num_frames: int, tokens_per_frame: int) -> int:
        return round(self.retention_ratio * num_frames * tokens_per_frame)
