"""What each method costs of LLaVA-OneVision-7B with 32 frames and LLaVA-Video-7B with 64, the vision tower included.

Beside Eq. 17: with the tower, frame by frame as SigLIP runs, and as Qwen2 computes (grouped heads, a gate in the MLP).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from modeling_aot_llava.cost_model import prefill_flops

from .cost import LLAVA_7B, ReadingCost, reading_cost
from .earlytom import EarlyTom
from .interface import Baseline
from .registry import build_baseline
from .stc_cacher import STCCacher
from .vision_layers import TowerShape

# Frames, and tokens of a frame without newlines.
ONEVISION, LLAVA_VIDEO = (32, 196), (64, 169)
RATIOS = (0.25, 0.20, 0.15, 0.10)
# As its paper's Table 5, which says what share of the frames is left after layer 6.
EARLYTOM_LAYERS = (6, 21, 23)


class STCAsReleased(STCCacher):
    """Its program computes all keys of a frame twice."""

    key_passes = 2


@dataclass(frozen=True)
class Row:
    """A method at a ratio.

    Attributes:
        what: the method, and how it is set.
        percent: its ratio in %.
        video: frames, and tokens of a frame.
        num_tokens: that the language model's first layer reads; by default what the method says.
    """

    what: str
    percent: float
    method: Baseline
    video: tuple[int, int]
    tokens: int | None = None

    @property
    def num_tokens(self) -> int:
        """That the language model's first layer reads."""
        return self.method.num_video_tokens(*self.video) if self.tokens is None else self.tokens

    @property
    def cost(self) -> ReadingCost:
        """Of the 7B model."""
        return reading_cost(self.method, LLAVA_7B, self.video[0], self.num_tokens)

    @property
    def share_with_tower(self) -> float:
        """Of the stock model's."""
        return self.cost.with_tower / _stock(self.video).cost.with_tower

    @property
    def share_as_computed(self) -> float:
        """Of the stock model's."""
        return self.cost.as_computed / _stock(self.video).cost.as_computed


def _stock(video: tuple[int, int]) -> Row:
    return Row("all tokens", 100, Baseline(), video)


def honest_costs(video: tuple[int, int] = ONEVISION) -> Iterator[Row]:
    """Every method that is defined for a model, at every ratio that it has."""
    positions = {"one_token"} if video == ONEVISION else {"grid", "frame"}
    yield _stock(video)
    for ratio in RATIOS:
        percent = round(100 * ratio)
        yield Row("AOT", percent, Baseline(), video, round(ratio * math.prod(video)))
        for what, method in _methods(ratio):
            if positions & set(method.newline_positions):
                yield Row(what, percent, method, video)
    for what, method, percent in (
        ("DyCoke, k = 1", build_baseline("dycoke"), 25),
        ("FastV, K = 2", build_baseline("fastv"), 20),
        ("PDrop, layers 2, 7, 14", build_baseline("pdrop"), 12.5),
        ("FrameFusion, on average", build_baseline("framefusion"), 30),
    ):
        if positions & set(method.newline_positions):
            yield Row(what, percent, method, video)


def _methods(ratio: float) -> Iterator[tuple[str, Baseline]]:
    def build(name: str, **settings) -> Baseline:
        return build_baseline(name, retention_ratio=ratio, **settings)

    early = {"merging_layers": EARLYTOM_LAYERS}
    yield "VisionZip", build("visionzip")
    yield "FastVID, at most", build("fastvid")
    yield "PruneVid, at most", build("prunevid")
    yield "HoliTom, before the model", build("holitom")
    yield "HoliTom", build("holitom", inner_ratio=0.5)
    yield "FlashVID", build("flashvid")
    yield "VidCom2", build("vidcom2")
    yield "STC-Pruner", build("stc_pruner")
    yield "STC-Cacher and -Pruner, as released", STCAsReleased(ratio)
    yield "STC-Cacher and -Pruner", build("stc_cacher")
    yield "STC-Cacher, every fourth frame a reference, and -Pruner", build("stc_cacher", cache_interval=4)
    yield "EarlyTom, before the model", build("earlytom", inner_ratio=1.0, **early)
    yield "EarlyTom", build("earlytom", **early)


def earlytoms_column() -> Iterator[tuple[str, float, float]]:
    """EarlyTom's FLOPs column at 10 %: what is counted, what its paper prints in T, and how one comes by it.

    Its tower lets the patches of all 32 frames attend to each other, which no tower does; of its own it counts 70.4 %
    of that at every ratio.
    """
    one_sequence = _tower_as_one_sequence(LLAVA_7B.tower)
    for name, printed, method, num_tokens, share in (
        ("stock", 82.6, Baseline(), math.prod(ONEVISION), 1.0),
        ("VisionZip", 45.2, build_baseline("visionzip"), 640, 1.0),
        ("FastVID", 45.2, build_baseline("fastvid"), 640, 1.0),
        ("HoliTom", 44.6, build_baseline("holitom", inner_ratio=0.5), 640, 1.0),
        ("EarlyTom", 32.2, EarlyTom(), 627, 0.704),
    ):
        cost = reading_cost(method, LLAVA_7B, ONEVISION[0], num_tokens)
        yield name, printed, (share * one_sequence + cost.eq17) / 1e12


def _tower_as_one_sequence(tower: TowerShape) -> int:
    together = replace(tower, num_patches=ONEVISION[0] * tower.num_patches)
    return prefill_flops(
        together.num_patches,
        num_layers=tower.num_layers,
        hidden_size=tower.hidden_size,
        intermediate_size=tower.intermediate_size,
    )


def as_markdown() -> str:
    """All rows as tables, and EarlyTom's column behind them."""
    lines = []
    for title, video in (("LLaVA-OneVision-7B, 32 frames", ONEVISION), ("LLaVA-Video-7B, 64 frames", LLAVA_VIDEO)):
        lines += [
            f"| {title} | ratio | tokens | tower, T | Eq. 17, T | both, T | % | both as computed, T | % |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
            *map(_line, honest_costs(video)),
            "",
        ]
    lines += ["| EarlyTom's column, 10 % | printed, T | all frames as one sequence, T |", "|---|---:|---:|"]
    lines += [f"| {name} | {printed} | {recounted:.1f} |" for name, printed, recounted in earlytoms_column()]
    return "\n".join(lines)


def _line(row: Row) -> str:
    cost = row.cost
    tower, eq17, both, computed = (
        f"{flops / 1e12:.2f}" for flops in (cost.tower, cost.eq17, cost.with_tower, cost.as_computed)
    )
    shares = f"{100 * row.share_with_tower:.1f}", f"{100 * row.share_as_computed:.1f}"
    cells = [row.what, f"{row.percent:g} %", str(row.num_tokens), tower, eq17, both, shares[0], computed, shares[1]]
    return f"| {' | '.join(cells)} |"
