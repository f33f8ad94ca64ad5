"""The paper's rows beside those that were run."""

from collections.abc import Mapping, Sequence

from .paper_tables import BENCHMARKS, TABLES, Row, Table
from .result_files import NEUTRAL, Run


def as_markdown(runs: Sequence[Run], names: Sequence[str]) -> str:
    """The wanted tables, each figure as `ours / paper's`, and the runs that are no row of them."""
    used: set[int] = set()
    parts = []
    for name in names:
        table = TABLES[name]
        lines = [f"### {table.title}", "", "| ours / paper | " + " | ".join((*BENCHMARKS, "mean")) + " |"]
        lines.append("|---|" + "---:|" * (len(BENCHMARKS) + 1))
        notes: list[str] = []
        for row in table.rows:
            matching = [number for number, run in enumerate(runs) if is_run_of(run, row, table)]
            used |= set(matching)
            # Of several runs of a benchmark the newest counts.
            scores = {key: value for number in matching for key, value in runs[number].scores.items()}
            notes += [f"{row.title}: {note}" for number in matching for note in runs[number].notes]
            lines.append(_line(row, scores))
        parts.append("\n".join([*lines, "", *(f"- {note}" for note in dict.fromkeys(notes))]).rstrip())
    others = [run for number, run in enumerate(runs) if number not in used]
    if others:
        parts.append("### Other runs\n\n" + "\n".join(map(_other, others)))
    return "\n\n".join(parts) + "\n"


def is_run_of(run: Run, row: Row, table: Table) -> bool:
    """Whether a run has exactly the row's model and arguments, and the table's kind of checkpoint and frames."""
    checkpoint = table.checkpoint
    same_checkpoint = ("video" in run.pretrained.lower()) == ("video" in checkpoint.name.lower())
    same_frames = run.num_frames in (None, checkpoint.num_frames)
    of_method = {name: value for name, value in checkpoint.arguments.items() if name not in NEUTRAL}
    same_arguments = _same(run.arguments, {**of_method, **row.arguments})
    return same_checkpoint and same_frames and run.model == row.model and same_arguments


def _same(given: Mapping[str, str], wanted: Mapping[str, object]) -> bool:
    return set(given) == set(wanted) and all(_equal(given[name], value) for name, value in wanted.items())


def _equal(text: str, value: object) -> bool:
    if isinstance(value, (int, float)):
        try:
            return float(text) == value
        except ValueError:
            return False
    return text == str(value)


def _line(row: Row, scores: Mapping[str, float]) -> str:
    cells = [_cell(scores.get(name), printed) for name, printed in zip(BENCHMARKS, row.scores)]
    complete = all(name in scores for name in BENCHMARKS)
    mean = sum(scores[name] for name in BENCHMARKS) / len(BENCHMARKS) if complete else None
    return "| " + " | ".join([row.title, *cells, _cell(mean, row.mean)]) + " |"


def _cell(ours: float | None, printed: float | None) -> str:
    return " / ".join("-" if value is None else f"{value:.1f}" for value in (ours, printed))


def _other(run: Run) -> str:
    arguments = ",".join(f"{name}={value}" for name, value in run.arguments.items())
    scores = ", ".join(f"{name} {value:.1f}" for name, value in run.scores.items()) or "no score of the paper's tables"
    notes = f" ({'; '.join(run.notes)})" if run.notes else ""
    return f"- {run.model} {arguments or 'without arguments'}: {scores}{notes}"


def commands(name: str, output: str, num_processes: int) -> list[str]:
    """The command of each row of a table that can be run, for a shell."""
    checkpoint = TABLES[name].checkpoint
    base = {"pretrained": checkpoint.name, "max_frames_num": checkpoint.num_frames, **checkpoint.arguments}
    lines = []
    for row in [row for row in TABLES[name].rows if row.model]:
        arguments = ",".join(f"{key}={value}" for key, value in {**base, **row.arguments}.items())
        lines.append(
            # By the first word lmms-eval finds the answers of a run that was stopped, in the folder of --use_cache.
            f"LMMS_CACHE_RUN_ID=paper accelerate launch --num_processes {num_processes} -m lmms_eval "
            f"--model {row.model} --model_args {arguments} "
            "--tasks mvbench,egoschema_subset,longvideobench_val_v,videomme "
            f"--batch_size 1 --log_samples --output_path {output} --use_cache {output}/answers"
        )
    return lines
