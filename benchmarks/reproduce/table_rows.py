"""What a row of the paper's tables is, and the checkpoints that the rows are run on."""

from collections.abc import Mapping
from dataclasses import dataclass

# lmms-eval's task of each. The authors' EgoSchema submissions have answers to all 5,031 questions: the full set.
TASKS = {
    "MVBench": "mvbench",
    "EgoSchema": "egoschema",
    "LongVideoBench": "longvideobench_val_v",
    "VideoMME": "videomme",
}
BENCHMARKS = tuple(TASKS)
Scores = tuple[float | None, float | None, float | None, float | None]
UNKNOWN: Scores = (None, None, None, None)


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        title: the method, with its share of tokens where the table has several.
        model: lmms-eval's name of the model; None where the method cannot be run on the checkpoint.
        arguments: of the model, beside checkpoint and frames.
        scores: of `BENCHMARKS`; None where the paper has a dash.
        mean: "Avg." as printed.
        score: "Score %" as printed: the mean as a share of that of all tokens.
        num_frames: of each video; None where they are the checkpoint's.
    """

    title: str
    model: str | None
    arguments: Mapping[str, object]
    scores: Scores
    mean: float | None
    score: float | None = None
    num_frames: int | None = None


@dataclass(frozen=True)
class Released:
    """AOT's settings in the authors' script for a checkpoint; it names none for other ratios.

    Attributes:
        retention_ratio: of the rows that they belong to.
        arguments: of the model, by the benchmarks that they are for.
    """

    retention_ratio: float
    arguments: Mapping[tuple[str, ...], Mapping[str, object]]


@dataclass(frozen=True)
class Checkpoint:
    """What a table's rows are run on.

    Attributes:
        name: on the Hub.
        num_frames: of each video.
        arguments: with which videos are read and prompts written as lmms-eval's own class of the checkpoint does.
        released: the authors' settings.
    """

    name: str
    num_frames: int
    arguments: Mapping[str, object]
    released: Released


@dataclass(frozen=True)
class Table:
    """A table of the paper: its rows on one checkpoint.

    Attributes:
        full: all tokens, of which "Score %" is the share; None where the table has several numbers of frames.
    """

    title: str
    checkpoint: Checkpoint
    full: Row | None
    rows: tuple[Row, ...]


ONEVISION = Checkpoint(
    "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    32,
    {"conv_template": "qwen_1_5", "frame_sampling": "llava_onevision"},
    # scripts/eval_ov-7b.sh. It does not name the ratio; 126 anchors are the paper's at 10 %.
    Released(
        0.10,
        {
            ("MVBench", "EgoSchema"): {"recipe": "released", "num_anchors": 126, "keep_ratio": 0.3},
            ("LongVideoBench", "VideoMME"): {"recipe": "released", "num_anchors": 108, "keep_ratio": 0.1},
        },
    ),
)
LLAVA_VIDEO = Checkpoint(
    "lmms-lab/LLaVA-Video-7B-Qwen2",
    64,
    {
        "conv_template": "qwen_1_5",
        "frame_sampling": "llava_vid",
        "task_prompts": "llava_vid",
        # The checkpoint is in bfloat16, but lmms-eval's class makes float16 of it.
        "dtype": "float16",
        # The checkpoint's own config may say bilinear; 169 tokens a frame means average.
        "mm_spatial_pool_mode": "average",
    },
    # scripts/eval_vid-7b.sh. It does not name the ratio; 180 of 729 patches are 24.7 %.
    Released(0.25, {BENCHMARKS: {"recipe": "released", "num_anchors": 180, "clip_segmentation": "none"}}),
)
