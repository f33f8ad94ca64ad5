"""STC-Cacher (arXiv 2512.00891, CVPR 2026): frames that update a part of what the vision tower made of an earlier one.

Program: `lern-to-write/STC` 9b13ce0, `model/custom_siglip.py`, for LLaVA-OneVision. Every second frame is a reference,
which runs as always. Of the others each layer computes a quarter of the patches, those whose keys differ most from the
reference's; to the other patches it adds the reference's updates. All tokens come out, and another method, its own
pruner by default, chooses among them. The program computes all keys twice, here they are computed once.

The attention that a patch receives, which some of those methods look at, is computed from all queries at the last
layer: the program has no use for it.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import LlavaOnevisionConfig

from .dycoke import DyCoke
from .fastv import FastV
from .fastvid import FastVID
from .flashvid import FlashVID
from .framefusion import FrameFusion
from .holitom import HoliTom
from .interface import (
    Baseline,
    EncodedVideo,
    PromptSpan,
    ReducedVideo,
    check_choice,
    check_count,
    check_share,
    take_rows,
)
from .pdrop import PDrop
from .prunevid import PruneVid
from .ranking import greatest
from .stc_pruner import STCPruner
from .vidcom2 import VidCom2
from .vision_layers import TowerOutput, TowerShape, VisionLayers
from .visionzip import VisionZip

BEHIND = {
    method.name: method
    for method in (
        *(STCPruner, VisionZip, VidCom2, FlashVID, HoliTom, FastVID, PruneVid, DyCoke),
        *(FastV, PDrop, FrameFusion),
    )
}


@dataclass(frozen=True)
class Schedule:
    """Which frames are references.

    Attributes:
        full: the references' frames.
        others: the other frames.
        updated: for each of these, where in `full` the reference stands that it updates.
    """

    full: Tensor
    others: Tensor
    updated: Tensor

    @classmethod
    def of(cls, num_frames: int, chunk_size: int, interval: int, device: torch.device) -> "Schedule":
        """Every `interval`-th chunk is a reference, and its last frame is looked at.

        Frames that do not fill a chunk count as the last full one.
        """
        last_chunk = max(0, num_frames // chunk_size - 1)
        is_full = [min(frame // chunk_size, last_chunk) % interval == 0 for frame in range(num_frames)]
        full = [frame for frame in range(num_frames) if is_full[frame]]
        others = [frame for frame in range(num_frames) if not is_full[frame]]
        updated = [sum(is_full[:frame]) - 1 for frame in others]
        return cls(*(torch.tensor(part, dtype=torch.long, device=device) for part in (full, others, updated)))


def cached_layer(layer: nn.Module, hidden: Tensor, schedule: Schedule, share: float) -> tuple[Tensor, Tensor]:
    """Runs one of the tower's layers.

    Args:
        layer: of SigLIP.
        hidden: (F, N, C).
        share: of the patches that the other frames compute, rounded down, one or more.

    Returns:
        (F, N, C), and which patches the other frames computed, (frames, patches), ascending.
    """
    attention, full = layer.self_attn, schedule.full
    normed = layer.layer_norm1(hidden)
    keys = attention.k_proj(normed)
    # References, as always.
    values = attention.v_proj(normed[full])
    attended = attention.out_proj(_mix(layer, attention.q_proj(normed[full]), keys[full], values))
    between = hidden[full] + attended
    fed = layer.mlp(layer.layer_norm2(between))
    result = torch.empty_like(hidden).index_copy(0, full, between + fed)

    # The others, each beside its reference.
    others, beside = schedule.others, schedule.updated
    if len(others) == 0:
        return result, torch.empty(0, 0, dtype=torch.long, device=hidden.device)
    own = keys[others]
    likeness = torch.cosine_similarity(own, keys[full[beside]], dim=-1)
    rows = greatest(-likeness, max(1, int(hidden.shape[1] * share))).sort(-1).values
    of_rows = take_rows(normed[others], rows)
    new_values = _with_rows(values[beside], rows, attention.v_proj(of_rows))
    new_attended = attention.out_proj(_mix(layer, attention.q_proj(of_rows), own, new_values))
    between = hidden[others] + _with_rows(attended[beside], rows, new_attended)
    new_fed = layer.mlp(layer.layer_norm2(take_rows(between, rows)))
    return result.index_copy(0, others, between + _with_rows(fed[beside], rows, new_fed)), rows


def _with_rows(values: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    return values.scatter(1, rows.unsqueeze(-1).expand_as(new), new)


def _mix(layer: nn.Module, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of projections: (F, n, C) and twice (F, N, C) -> (F, n, C)."""
    num_heads = layer.self_attn.num_heads
    of_heads = [part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in (queries, keys, values)]
    return nn.functional.scaled_dot_product_attention(*of_heads).transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class STCCacher(Baseline):
    """STC-Cacher, and a method behind it.

    Attributes:
        retention_ratio: of the method behind it; 1 leaves all tokens where that is its own pruner.
        then: the method that chooses among the tokens, one of `BEHIND`, with its other settings as they are.
        update_token_ratio: s, share of the patches that a frame computes which is no reference.
        cache_interval: g; every g-th chunk is a reference.
        encode_chunk_size: frames of a chunk.
    """

    name: ClassVar[str] = "stc_cacher"
    # How often all keys of a frame are computed that is no reference.
    key_passes: ClassVar[int] = 1

    retention_ratio: float = 0.10
    then: str = STCPruner.name
    update_token_ratio: float = 0.25
    cache_interval: int = 2
    encode_chunk_size: int = 1

    def __post_init__(self):
        super().__post_init__()
        check_choice("then", self.then, tuple(BEHIND))
        check_share("update_token_ratio", self.update_token_ratio)
        check_count("cache_interval", self.cache_interval)
        check_count("encode_chunk_size", self.encode_chunk_size)
        self._behind()  # raises where it does not allow the ratio

    def _behind(self) -> Baseline:
        return BEHIND[self.then](retention_ratio=self.retention_ratio)

    @property
    def tower_settings(self) -> tuple:
        return self.name, self.update_token_ratio, self.cache_interval, self.encode_chunk_size

    def run_tower(self, tower: VisionLayers, frames: Tensor) -> TowerOutput:
        return self.run_layers(tower, tower.embed(frames))

    def run_layers(self, tower: VisionLayers, hidden: Tensor) -> TowerOutput:
        """From what goes into the first layer, (F, N, C)."""
        schedule = Schedule.of(len(hidden), self.encode_chunk_size, self.cache_interval, hidden.device)
        for layer in tower.layers:
            last_input = hidden
            hidden, _ = cached_layer(layer, hidden, schedule, self.update_token_ratio)
        normed, attention = layer.layer_norm1(last_input), layer.self_attn
        keys = attention.k_proj(normed)
        received = tower.attention_received(-1, attention.q_proj(normed), keys)
        return TowerOutput(hidden, received, tower.mean_over_heads(keys))

    def frames_per_layer(self, num_frames: int, tower: TowerShape) -> list[float]:
        schedule = Schedule.of(num_frames, self.encode_chunk_size, self.cache_interval, torch.device("cpu"))
        work = len(schedule.full) + len(schedule.others) * self.work_of_update(tower)
        return [work] * tower.num_layers

    def work_of_update(self, tower: TowerShape) -> float:
        """What a frame that is no reference costs, as a share of one that is."""
        patches, width, wide = tower.num_patches, tower.hidden_size, tower.intermediate_size
        rows = max(1, int(patches * self.update_token_ratio))
        keys = self.key_passes * patches * width**2
        return (keys + rows * (3 * width**2 + 2 * width * wide) + 2 * rows * patches * width) / tower.flops_per_layer

    def reduce(self, video: EncodedVideo) -> ReducedVideo:
        return self._behind().reduce(video)

    @property
    def works_inside(self) -> bool:
        return self._behind().works_inside

    def check_model(self, config: LlavaOnevisionConfig) -> None:
        self._behind().check_model(config)

    def wrap(self, language_model: nn.Module, span: PromptSpan, video: ReducedVideo) -> nn.Module | None:
        return self._behind().wrap(language_model, span, video)

    def num_video_tokens(self, num_frames: int, tokens_per_frame: int) -> int:
        return self._behind().num_video_tokens(num_frames, tokens_per_frame)

    def tokens_per_layer(self, num_tokens: int, num_layers: int) -> list[int]:
        return self._behind().tokens_per_layer(num_tokens, num_layers)
