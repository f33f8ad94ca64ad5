"""Runs lmms-eval on the local task, several models in one process or, with torchrun, in each of several.

torchrun --nproc_per_node 2 lmms_eval_runs.py TASK_FOLDER RUNS.json RESULTS.json
"""

import json
import os
import sys
from pathlib import Path

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

TASK = "mini_questions"
TASK_FOLDER = Path(__file__).with_name("task")


def run(model: str, model_args: str, task: str = TASK, **options) -> dict | None:
    """A model's answers in the order of the documents, and its score; None in all processes but the first."""
    manager = TaskManager("ERROR", include_path=str(TASK_FOLDER), model_name=model)
    results = simple_evaluate(model=model, model_args=model_args, tasks=[task], task_manager=manager, **options)
    if results is None:
        return None
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    return {
        "answers": [sample["filtered_resps"][0].strip() for sample in samples],
        "prompts": [sample["arguments"][0] for sample in samples],
        "score": results["results"][task]["accuracy,none"],
    }


def main(task_folder: str, runs: str, results: str) -> None:
    """Runs what a file lists, and writes what came of it."""
    wanted = json.loads(Path(runs).read_text())
    os.chdir(task_folder)
    found = {name: run(*arguments) for name, arguments in wanted.items()}
    if int(os.environ["RANK"]) == 0:
        Path(results).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
