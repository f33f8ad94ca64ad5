"""The sections in the order in which they matter, each by itself: one that fails does not take the others along."""

import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.report import make_report

from .kernels import compare_kernels
from .model import Models
from .reading import measure_reading
from .serving import measure_serving


def run_sections(options, device: torch.device, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """The report, again after each section.

    A section is a dict with `seconds`, what it found, and `says`, a line for people; or with an `error`.
    """
    report = {**make_report(options, 0, device), "sections": {}}
    del report["cases"]
    models = Models(options, device)
    sections = {
        "kernels": lambda: compare_kernels(device, options.repeats, is_small=options.shape == "tiny"),
        "eager": models.compare,
        "compiled": models.compile_tower,
        "CUDA graphs": models.replay_graphs,
        "reading": lambda: measure_reading(options),
        "serving": lambda: measure_serving(options, device),
    }
    started = time.monotonic()
    for name, measure in sections.items():
        if time.monotonic() - started > 60 * options.minutes:
            report["sections"][name] = {"seconds": 0.0, "error": "no time left", "says": "not run: no time left"}
            yield report
            continue
        say(f"{name} ...")
        section_started = time.monotonic()
        section = _without_failing(measure)
        report["sections"][name] = {"seconds": time.monotonic() - section_started, **section}
        report["parameters"] = models.num_parameters
        yield report


def _without_failing(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return measure()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return {"error": reason, "traceback": traceback.format_exc(), "says": f"failed: {reason[:200]}"}
