"""One bar for each file and contender, its stages in the order of the data's way."""

from pathlib import Path
from typing import Any

from benchmarks.plot import where_it_ran
from hub_upload.whole_file import write_whole

from .report import STAGES, median


def draw(report: dict[str, Any], file: Path) -> Path:
    """Writes the picture and returns its path."""
    from matplotlib.figure import Figure

    bars = [(case["clip"], contender) for case in report["cases"] for contender in case["contenders"]]
    figure = Figure(figsize=(11, 1.5 + 0.32 * len(bars)), layout="constrained")
    panel = figure.subplots()
    places = range(len(bars))
    start = [0.0] * len(bars)
    for number, (key, stage) in enumerate(STAGES.items()):
        widths = [median(contender, key) for _, contender in bars]
        panel.barh(places, widths, left=start, label=stage, color=f"C{number}")
        start = [left + width for left, width in zip(start, widths)]
    panel.set_yticks(places, [f"{clip}: {contender['name']}" for clip, contender in bars])
    panel.invert_yaxis()
    panel.set_xlabel("seconds from the file to the first token, medians")
    panel.grid(axis="x", alpha=0.3)
    panel.legend(ncols=4, fontsize="small", loc="lower center", bbox_to_anchor=(0.4, 1.0))
    figure.suptitle(
        f"{report['options']['frames']} frames, shape {report['options']['shape']}\n{where_it_ran(report)}"
    )
    write_whole(file, lambda unfinished: figure.savefig(unfinished, dpi=120, format="png"))
    return file
