"""The results as Markdown tables, aligned so that a terminal shows them too."""

from typing import Any

from .scoring import Estimate

SHARES_OF_FLOPS = ("share_of_prefill_flops", "share_of_flops", "share_of_computed_flops")


def as_markdown(results: dict[str, Any]) -> str:
    """A head, and a table for each group of settings."""
    made_with = results["made with"]
    head = (
        f"{results['model']} ({made_with['checkpoint']}), {results['clips']:,} held-out clips, "
        f"{results['questions']:,} questions; chance {_percent(results['chance'])} %.\n"
        f"Accuracy in %, in brackets the {results['confidence']:.0%} interval of {results['draws']:,} bootstrap draws "
        "of clips. Frames: sampled, and in brackets those that the vision tower's last layer reads. Tokens: of the "
        "video, that the language model's first layer reads, mean. FLOPs: of reading the video in the language model "
        "(Eq. 17), each layer its own tokens, as a share of those with all tokens; with the vision tower, frame by "
        "frame; and both as they are computed, with Qwen2's grouped heads and three matrices in an MLP. Of full: "
        "share of the accuracy with all tokens of as many frames. To AOT: difference to AOT at the same retention, in "
        "points; for FastV, PDrop and FrameFusion to AOT at about their FLOPs by Eq. 17. Both are compared draw by "
        "draw.\n"
        f"{results['date'][:10]}, {made_with['device']}, torch {made_with['torch']}, "
        f"transformers {made_with['transformers']}"
    )
    return "\n\n".join([head, *(f"### {title}\n\n{_table(results, title)}" for title in results["groups"])]) + "\n"


def _table(results: dict[str, Any], group: str) -> str:
    kinds = results["types"]
    head = [
        "",
        "frames",
        "tokens",
        "of all",
        "FLOPs",
        "with tower",
        "as computed",
        "accuracy",
        "of full",
        "to AOT",
        *kinds,
    ]
    chance = ["chance", "", "", "", "", "", "", _percent(results["chance"]), "", ""]
    rows = [head, *(_row(results["settings"][name], kinds) for name in results["groups"][group])]
    rows.append([*chance, *(_percent(kinds[kind]["chance"]) for kind in kinds)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [_line(head, widths), _line(rule, widths), *(_line(row, widths) for row in rows[1:])]
    return "\n".join(lines)


def _row(figures: dict[str, Any], kinds: list[str]) -> list[str]:
    return [
        figures["label"],
        _frames(figures),
        f"{figures['video_tokens']:,.0f}",
        f"{100 * figures['share_of_video_tokens']:.1f} %",
        *(f"{100 * figures[name]:.1f} %" for name in SHARES_OF_FLOPS),
        _with_interval(figures["accuracy"]),
        _with_interval(figures["share_of_full"]),
        _with_interval(figures["difference_to_aot"], "+"),
        *(_percent(figures["by_type"][kind]["value"]) for kind in kinds),
    ]


def _frames(figures: dict[str, Any]) -> str:
    """Those sampled, and in brackets those that the tower's last layer reads where it is fewer."""
    left = f" ({figures['frames_read']:.1f})" if figures["frames_read"] < figures["frames"] else ""
    return f"{figures['frames']}{left}"


def _line(cells: list[str], widths: list[int]) -> str:
    first, *others = zip(cells, widths)
    return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"


def _with_interval(estimate: Estimate | None, sign: str = "") -> str:
    if estimate is None or estimate["value"] is None:
        return ""
    value, low, high = (_percent(estimate[name], sign) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _percent(value: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f}"
