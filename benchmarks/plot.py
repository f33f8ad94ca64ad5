"""Speed-up and memory against retention and frames, one picture a batch size.

Also on its own, for results of a machine without matplotlib: `python -m benchmarks.plot results.json`.
"""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hub_upload.whole_file import write_whole

from .options import OneLineParser

PROGRAM = "python -m benchmarks.plot"
Case = dict[str, Any]


def require_matplotlib() -> None:
    """Raises `ImportError` with the remedy, before anything is measured."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError(
            "matplotlib, which draws the plot, is missing. Install it (`pip install matplotlib`) or add --no-plot."
        )


def draw(report: dict[str, Any], folder: Path) -> list[Path]:
    """Writes speed-and-memory-batch-N.png for each batch size that has something to compare."""
    require_matplotlib()
    files = []
    for batch in report["options"]["batch"]:
        cases = [case for case in report["cases"] if case["batch"] == batch and _is_comparable(case)]
        if cases:
            files.append(folder / f"speed-and-memory-batch-{batch}.png")
            _draw_batch(cases, _title(report, batch), files[-1])
    return files


def _draw_batch(cases: list[Case], title: str, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(2, 2, sharey="row")
    rows = (
        ("Time to first token: times faster than stock", _speedup, _limit),
        ("Peak memory above the weights: share of stock", _memory, None),
    )
    for (label, value, limit), (by_retention, by_frames) in zip(rows, panels):
        _lines(by_retention, cases, _percent, lambda case: case["frames"], "{} frames", value, limit)
        _lines(by_frames, cases, lambda case: case["frames"], _percent, "{:g} %", value, limit)
        by_retention.set(xlabel="video tokens kept, %", ylabel=label)
        by_frames.set(xlabel="frames")
        by_retention.set_xscale("log")
        by_frames.set_xscale("log", base=2)
        _label_ticks(by_retention, sorted({_percent(case) for case in cases}))
        _label_ticks(by_frames, sorted({case["frames"] for case in cases}))
        for panel in (by_retention, by_frames):
            panel.axhline(1, color="grey", linewidth=0.8)
            panel.grid(alpha=0.3)
            panel.set_ylim(0, 1.08 * panel.get_ylim()[1])
            panel.legend(fontsize="small")
    write_whole(file, lambda unfinished: figure.savefig(unfinished, dpi=120))


def _lines(
    panel,
    cases: list[Case],
    x: Callable[[Case], float],
    group: Callable[[Case], float],
    name: str,
    value: Callable[[Case], float],
    limit: Callable[[Case], float] | None,
) -> None:
    for number, key in enumerate(sorted({group(case) for case in cases})):
        members = sorted((case for case in cases if group(case) == key), key=x)
        places, colour = [x(case) for case in members], f"C{number}"
        panel.plot(places, [value(case) for case in members], "o-", color=colour, label=name.format(key))
        if limit is not None:
            panel.plot(places, [limit(case) for case in members], "_--", color=colour, linewidth=1, markersize=14)
    if limit is not None:
        panel.plot([], [], "_--", color="grey", label="what the FLOPs allow")


def _label_ticks(panel, values: list[float]) -> None:
    panel.set_xticks(values, [f"{value:g}" for value in values])
    panel.minorticks_off()


def _is_comparable(case: Case) -> bool:
    return case["model"] == "AOT" and not case["variation"] and "speedup_over_stock" in case


def _percent(case: Case) -> float:
    return round(100 * case["retention_ratio"], 6)


def _speedup(case: Case) -> float:
    return case["speedup_over_stock"]["first_token_seconds"]


def _limit(case: Case) -> float:
    return case["flops_limit"]


def _memory(case: Case) -> float:
    share = case["memory_over_stock"]["memory_growth_bytes"]
    return float("nan") if share is None else share


def _title(report: dict[str, Any], batch: int) -> str:
    options = report["options"]
    what = f"AOT against the stock model: {options['shape']}, {options['dtype']}, batch {batch}"
    return f"{what}\n{where_it_ran(report)}"


def where_it_ran(report: dict[str, Any]) -> str:
    """The device and the day."""
    machine = report["machine"]
    device = machine["gpu"] or f"{machine['processor']}, {machine['threads']} threads"
    return f"{device}, {report['date'][:10]}"


def main(arguments: list[str] | None = None) -> None:
    """Draws the results of an earlier run beside them.

    Raises:
        ImportError: if matplotlib is missing.
        OSError: if the results cannot be read, or the pictures not be written.
        ValueError: if the file holds no results.
    """
    parser = OneLineParser(prog=PROGRAM, description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, metavar="FOLDER/results.json", help="written by `python -m benchmarks`")
    results = parser.parse_args(arguments).results
    try:
        report = json.loads(results.read_text(encoding="utf-8"))
        pictures = draw(report, results.parent)
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"{results} holds no results: give the results.json of `python -m benchmarks`") from None
    for picture in pictures:
        print(picture)


if __name__ == "__main__":
    try:
        main()
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{PROGRAM}: {error}")
