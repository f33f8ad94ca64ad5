"""Runs a row's command, and looks for its results: lmms-eval ends with status 0 after an error."""

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .result_files import read_run, split_model_args
from .table_rows import TASKS


def run_row(command: Sequence[str]) -> None:
    """Runs lmms-eval with its options.

    Args:
        command: which has `--output_path`, `--model`, `--model_args` and `--tasks`.

    Raises:
        ValueError: if the command has not these, or the row has failed.
    """
    options = _options(command)
    row = f"{options.model} {options.model_args}"
    before = set(_result_files(options.output_path))
    # The rows' own shell reads its commands from the standard input.
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    if status != 0:
        raise ValueError(f"The row failed: {row} ended with status {status}, and the reason stands above.")
    # Other rows may be run into the same folder at the same time.
    runs = [read_run(file) for file in sorted(set(_result_files(options.output_path)) - before)]
    runs = [
        run for run in runs if (run.model, run.model_args) == (options.model, split_model_args(options.model_args))
    ]
    if not runs:
        raise ValueError(
            f"The row failed: {row} wrote no results to {options.output_path}. The error stands above; lmms-eval "
            "itself ends as if there were none. Run the row again: its answers up to then are kept."
        )
    benchmark_of = {task: benchmark for benchmark, task in TASKS.items()}
    wanted = [benchmark_of.get(task, task) for task in options.tasks.split(",")]
    missing = [name for name in wanted if not any(name in run.scores or name in run.tasks for run in runs)]
    if missing:
        raise ValueError(f"The row failed: {row} has no score of {', '.join(missing)}; the reason stands above.")


def _options(command: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False, add_help=False)
    names = ("--model", "--model_args", "--tasks", "--output_path")
    for name in names:
        parser.add_argument(name)
    options, _ = parser.parse_known_args(list(command))
    absent = [name for name in names if getattr(options, name.removeprefix("--")) is None]
    if absent:
        raise ValueError(f"The command to run has no {' and no '.join(absent)}: give one that `commands` printed.")
    return options


def _result_files(folder: str) -> list[Path]:
    return list(Path(folder).rglob("*_results.json"))
