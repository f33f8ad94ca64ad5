"""The FLOPs columns of the paper's Tables 1 and 2, from each method's own layers and tokens; then the whole cost.

`python -m aot_llava_baselines.flops_table` prints both; `honest_flops` counts the second.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from .cost import LLAVA_7B, ReadingCost, reading_cost
from .honest_flops import as_markdown as honest_markdown
from .interface import Baseline
from .registry import build_baseline

# Frames, and tokens of a frame without newlines.
LLAVA_ONEVISION, LLAVA_VIDEO = (32, 196), (64, 169)
ONE_FRAME_COUNT = "one count a frame, for all methods of the row"
AS_RUN = "as its program runs"


@dataclass(frozen=True)
class Cost:
    """One way to come by a printed figure, or not.

    Attributes:
        what: the method, and how it was counted.
        video: frames and tokens of a frame.
        method: its layers.
        tokens_per_frame: that the first layer reads; None: what the method itself says.
        printed: the paper's FLOPs in T and in % of all tokens.
    """

    what: str
    video: tuple[int, int]
    method: Baseline = field(repr=False)
    tokens_per_frame: int | None
    printed: tuple[float, float]

    @property
    def num_tokens(self) -> int:
        """What the first layer reads."""
        frames, _ = self.video
        if self.tokens_per_frame is not None:
            return frames * self.tokens_per_frame
        return self.method.num_video_tokens(*self.video)

    @property
    def teraflops(self) -> float:
        """By Eq. 17."""
        return self.cost.eq17 / 1e12

    @property
    def cost(self) -> ReadingCost:
        """With the vision tower, and as Qwen2 computes."""
        return reading_cost(self.method, LLAVA_7B, self.video[0], self.num_tokens)

    @property
    def percent(self) -> float:
        """Of all tokens; the paper divides the figures that it prints."""
        frames, tokens_per_frame = self.video
        whole = reading_cost(Baseline(), LLAVA_7B, frames, frames * tokens_per_frame).eq17 / 1e12
        return 100 * round(self.teraflops, 1) / round(whole, 1)

    @property
    def is_printed(self) -> bool:
        """Whether the paper prints these figures."""
        return (round(self.teraflops, 1), round(self.percent, 1)) == self.printed

    @property
    def layers(self) -> str:
        """Layers times tokens, as `2 x 6272 + 26 x 1254`."""
        counts = self.method.tokens_per_layer(self.num_tokens, LLAVA_7B.num_layers)
        return " + ".join(f"{counts.count(count)} x {count}" for count in dict.fromkeys(counts))


def paper_costs() -> Iterator[Cost]:
    """Every figure of the two columns, and what methods that keep another count really cost."""
    plain = build_baseline("visionzip")
    fastv, pdrop = build_baseline("fastv"), build_baseline("pdrop")
    yield Cost("LLaVA-OneVision-7B", LLAVA_ONEVISION, plain, 196, (40.8, 100.0))
    yield Cost("FastV", LLAVA_ONEVISION, fastv, None, (9.3, 22.8))
    yield Cost("PDrop", LLAVA_ONEVISION, pdrop, None, (10.5, 25.7))
    yield Cost("DyCoke, k = 1", LLAVA_ONEVISION, build_baseline("dycoke"), None, (8.7, 21.3))
    released = build_baseline("dycoke", merging_ratio=1.0, last_group=False)
    yield Cost(f"DyCoke, k = 1, {AS_RUN}", LLAVA_ONEVISION, released, None, (8.7, 21.3))
    columns = ((0.25, 49, (8.7, 21.3)), (0.20, 40, (7.0, 17.2)), (0.15, 30, (5.2, 12.7)), (0.10, 20, (3.4, 8.3)))
    for ratio, tokens_per_frame, printed in columns:
        yield Cost(f"{ratio:.0%}: {ONE_FRAME_COUNT}", LLAVA_ONEVISION, plain, tokens_per_frame, printed)
        for name in ("visionzip", "fastvid", "prunevid"):
            method = build_baseline(name, retention_ratio=ratio)
            title = {"visionzip": "VisionZip", "fastvid": "FastVID, at most", "prunevid": "AOT, and PruneVid at most"}
            yield Cost(f"{ratio:.0%}: {title[name]}, {AS_RUN}", LLAVA_ONEVISION, method, None, printed)
    yield Cost("LLaVA-Video-7B", LLAVA_VIDEO, plain, 169, (80.2, 100.0))
    yield Cost("FastV", LLAVA_VIDEO, fastv, None, (17.1, 21.3))
    yield Cost("PDrop", LLAVA_VIDEO, pdrop, None, (19.5, 24.3))
    yield Cost("15%: VisionZip and AOT", LLAVA_VIDEO, plain, 26, (9.3, 11.6))
    yield Cost("25%: VisionZip, DyCoke and AOT", LLAVA_VIDEO, plain, 41, (9.3, 18.9))


def as_markdown() -> str:
    """All figures as a table."""
    lines = [
        "| | layers x tokens | T | % | with tower, T | both as computed, T | paper | |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for cost in paper_costs():
        teraflops, percent = cost.printed
        agrees = "" if cost.is_printed else "differs"
        lines.append(
            f"| {cost.what} | {cost.layers} | {cost.teraflops:.3f} | {cost.percent:.1f} "
            f"| {cost.cost.with_tower / 1e12:.2f} | {cost.cost.as_computed / 1e12:.2f} "
            f"| {teraflops}, {percent} % | {agrees} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a console may have no such letter
    print(as_markdown())
    print()
    print(honest_markdown())
