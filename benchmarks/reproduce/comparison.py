"""The paper's rows: the command of each, and the results of those that were run."""

import shlex
from collections.abc import Mapping, Sequence

from .matching import SETTINGS, differences, has_released_settings, is_run_of, parts_of
from .paper_tables import TABLES
from .result_files import SUBSET, Run
from .table_rows import BENCHMARKS, TASKS, Checkpoint, Row, Table

COLUMNS = (*BENCHMARKS, "mean", "Score %")


def as_markdown(runs: Sequence[Run], names: Sequence[str]) -> str:
    """The wanted tables, each figure as `ours / paper's`, and the runs that are no row of them.

    Rows that were run with the authors' settings stand below those with this project's.
    """
    used: set[int] = set()
    parts = []
    for name in names:
        table = TABLES[name]
        lines = [f"### {table.title}", "", "| ours / paper | " + " | ".join(COLUMNS) + " |"]
        lines.append("|---|" + "---:|" * len(COLUMNS))
        notes: list[str] = []
        of_full = {} if table.full is None else _scores_of(runs, table.full, table.checkpoint, "paper")[0]
        for row in table.rows:
            for settings in SETTINGS if has_released_settings(row) else SETTINGS[:1]:
                scores, matching = _scores_of(runs, row, table.checkpoint, settings)
                if settings != "paper" and not matching:
                    continue
                title = row.title if settings == "paper" else f"{row.title}, {settings} settings"
                used |= matching.keys()
                notes += [f"{title}: {note}" for of_run in matching.values() for note in of_run]
                lines.append(_line(title, row, scores, _mean(of_full)))
        parts.append("\n".join([*lines, "", *(f"- {note}" for note in dict.fromkeys(notes))]).rstrip())
    others = [run for number, run in enumerate(runs) if number not in used]
    if others:
        parts.append("### Other runs\n\n" + "\n".join(map(_other, others)))
    return "\n\n".join(parts) + "\n"


def _scores_of(
    runs: Sequence[Run], row: Row, checkpoint: Checkpoint, settings: str
) -> tuple[dict[str, float], dict[int, list[str]]]:
    """By benchmark; and what is to be said of each run of the row, by its number: nothing of those that do not count.

    Of several runs of a benchmark the newest counts, but the subset of EgoSchema only where there is no other.
    """
    counted: dict[str, int] = {}
    matching: dict[int, list[str]] = {}
    for part in parts_of(row, checkpoint, settings):
        numbers = [number for number, run in enumerate(runs) if is_run_of(run, row, part, checkpoint)]
        matching |= {number: [] for number in numbers}
        for number in sorted(numbers, key=lambda number: SUBSET not in runs[number].notes):
            counted |= {name: number for name in runs[number].scores if name in part.benchmarks}
    for number in sorted(set(counted.values())):
        matching[number] = [*runs[number].notes, *differences(runs[number], checkpoint)]
    return {name: runs[number].scores[name] for name, number in counted.items()}, matching


def _line(title: str, row: Row, scores: Mapping[str, float], mean_of_full: float | None) -> str:
    mean = _mean(scores)
    score = 100 * mean / mean_of_full if mean and mean_of_full else None
    cells = [_cell(scores.get(name), printed) for name, printed in zip(BENCHMARKS, row.scores)]
    return "| " + " | ".join([title, *cells, _cell(mean, row.mean), _cell(score, row.score)]) + " |"


def _mean(scores: Mapping[str, float]) -> float | None:
    return sum(scores.values()) / len(BENCHMARKS) if len(scores) == len(BENCHMARKS) else None


def _cell(ours: float | None, printed: float | None) -> str:
    return " / ".join("-" if value is None else f"{value:.1f}" for value in (ours, printed))


def _other(run: Run) -> str:
    arguments = ",".join(f"{name}={value}" for name, value in run.arguments.items())
    scores = ", ".join(f"{name} {value:.1f}" for name, value in run.scores.items()) or "no score of the paper's tables"
    notes = f" ({'; '.join(run.notes)})" if run.notes else ""
    return f"- {run.model} {arguments or 'without arguments'}: {scores}{notes}"


def commands(
    name: str,
    output: str,
    num_processes: int,
    settings: str = "paper",
    model_args: Mapping[str, str] | None = None,
    others: Sequence[str] = (),
) -> list[str]:
    """The commands of the rows of a table that can be run, for a shell: one a row, or one for each part of it.

    Args:
        output: lmms-eval's --output_path.
        settings: one of `SETTINGS`.
        model_args: further arguments of all models, or other ones than the table's.
        others: further options of lmms-eval.
    """
    return [
        _command(row, table, part.benchmarks, {**part.arguments, **(model_args or {})}, output, num_processes, others)
        for table in [TABLES[name]]
        for row in table.rows
        for part in parts_of(row, table.checkpoint, settings)
    ]


def _command(
    row: Row,
    table: Table,
    benchmarks: Sequence[str],
    arguments: Mapping[str, object],
    output: str,
    num_processes: int,
    others: Sequence[str],
) -> str:
    frames = row.num_frames or table.checkpoint.num_frames
    given = {"pretrained": table.checkpoint.name, "max_frames_num": frames, **arguments}
    launched = ["accelerate", "launch", "--num_processes", str(num_processes), "-m", "lmms_eval"]
    options = {
        "--model": str(row.model),
        "--model_args": ",".join(f"{key}={value}" for key, value in given.items()),
        "--tasks": ",".join(TASKS[benchmark] for benchmark in benchmarks),
        "--batch_size": "1",
        "--output_path": output,
        "--use_cache": f"{output}/answers",
    }
    words = [*launched, *(word for option in options.items() for word in option), "--log_samples", *others]
    # By the first word lmms-eval finds the answers of a run that was stopped, in the folder of --use_cache.
    return f"LMMS_CACHE_RUN_ID=paper python -m benchmarks.reproduce run {shlex.join(words)}"


def left_out(name: str, settings: str) -> list[tuple[str, str]]:
    """The rows of a table that have no command, by their titles, and why."""
    table = TABLES[name]
    return [
        (row.title, "the authors' script has no settings for it" if row.model else "not defined for the checkpoint")
        for row in table.rows
        if not parts_of(row, table.checkpoint, settings)
    ]
