"""The result as text and as JSON, with all that one needs to know to compare it with another."""

import json
import os
import platform
import textwrap
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import transformers

from hub_upload.whole_file import write_whole
from modeling_aot_llava.fused_kernels import triton

from .parts import PARTS

GIB = 2**30
# Columns that are understood together alone, and stand beside one another.
COLUMNS = (
    *(("batch",), ("frames",), ("model",), ("tokens",), ("TFLOPs",), ("first token", "speed-up", "of limit")),
    *(("prefill", "speed-up"), ("decode",), ("peak memory", "of stock"), ("above weights", "of stock")),
)
NUM_COLUMNS = sum(map(len, COLUMNS))
# Columns at the left that say what a row is about: batch, frames, model.
NUM_KEYS = 3
NARROWEST = 60  # characters
TOWER_NAMES = {"alone": "alone", "watched": "watched", "capture": "attention received"}
TINY_NOTE = "Only to try the program out, its layers are too small: take another --shape."
STAGE_NOTES = (
    "Together: attention capture and all after the projector. Of vision tower: what comes after the projector, as a "
    "share of the vision tower's time for as many frames."
)


def make_report(options, num_parameters: int, device: torch.device) -> dict[str, Any]:
    """The whole result but for the cases, which are still to come."""
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "processor": _processor_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            "system": platform.platform(),
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "triton": None if triton is None else triton.__version__,
            "cuda": torch.version.cuda if device.type == "cuda" else None,
        },
        "options": {**settings, "device": str(device)},
        "parameters": num_parameters,
        "cases": [],
    }


def write_json(report: dict[str, Any], file: Path) -> None:
    """Writes the report, whole or not at all."""
    write_whole(file, lambda unfinished: unfinished.write_text(json.dumps(report, indent=1) + "\n"))


def as_text(report: dict[str, Any], width: int = 80) -> str:
    """Tables: what each model takes, and where its time and AOT's own go.

    Args:
        width: of the terminal, in characters. A wider table goes on below, its first columns repeated.
    """
    width = max(NARROWEST, width)
    head = describe_run(report)
    if report["options"]["shape"] == "tiny":
        head += f"\n{TINY_NOTE}"
    head += f"\nMedians of {report['options']['repeats']}, spread in brackets"
    rows = [_row(case) for case in report["cases"] if _was_run(case)]
    notes = (
        "FLOPs by Eq. 17, vision tower and projector included. Of limit: of the speed-up that these FLOPs allow. "
        "Above weights: peak less what was in use before."
    )
    tables = [
        _table(COLUMNS, rows, width) + "\n" + notes,
        *_parts_table(report["cases"], width),
        *_stage_tables(report["cases"], width),
    ]
    return "\n".join(_wrapped(line, width) for line in "\n\n".join([head, *tables]).splitlines())


def describe_run(report: dict[str, Any]) -> str:
    """Two lines: what ran where, and with which versions."""
    machine, versions, options = report["machine"], report["versions"], report["options"]
    return (
        f"{options['shape']}, {report['parameters'] / 1e6:,.1f} M parameters, {options['dtype']}, "
        f"{options['device']}: {machine['gpu'] or machine['processor']}, {machine['threads']} threads\n"
        f"{report['date']}, torch {versions['torch']}, Triton {versions['triton'] or 'none'}, "
        f"transformers {versions['transformers']}"
    )


def _was_run(case: dict[str, Any]) -> bool:
    return case["out_of_memory"] or "first_token_seconds" in case


def _row(case: dict[str, Any]) -> list[str]:
    ratio = case["retention_ratio"]
    row = [
        str(case["batch"]),
        str(case["frames"]),
        _name(case),
        str(case["prompt_tokens"]),
        f"{case['flops']['first_token'] / 1e12:.3g}",
    ]
    if case["out_of_memory"]:
        return [*row, "out of memory", *[""] * (NUM_COLUMNS - len(row) - 1)]
    is_compared = ratio is not None and "speedup_over_stock" in case
    speedups = case["speedup_over_stock"] if is_compared else None
    memory = case["memory_over_stock"] if is_compared else {}
    return [
        *row,
        _with_spread(case["first_token_seconds"]),
        f"{speedups['first_token_seconds']:.2f}x" if speedups else "",
        f"{case['share_of_flops_limit']:.0%}" if speedups else "",
        _with_spread(case["prefill_seconds"]),
        f"{speedups['prefill_seconds']:.2f}x" if speedups else "",
        f"{case['decode_tokens_per_second']['median']:.1f}/s",
        *(
            cell
            for name in ("peak_memory_bytes", "memory_growth_bytes")
            for cell in (f"{case[name]['median'] / GIB:.3f} GiB", f"{memory[name]:.2f}" if memory.get(name) else "")
        ),
    ]


def _parts_table(cases: list[dict[str, Any]], width: int) -> list[str]:
    measured = [case for case in cases if "rest_seconds" in case]
    if not measured:
        return []
    columns, rows = [(name,) for name in ("batch", "frames", "model", *PARTS.values(), "first token")], []
    for case in measured:
        medians = [case[name]["median"] for name in (*PARTS, "first_token_seconds")]
        rows.append([str(case["batch"]), str(case["frames"]), _name(case), *map(duration, medians)])
    lines = []
    for frames, preparation in {case["frames"]: case["preparation"] for case in measured}.items():
        reading, processing = preparation["reading_seconds"], preparation["processing_seconds"]
        lines.append(
            f"Before that, on the CPU: a video's {frames} frames are read in {_with_spread(reading)} and made pixel "
            f"values in {_with_spread(processing)}."
        )
    return ["Parts of the time to first token\n" + _table(columns, rows, width) + "\n" + "\n".join(lines)]


def _stage_tables(cases: list[dict[str, Any]], width: int) -> list[str]:
    staged = [case for case in cases if "stages" in case]
    if not staged:
        return []
    names = list(staged[0]["stages"]["seconds"])
    titles = ["batch", "frames", "AOT", *names, "of vision tower", "of prefill", "of stock's first token"]
    columns, rows = [(title,) for title in titles], []
    for case in staged:
        stages = case["stages"]
        rows.append(
            [
                str(case["batch"]),
                str(case["frames"]),
                _name(case).removeprefix("AOT "),
                *(_stage(stages, name) for name in names),
                f"1/{1 / stages['share_of_vision_tower']['after projector']:.0f}",
                *(
                    f"{stages[whole]['together']:.2%}" if whole in stages else ""
                    for whole in ("share_of_prefill", "share_of_stock_first_token")
                ),
            ]
        )
    towers = {case["vision_tower"]["frames"]: case["vision_tower"] for case in staged}
    lines = [
        f"Vision tower, {frames} frames: "
        + ", ".join(f"{title} {_with_spread(tower[name])}" for name, title in TOWER_NAMES.items())
        + f": {tower['share_of_capture']:.2%} more work, {tower['slowdown_watched'] - 1:+.2%} time"
        for frames, tower in towers.items()
    ]
    return [
        "Where AOT's own time goes; in brackets shares of its prefill\n"
        + _table(columns, rows, width)
        + "\n"
        + STAGE_NOTES,
        "\n".join(lines),
    ]


def _name(case: dict[str, Any]) -> str:
    if case["retention_ratio"] is None:
        return "stock"
    return f"AOT {case['retention_ratio']:.0%}" + (f", {case['variation']}" if case["variation"] else "")


def _stage(stages: dict[str, Any], name: str) -> str:
    share = f" ({stages['share_of_prefill'][name]:.2%})" if "share_of_prefill" in stages else ""
    return duration(stages["seconds"][name]["median"]) + share


def table(rows: list[list[str]]) -> str:
    """Rows as columns that are flush right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def _table(columns: Sequence[tuple[str, ...]], rows: list[list[str]], width: int) -> str:
    """Rows below the titles of their columns; what is too wide goes on below, behind the first columns."""
    lines = [[title for group in columns for title in group], *rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    parts: list[list[int]] = []
    place = NUM_KEYS
    for group in columns[NUM_KEYS:]:
        group_places = list(range(place, place + len(group)))
        place += len(group)
        if not parts or _line_width([*parts[-1], *group_places], widths) > width:
            parts.append(list(range(NUM_KEYS)))
        parts[-1] += group_places
    return "\n\n".join(
        "\n".join("  ".join(line[place].rjust(widths[place]) for place in part).rstrip() for line in lines)
        for part in parts
    )


def _line_width(places: list[int], widths: list[int]) -> int:
    return sum(widths[place] for place in places) + 2 * (len(places) - 1)


def _wrapped(line: str, width: int) -> str:
    return line if len(line) <= width or "  " in line else textwrap.fill(line, width, break_on_hyphens=False)


def _with_spread(summary: dict[str, Any]) -> str:
    low, high = summary["min"], summary["max"]
    return f"{duration(summary['median'])} [{duration(low)}, {duration(high)}]" if low < high else duration(low)


def duration(seconds: float) -> str:
    """Like `1.23 s` or `4.56 ms`."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.1 else f"{seconds * 1000:.3g} ms"


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
