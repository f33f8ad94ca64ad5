"""Which row of a table a run is, and what a reader has to know of it then."""

from collections.abc import Mapping
from dataclasses import dataclass

from .result_files import DEFAULT_FRAMES, INPUTS, Run
from .table_rows import BENCHMARKS, Checkpoint, Row

# This project's, and those of the authors' scripts.
SETTINGS = ("paper", "released")


@dataclass(frozen=True)
class Part:
    """The benchmarks of a row that are run with the same arguments.

    Attributes:
        arguments: of the model, beside checkpoint and frames.
    """

    benchmarks: tuple[str, ...]
    arguments: Mapping[str, object]


def parts_of(row: Row, checkpoint: Checkpoint, settings: str) -> list[Part]:
    """How a row is run; nothing where it cannot be, or the authors' script has no settings for it."""
    arguments = {**checkpoint.arguments, **row.arguments}
    if row.model is None:
        return []
    if settings == "paper" or not has_released_settings(row):
        return [Part(BENCHMARKS, arguments)]
    released = checkpoint.released
    if row.arguments["retention_ratio"] != released.retention_ratio:
        return []
    return [
        Part(benchmarks, {**arguments, **others})
        for benchmarks, others in released.arguments.items()
        if not set(others) & set(row.arguments)
    ]


def has_released_settings(row: Row) -> bool:
    """Whether it is AOT that is run: the other methods, and all tokens, have one setting alone."""
    return row.model == "aot_llava" and row.arguments["retention_ratio"] != 1.0


def is_run_of(run: Run, row: Row, part: Part, checkpoint: Checkpoint) -> bool:
    """Whether a run has exactly the row's model, frames and arguments, and is on the table's kind of checkpoint."""
    of_method = {name: value for name, value in part.arguments.items() if name not in INPUTS}
    return (
        run.model == row.model
        and _is_of_video(run.pretrained) == _is_of_video(checkpoint.name)
        and (run.num_frames or DEFAULT_FRAMES) == (row.num_frames or checkpoint.num_frames)
        and set(run.arguments) == set(of_method)
        and all(_equal(run.arguments[name], value) for name, value in of_method.items())
    )


def differences(run: Run, checkpoint: Checkpoint) -> list[str]:
    """In what else than the method a run differs from the table's commands."""
    found = []
    if _last(checkpoint.name).lower() not in run.pretrained.lower():
        found.append(f"pretrained={run.pretrained} instead of {checkpoint.name}")
    for name, default in INPUTS.items():
        expected = checkpoint.arguments.get(name, default)
        given = run.inputs.get(name, str(default))
        if not _equal(given, expected):
            found.append(f"{name}={given} instead of {expected}")
    return found


def _is_of_video(pretrained: str) -> bool:
    # A folder above the checkpoint may be called anything, as "videos".
    named = [part for part in pretrained.lower().split("/") if "llava" in part]
    return "video" in (named[-1] if named else pretrained.lower())


def _equal(text: str, value: object) -> bool:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(text) == value
        except ValueError:
            return False
    # A checkpoint may lie in any folder.
    return _last(text) == _last(str(value))


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]
