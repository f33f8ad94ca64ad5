"""What each method costs of LLaVA-OneVision-7B with 32 frames, the vision tower included.

Beside Eq. 17: with the tower, frame by frame as SigLIP runs, and as Qwen2 computes (grouped heads, a gate in the MLP).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from modeling_aot_llava.cost_model import prefill_flops

from .cost import LLAVA_7B, ReadingCost, reading_cost
from .earlytom import EarlyTom
from .interface import Baseline
from .registry import build_baseline
from .stc_cacher import STCCacher
from .vision_layers import TowerShape

NUM_FRAMES, TOKENS_PER_FRAME = 32, 196
ALL_TOKENS = NUM_FRAMES * TOKENS_PER_FRAME
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
        num_tokens: that the language model's first layer reads.
    """

    what: str
    percent: float
    method: Baseline
    num_tokens: int

    @property
    def cost(self) -> ReadingCost:
        """On LLaVA-OneVision-7B."""
        return reading_cost(self.method, LLAVA_7B, NUM_FRAMES, self.num_tokens)

    @property
    def share_with_tower(self) -> float:
        """Of the stock model's."""
        return self.cost.with_tower / _stock().cost.with_tower

    @property
    def share_as_computed(self) -> float:
        """Of the stock model's."""
        return self.cost.as_computed / _stock().cost.as_computed


def _stock() -> Row:
    return Row("LLaVA-OneVision-7B", 100, Baseline(), ALL_TOKENS)


def honest_costs() -> Iterator[Row]:
    """Every method at every ratio that it has."""
    yield _stock()
    for ratio in RATIOS:
        percent = round(100 * ratio)
        yield Row("AOT", percent, Baseline(), round(ratio * ALL_TOKENS))
        for what, method in _methods(ratio):
            yield Row(what, percent, method, method.num_video_tokens(NUM_FRAMES, TOKENS_PER_FRAME))
    for what, method, percent in (
        ("DyCoke, k = 1", build_baseline("dycoke"), 25),
        ("FastV, K = 2", build_baseline("fastv"), 20),
        ("PDrop, layers 2, 7, 14", build_baseline("pdrop"), 12.5),
        ("FrameFusion, on average", build_baseline("framefusion"), 30),
    ):
        yield Row(what, percent, method, method.num_video_tokens(NUM_FRAMES, TOKENS_PER_FRAME))


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
        ("stock", 82.6, Baseline(), ALL_TOKENS, 1.0),
        ("VisionZip", 45.2, build_baseline("visionzip"), 640, 1.0),
        ("FastVID", 45.2, build_baseline("fastvid"), 640, 1.0),
        ("HoliTom", 44.6, build_baseline("holitom", inner_ratio=0.5), 640, 1.0),
        ("EarlyTom", 32.2, EarlyTom(), 627, 0.704),
    ):
        cost = reading_cost(method, LLAVA_7B, NUM_FRAMES, num_tokens)
        yield name, printed, (share * one_sequence + cost.eq17) / 1e12


def _tower_as_one_sequence(tower: TowerShape) -> int:
    together = replace(tower, num_patches=NUM_FRAMES * tower.num_patches)
    return prefill_flops(
        together.num_patches,
        num_layers=tower.num_layers,
        hidden_size=tower.hidden_size,
        intermediate_size=tower.intermediate_size,
    )


def as_markdown() -> str:
    """All rows as a table, and EarlyTom's column behind it."""
    lines = [
        "| | ratio | tokens | tower, T | Eq. 17, T | both, T | % | both as computed, T | % |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in honest_costs():
        cost = row.cost
        figures = [cost.tower, cost.eq17, cost.with_tower, 1e14 * row.share_with_tower, cost.as_computed]
        figures = [f"{value / 1e12:.2f}" for value in figures]
        figures[3] = f"{100 * row.share_with_tower:.1f}"
        figures.append(f"{100 * row.share_as_computed:.1f}")
        lines.append(f"| {row.what} | {row.percent:g} % | {row.num_tokens} | {' | '.join(figures)} |")
    lines += ["", "| EarlyTom's column, 10 % | printed, T | all frames as one sequence, T |", "|---|---:|---:|"]
    lines += [f"| {name} | {printed} | {recounted:.1f} |" for name, printed, recounted in earlytoms_column()]
    return "\n".join(lines)
