"""What the paper prints (arXiv 2603.01400), and with what arguments each row is run here."""

from dataclasses import replace

from .table_rows import LLAVA_VIDEO, ONEVISION, UNKNOWN, Row, Scores, Table

DYNAMIC = {"clip_segmentation": "dynamic"}
SIGLIP = "google/siglip-so400m-patch14-384"
# The settings of a method that its name alone does not say.
OF_METHOD = {"fastvid": {"pooling_head": SIGLIP}}


def _method(
    title: str, name: str, ratio: float, scores: Scores, mean: float | None, score: float | None, **others: object
) -> Row:
    arguments = {"retention_ratio": ratio, **OF_METHOD.get(name, {}), **others}
    return Row(f"{title}, {ratio:.0%}", f"aot_llava_{name}", arguments, scores, mean, score)


def _aot(
    title: str, ratio: float, scores: Scores, mean: float | None, score: float | None = None, **fields: object
) -> Row:
    return Row(title, "aot_llava", {"retention_ratio": ratio, **fields}, scores, mean, score)


def _ablation(title: str, scores: Scores, mean: float | None, score: float | None = None, **fields: object) -> Row:
    return _aot(title, 0.10, scores, mean, score, **fields)


FULL = _aot("LLaVA-OneVision-7B", 1.0, (58.3, 60.4, 56.4, 58.6), 58.4, 100)
FULL_VIDEO = _aot("LLaVA-Video-7B", 1.0, (60.4, 57.2, 58.9, 64.3), 60.2, 100)
DEFAULT = _ablation("AOT", (57.2, 60.3, 53.8, 56.6), 57.0, 97.6)
NO_MERGING = {"intra_frame_aggregation": "none", "inter_frame_aggregation": "none"}
COSINE_MERGING = {"intra_frame_aggregation": "cosine", "inter_frame_aggregation": "cosine"}

# Of Figure 3, whose figures the paper draws but does not print; those of 32 frames are Table 1's. Its text names 16,
# 64 and 128 frames; of the weights it says that 1.0 is best, and that smaller and greater ones are worse.
AT_TEN = (
    FULL,
    _method("VisionZip", "visionzip", 0.10, (53.5, 58.0, 49.3, 53.4), 53.5, None),
    _method("PruneVid", "prunevid", 0.10, (56.2, 59.8, 54.5, 56.0), 56.6, None),
    _method("FastVID", "fastvid", 0.10, (55.9, None, 56.3, 57.3), None, None),
    _ablation("AOT, 10%", (57.2, 60.3, 53.8, 56.6), 57.0),
)
OTHER_WEIGHTS = (0.25, 0.5, 2.0, 4.0)


def _with_frames(row: Row, num_frames: int) -> Row:
    scores, mean = (row.scores, row.mean) if num_frames == ONEVISION.num_frames else (UNKNOWN, None)
    title = f"{row.title}, {num_frames} frames"
    return replace(row, title=title, scores=scores, mean=mean, score=None, num_frames=num_frames)


# Tables 6 and 7 are 1 and 2 with the rows "AOT w Dyn".
TABLES = {
    "1": Table(
        "Tables 1 and 6: LLaVA-OneVision-7B",
        ONEVISION,
        FULL,
        (
            FULL,
            Row("FastV", "aot_llava_fastv", {"retention_ratio": 0.2}, (55.9, 57.5, 56.7, 56.1), 56.5, 96.7),
            Row("PDrop", "aot_llava_pdrop", {"retention_ratio": 0.125}, (56.1, 58.0, 54.1, 56.4), 56.2, 96.2),
            _method("DyCoke", "dycoke", 0.25, (53.1, 59.5, 49.5, 54.3), 54.1, 92.6),
            _method("VisionZip", "visionzip", 0.25, (57.9, 60.3, 56.5, 58.2), 58.2, 99.7),
            _method("PruneVid", "prunevid", 0.25, (57.4, 59.9, 55.7, 57.4), 57.6, 98.6),
            _method("FastVID", "fastvid", 0.25, (56.5, None, 56.3, 58.0), None, None),
            _aot("AOT, 25%", 0.25, (58.5, 61.0, 56.0, 56.9), 58.1, 99.5),
            _aot("AOT w Dyn, 25%", 0.25, (58.5, 61.7, 56.3, 57.5), 58.5, 100.2, **DYNAMIC),
            _method("VisionZip", "visionzip", 0.20, (57.7, 59.8, 55.2, 57.9), 57.7, 98.8),
            _method("PruneVid", "prunevid", 0.20, (57.2, 59.7, 54.7, 56.9), 57.1, 97.8),
            _method("FastVID", "fastvid", 0.20, (56.3, None, 57.1, 57.9), None, None),
            _aot("AOT, 20%", 0.20, (58.3, 61.4, 56.1, 56.8), 58.2, 99.7),
            _aot("AOT w Dyn, 20%", 0.20, (58.2, 61.5, 55.9, 56.8), 58.1, 99.5, **DYNAMIC),
            _method("VisionZip", "visionzip", 0.15, (56.5, 59.8, 54.4, 56.1), 56.7, 97.1),
            _method("PruneVid", "prunevid", 0.15, (56.8, 59.7, 55.4, 56.6), 57.1, 97.8),
            _method("FastVID", "fastvid", 0.15, (56.0, None, 56.2, 57.7), None, None),
            _aot("AOT, 15%", 0.15, (57.7, 61.3, 55.1, 56.1), 57.6, 98.6),
            _aot("AOT w Dyn, 15%", 0.15, (57.8, 61.2, 55.1, 56.1), 57.6, 98.6, **DYNAMIC),
            _method("VisionZip", "visionzip", 0.10, (53.5, 58.0, 49.3, 53.4), 53.5, 91.6),
            _method("PruneVid", "prunevid", 0.10, (56.2, 59.8, 54.5, 56.0), 56.6, 96.9),
            _method("FastVID", "fastvid", 0.10, (55.9, None, 56.3, 57.3), None, None),
            _aot("AOT, 10%", 0.10, (57.2, 60.3, 53.8, 56.6), 57.0, 97.6),
            _aot("AOT w Dyn, 10%", 0.10, (57.2, 60.0, 53.1, 55.7), 56.5, 96.7, **DYNAMIC),
        ),
    ),
    "2": Table(
        "Tables 2 and 7: LLaVA-Video-7B",
        LLAVA_VIDEO,
        FULL_VIDEO,
        (
            FULL_VIDEO,
            Row("FastV", "aot_llava_fastv", {"retention_ratio": 0.2}, (54.3, 54.1, 55.0, 58.8), 55.6, 92.4),
            Row("PDrop", "aot_llava_pdrop", {"retention_ratio": 0.125}, (55.9, 54.3, 54.7, 61.9), 56.7, 94.2),
            # 41 of 169 tokens a frame, as 18.9 % of the FLOPs says.
            Row(
                "VisionZip, 25%", "aot_llava_visionzip", {"tokens_per_frame": 41}, (56.7, 54.7, 54.7, 60.7), 56.7, 94.2
            ),
            # No program says where DyCoke leaves LLaVA-Video's newlines.
            Row("DyCoke, 25%", None, {}, (50.8, None, 53.0, 56.9), None),
            _aot("AOT, 25%", 0.25, (59.2, 55.6, 55.9, 62.4), 58.3, 96.8),
            _aot("AOT w Dyn, 25%", 0.25, (59.1, 55.4, 57.1, 62.6), 58.6, 97.3, **DYNAMIC),
            Row(
                "VisionZip, 15%", "aot_llava_visionzip", {"tokens_per_frame": 26}, (56.7, 54.7, 54.7, 60.7), 56.7, 94.2
            ),
            _aot("AOT, 15%", 0.15, (57.7, 54.8, 54.6, 61.9), 57.3, 95.1),
            _aot("AOT w Dyn, 15%", 0.15, (57.6, 54.6, 55.3, 61.3), 57.2, 95.0, **DYNAMIC),
        ),
    ),
    "4": Table(
        "Table 4: aggregation, LLaVA-OneVision-7B at 10 %",
        ONEVISION,
        FULL,
        (
            _ablation("No merging", (56.1, 60.2, 53.5, 55.8), 56.4, **NO_MERGING),
            _ablation("Cosine merging", (51.5, 55.8, 51.1, 51.3), 52.4, **COSINE_MERGING),
            DEFAULT,
        ),
    ),
    "5": Table(
        "Table 5: components, LLaVA-OneVision-7B at 10 %",
        ONEVISION,
        FULL,
        (
            FULL,
            _ablation("w/o local anchors", (56.5, 60.1, 54.0, 55.7), 56.6, 96.9, local_anchor_ratio=0.0),
            _ablation("w/o global anchors", (55.5, 59.4, 53.4, 53.1), 55.4, 94.9, local_anchor_ratio=1.0),
            _ablation("w/o OT", (56.1, 60.2, 53.5, 55.8), 56.4, 96.6, **NO_MERGING),
            _ablation("OT w/o intra-frame", (57.1, 60.2, 53.6, 54.6), 56.3, 96.6, intra_frame_aggregation="none"),
            _ablation("OT w/o inter-frame", (56.1, 60.0, 53.6, 55.9), 56.4, 96.6, inter_frame_aggregation="none"),
            DEFAULT,
        ),
    ),
    "8": Table(
        "Table 8: random anchors, LLaVA-OneVision-7B at 10 %",
        ONEVISION,
        FULL,
        (
            FULL,
            _ablation("w random anchors", (55.1, 59.3, 52.6, 53.3), 55.1, 94.3, anchor_selection="random"),
            DEFAULT,
        ),
    ),
    "figure-3-left": Table(
        "Figure 3, left: frames, LLaVA-OneVision-7B at 10 %",
        ONEVISION,
        None,
        tuple(_with_frames(row, num_frames) for num_frames in (16, 32, 64, 128) for row in AT_TEN),
    ),
    "figure-3-right": Table(
        "Figure 3, right: weights of the transport, LLaVA-OneVision-7B at 10 %",
        ONEVISION,
        FULL,
        (
            *(_ablation(f"λ intra {weight:g}", UNKNOWN, None, intra_frame_weight=weight) for weight in OTHER_WEIGHTS),
            *(_ablation(f"λ inter {weight:g}", UNKNOWN, None, inter_frame_weight=weight) for weight in OTHER_WEIGHTS),
            replace(DEFAULT, title="λ intra 1, λ inter 1"),
        ),
    ),
}
