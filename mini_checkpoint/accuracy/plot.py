"""The results as one picture: a panel for each group of settings that was asked.

Also on its own, for results of a machine without matplotlib: `python -m mini_checkpoint.accuracy.plot accuracy.json`.
"""

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.plot import require_matplotlib
from hub_upload.console import never_stop_at_a_letter
from hub_upload.whole_file import write_whole

from .settings import AVERAGE_POOLING, DEFAULT, DEFAULT_WEIGHT, FULL_TOKENS, RATIO, UNIFORM_SUBSAMPLING, WEIGHTS

Figures = dict[str, Any]

# Okabe and Ito's colours, which colour-blind people tell apart; and no two series share a marker.
STYLES = {
    "AOT": ("#0072B2", "o"),
    "AOT, dynamic clips": ("#56B4E9", "D"),
    "AOT, released recipe": ("#CC79A7", "s"),
    "AOT, local anchors, cosine merging": ("#999999", "P"),
    UNIFORM_SUBSAMPLING: ("#E69F00", "^"),
    AVERAGE_POOLING: ("#009E73", "v"),
    "random tokens": ("#D55E00", "X"),
    FULL_TOKENS: ("black", "*"),
    "VisionZip": ("#E69F00", "^"),
    "PruneVid": ("#009E73", "v"),
    "FastVID": ("#D55E00", "X"),
    "PruneVid in the model too": ("#009E73", "<"),
    "HoliTom": ("#CC79A7", "s"),
    "VidCom2": ("#56B4E9", ">"),
    "HoliTom in the model too": ("#CC79A7", "8"),
    "FrameFusion": ("#D55E00", "H"),
    "FlashVID": ("#999999", "p"),
    "FlashVID with true means": ("#999999", "d"),
    "FlashVID in the model too": ("#999999", "x"),
    "STC-Pruner": ("#F0E442", "1"),
    "STC-Cacher and -Pruner": ("#F0E442", "2"),
    "EarlyTom": ("#009E73", "3"),
    "EarlyTom in the model too": ("#009E73", "4"),
    "DyCoke": ("#56B4E9", "D"),
    "FastV": ("#F0E442", "P"),
    "PDrop": ("#999999", "h"),
}
METHOD_GROUPS = "Methods at equal budgets", "Methods at equal FLOPs"
PERCENT = f"{100 * RATIO:g} %"

# A legend with more has two columns.
MANY_SERIES = 9

# The logarithmic axis has no place for a weight of zero: it stands here.
PLACE_OF_ZERO = 0.01

# What AOT itself has to itself.
NO_DIFFERENCE = {"value": 0.0, "low": 0.0, "high": 0.0}


def draw(results: dict[str, Any], file: Path) -> None:
    """Writes the picture."""
    require_matplotlib()
    from matplotlib.figure import Figure

    fillers = [fill for groups, fill in PANELS if any(map(results["groups"].get, groups))]
    columns = min(4, max(1, len(fillers)))
    rows = max(1, math.ceil(len(fillers) / columns))
    figure = Figure(figsize=(5.6 * columns, 5.3 * rows), layout="constrained")
    figure.suptitle(
        f"{results['model']}: {results['questions']:,} questions about {results['clips']:,} held-out clips; bars are "
        f"{results['confidence']:.0%} intervals"
    )
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, fill in zip(panels, fillers):
        panel.grid(alpha=0.3)
        fill(panel, results)
    for panel in panels:
        if not panel.has_data():
            panel.set_axis_off()
    write_whole(file, lambda unfinished: figure.savefig(unfinished, dpi=110, format="png"))


def _retention(panel, results: dict[str, Any]) -> None:
    members = _members(results, "Accuracy against retention")
    series = list(dict.fromkeys(figures["series"] for figures in members))
    for place, name in enumerate(series):
        of_series = [figures for figures in members if figures["series"] == name]
        # Side by side where several have the same number of tokens.
        shift = 1.012 ** (place - len(series) / 2)
        _line(panel, name, of_series, partial(_percent_of_tokens, shift=shift))
        if name == FULL_TOKENS:
            panel.axhline(100 * of_series[0]["accuracy"]["value"], color="black", linestyle=":", linewidth=1)
    panel.set(title="Accuracy against retention", xlabel="video tokens read, %", xscale="log")
    _label_ticks(panel, [5, 10, 15, 20, 25, 50, 100])
    _finish(panel, results)


def _methods(panel, results: dict[str, Any]) -> None:
    members = _members(results, METHOD_GROUPS[0])
    for name, of_method in _by_method(members).items():
        _line(panel, name, of_method, partial(_percent_of_tokens, shift=1.0))
    panel.set(title="Methods at equal budgets", xlabel="video tokens read, %", xscale="log")
    _label_ticks(panel, [5, 10, 15, 20, 25, 50, 100])
    _finish(panel, results)


def _method_flops(panel, results: dict[str, Any]) -> None:
    members = {figures["label"]: figures for group in METHOD_GROUPS for figures in _members(results, group)}
    for name, of_method in _by_method(members.values()).items():
        _line(panel, name, of_method, lambda figures: 100 * figures["share_of_flops"])
    panel.set(
        title="The same by FLOPs; layers scaled to the mini",
        xlabel="FLOPs of vision tower and reading the video, %",
        xscale="log",
    )
    _label_ticks(panel, [30, 40, 50, 60, 80, 100])
    _finish(panel, results)


def _by_method(members: Iterable[Figures]) -> dict[str, list[Figures]]:
    # A series' name is the method's and, behind a comma, how it is run here.
    methods: dict[str, list[Figures]] = {}
    for figures in members:
        methods.setdefault(figures["series"].split(",")[0], []).append(figures)
    return methods


def _percent_of_tokens(figures: Figures, shift: float) -> float:
    return 100 * figures["share_of_video_tokens"] * shift


def _ablations(panel, results: dict[str, Any]) -> None:
    members = [figures for figures in _members(results, "Ablations") if figures["difference_to_aot"]]
    for row, figures in enumerate(members):
        value, low, high = _points(figures["difference_to_aot"])
        panel.errorbar(value, row, xerr=[[value - low], [high - value]], fmt="o", color="#0072B2", capsize=3)
        panel.annotate(f"{value:+.1f}", (value, row), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_yticks(range(len(members)), [figures["series"] for figures in members])
    panel.invert_yaxis()
    panel.set(title=f"Ablations at {PERCENT}", xlabel="accuracy, points against AOT")


def _types(panel, results: dict[str, Any]) -> None:
    shown = (FULL_TOKENS, "AOT", UNIFORM_SUBSAMPLING, AVERAGE_POOLING, "random tokens")
    members = [
        figures
        for figures in results["settings"].values()
        if figures["series"] in shown
        and figures["frames"] == DEFAULT.num_frames
        and figures["retention_ratio"] in (1.0, RATIO)
    ]
    members.sort(key=lambda figures: shown.index(figures["series"]))
    kinds = list(results["types"])
    for place, figures in enumerate(members):
        places = [number + 0.13 * (place - (len(members) - 1) / 2) for number in range(len(kinds))]
        _errorbars(panel, figures["series"], places, [figures["by_type"][kind] for kind in kinds], linestyle="none")
    for number, kind in enumerate(kinds):
        chance = 100 * results["types"][kind]["chance"]
        panel.plot([number - 0.4, number + 0.4], [chance, chance], "--", color="grey", linewidth=1)
    panel.set_xticks(range(len(kinds)), kinds)
    panel.set(title=f"By question type, at {PERCENT}", ylabel="accuracy, %", ylim=(0, 103))
    if members:
        panel.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=3)


def _weights(panel, results: dict[str, Any]) -> None:
    for symbol, field, group, style, shift in (
        ("λ intra", "intra_frame_weight", "Weight of the transport within frames", ("#0072B2", "o"), 0.97),
        ("λ inter", "inter_frame_weight", "Weight of the transport along time", ("#D55E00", "s"), 1.03),
    ):
        differences = {
            figures["fields"].get(field, DEFAULT_WEIGHT): figures["difference_to_aot"] or NO_DIFFERENCE
            for figures in _members(results, group)
        }
        places = [(weight or PLACE_OF_ZERO) * shift for weight in differences]
        if places:
            _errorbars(panel, symbol, places, list(differences.values()), style=style)
            panel.legend(fontsize="small")
    panel.set(title=f"Weights of the transport, at {PERCENT}", xlabel="λ", ylabel="accuracy, points against AOT")
    panel.set_xscale("log")
    panel.set_xticks([weight or PLACE_OF_ZERO for weight in WEIGHTS], [f"{weight:g}" for weight in WEIGHTS])
    panel.minorticks_off()


def _thresholds(panel, results: dict[str, Any]) -> None:
    def tokens(figures: Figures) -> float:
        return figures["video_tokens"]

    members = _members(results, "Temporal threshold")
    if not members:
        return
    _line(panel, "τ as printed", members, tokens, style=("#D55E00", "s"))
    for number, figures in enumerate(members):
        # Above and below in turn: neighbours are closer to each other than a label is wide.
        limit, distance, side = ("low", -5, "top") if number % 2 else ("high", 5, "bottom")
        where = tokens(figures), 100 * figures["accuracy"][limit]
        offset = {"xytext": (0, distance), "textcoords": "offset points"}
        panel.annotate(figures["series"], where, **offset, rotation=90, ha="center", va=side, fontsize=8)
    quotas = [figures for figures in _members(results, "Accuracy against retention") if figures["series"] == "AOT"]
    if quotas:
        _line(panel, "AOT, a quota a frame", quotas, tokens, style=STYLES["AOT"])
    panel.set(title="Temporal threshold", xlabel="video tokens read, mean", ylabel="accuracy, %")
    panel.legend(fontsize="small")


def _frames(panel, results: dict[str, Any]) -> None:
    members = _members(results, "Frames")
    for name in dict.fromkeys(figures["series"] for figures in members):
        of_series = [figures for figures in members if figures["series"] == name]
        label = name if name == FULL_TOKENS else f"{name}, {PERCENT}"
        _line(panel, label, of_series, lambda figures: figures["frames"], style=STYLES[name])
    panel.set(title="Frames", xlabel="frames sampled", xscale="log")
    _label_ticks(panel, sorted({figures["frames"] for figures in members}))
    _finish(panel, results)


def _line(
    panel, label: str, members: Sequence[Figures], x: Callable[[Figures], float], style: tuple[str, str] | None = None
) -> None:
    ordered = sorted(members, key=x)
    _errorbars(panel, label, list(map(x, ordered)), [figures["accuracy"] for figures in ordered], style=style)


def _errorbars(
    panel,
    label: str,
    places: Sequence[float],
    estimates: Sequence[dict[str, float]],
    style: tuple[str, str] | None = None,
    linestyle: str = "-",
) -> None:
    colour, marker = style or STYLES[label]
    values, lows, highs = zip(*map(_points, estimates))
    bars = [[v - low for v, low in zip(values, lows)], [high - v for v, high in zip(values, highs)]]
    size = 10 if marker == "*" else 6
    panel.errorbar(
        places, values, bars, color=colour, marker=marker, markersize=size, linestyle=linestyle, capsize=3, label=label
    )


def _points(estimate: dict[str, float]) -> tuple[float, float, float]:
    return 100 * estimate["value"], 100 * estimate["low"], 100 * estimate["high"]


def _members(results: dict[str, Any], group: str) -> list[Figures]:
    return [results["settings"][name] for name in results["groups"].get(group, [])]


def _label_ticks(panel, values: Sequence[float]) -> None:
    panel.set_xticks(values, [f"{value:g}" for value in values])
    panel.minorticks_off()


def _finish(panel, results: dict[str, Any]) -> None:
    panel.axhline(100 * results["chance"], color="grey", linestyle="--", linewidth=1, label="chance")
    panel.set(ylabel="accuracy, %", ylim=(0, 103))
    many = len(panel.get_legend_handles_labels()[1]) > MANY_SERIES
    panel.legend(fontsize="x-small" if many else "small", ncols=2 if many else 1)


# Each panel, and the groups of which it shows something.
PANELS = (
    (("Accuracy against retention",), _retention),
    (METHOD_GROUPS[:1], _methods),
    (METHOD_GROUPS, _method_flops),
    (("Ablations",), _ablations),
    (("Accuracy against retention",), _types),
    (("Weight of the transport within frames", "Weight of the transport along time"), _weights),
    (("Temporal threshold",), _thresholds),
    (("Frames",), _frames),
)

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m mini_checkpoint.accuracy.plot FOLDER/accuracy.json")
    never_stop_at_a_letter()
    source = Path(sys.argv[1])
    picture = source.with_name("accuracy.png")
    draw(json.loads(source.read_text()), picture)
    print(picture)
