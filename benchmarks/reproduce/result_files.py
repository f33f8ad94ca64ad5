"""Reads the result files that lmms-eval writes with --output_path, `.../MODEL/DATE_results.json`."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .table_rows import BENCHMARKS

# Scores of the tasks, and what makes per cent of them. lmms-eval appends the filter to the metric's name.
METRICS = {
    "EgoSchema": (("egoschema", "submission", 1), ("egoschema_subset", "score", 100)),
    "LongVideoBench": (("longvideobench_val_v", "lvb_acc", 100),),
    "VideoMME": (("videomme", "videomme_perception_score", 1),),
}
MVBENCH_METRIC = "mvbench_accuracy"
MVBENCH_TASKS = 20

SUBSET = "EgoSchema: the subset of 500"

# `max_frames_num` of this project's models.
DEFAULT_FRAMES = 32
# Arguments that change what the model is asked, or how exactly it answers, but not the method; and their defaults.
INPUTS = {
    "conv_template": "checkpoint",
    "frame_sampling": "uniform",
    "task_prompts": None,
    "add_time_instruction": False,
    "dtype": "auto",
    "revision": None,
    "unreadable_videos": "stop",
}
# Arguments that change speed or place.
NEUTRAL = {
    *("pretrained", "max_frames_num", "batch_size", "device", "device_map", "attn_implementation", "read_ahead"),
    "keep_encoded_gib",
    *("use_cache", "trust_remote_code", "video_decode_backend"),
}


@dataclass(frozen=True)
class Run:
    """One result file.

    Attributes:
        file: where it is.
        model: lmms-eval's name of the model.
        model_args: all its arguments, as text.
        pretrained: the checkpoint.
        num_frames: `max_frames_num`, or None.
        inputs: those of the model's arguments that `INPUTS` lists, as text.
        arguments: the other ones, without those that change speed or place alone.
        tasks: of lmms-eval, that the file has results of.
        scores: in %, by benchmark; those that the file has.
        notes: what a reader of the scores has to know.
    """

    file: Path
    model: str
    model_args: Mapping[str, str]
    pretrained: str
    num_frames: int | None
    inputs: Mapping[str, str]
    arguments: Mapping[str, str]
    tasks: tuple[str, ...]
    scores: Mapping[str, float]
    notes: tuple[str, ...]


def read_runs(places: list[Path]) -> list[Run]:
    """All result files in folders, or files themselves, oldest first.

    Raises:
        ValueError: if a file is none of lmms-eval's, or there is none.
    """
    for place in places:
        if not place.exists():
            raise ValueError(f"There is no {place}: give lmms-eval's --output_path.")
    files = [file for place in places for file in (place.rglob("*_results.json") if place.is_dir() else [place])]
    if not files:
        named = ", ".join(map(str, places))
        raise ValueError(f"There is no *_results.json in {named}: give lmms-eval's --output_path.")
    return [read_run(file) for file in sorted(set(files), key=lambda file: file.name)]


def read_run(file: Path) -> Run:
    """One file."""
    try:
        content = json.loads(file.read_text())
        results, config = content["results"], content["config"]
        arguments = split_model_args(config["model_args"])
        scores, notes = _scores(results, content.get("n-samples", {}))
        notes += _further_options(content)
        model = config["model"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not a result file of lmms-eval: {type(error).__name__} {error}.") from None
    frames = arguments.get("max_frames_num")
    return Run(
        file,
        model,
        arguments,
        arguments.get("pretrained", ""),
        int(frames) if frames else None,
        {name: value for name, value in arguments.items() if name in INPUTS},
        {name: value for name, value in arguments.items() if name not in {*INPUTS, *NEUTRAL}},
        tuple(results),
        scores,
        notes,
    )


def split_model_args(given: str | Mapping[str, Any] | None) -> dict[str, str]:
    """lmms-eval's `--model_args` by name."""
    if isinstance(given, Mapping):
        return {name: str(value) for name, value in given.items()}
    parts = re.split(r",(?![^\[]*\])", given or "")  # not within a list such as layers=[2,7,14]
    named = (part.partition("=") for part in parts if part.strip())
    return {name.strip(): value.strip() for name, _, value in named}


def _scores(results: Mapping[str, Any], sizes: Mapping[str, Any]) -> tuple[dict[str, float], tuple[str, ...]]:
    scores, notes = {}, []
    subtasks = {
        task: value
        for task, values in results.items()
        if task.startswith("mvbench_") and (value := _metric(values, MVBENCH_METRIC)) is not None
    }
    if subtasks:
        # lmms-eval prints no mean of the group.
        scores["MVBench"] = sum(subtasks.values()) / len(subtasks)
        if len(subtasks) < MVBENCH_TASKS:
            notes.append(f"MVBench: {len(subtasks)} of {MVBENCH_TASKS} tasks")
    for benchmark, metrics in METRICS.items():
        for task, metric, factor in metrics:
            value = _metric(results.get(task, {}), metric)
            if value is not None and benchmark not in scores:
                scores[benchmark] = factor * value
                if task == "egoschema_subset":
                    notes.append(SUBSET)
    for task, size in sizes.items():
        if size.get("effective", 0) < size.get("original", 0):
            notes.append(f"{task}: {size['effective']} of {size['original']} samples")
    return {name: scores[name] for name in BENCHMARKS if name in scores}, tuple(notes)


def _further_options(content: Mapping[str, Any]) -> tuple[str, ...]:
    """What lmms-eval itself was told to ask otherwise."""
    given = {
        "gen_kwargs": content["config"].get("gen_kwargs"),
        "system_instruction": content.get("system_instruction"),
    }
    shots = sorted(
        f"{task}: {shots} examples in the prompt" for task, shots in content.get("n-shot", {}).items() if shots
    )
    return (*(f"{name}={value}" for name, value in given.items() if value), *shots)


def _metric(values: Mapping[str, Any], name: str) -> float | None:
    for key, value in values.items():
        if key.split(",")[0] == name and isinstance(value, (int, float)):
            return float(value)
    return None
