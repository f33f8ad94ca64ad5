"""The commands of the paper's tables, run by a shell with lmms-eval; and where lmms-eval lists the models."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aot_llava_cli.mini import MINI_CHECKPOINT
from benchmarks.reproduce.__main__ import main
from benchmarks.reproduce.result_files import read_runs
from benchmarks.reproduce.table_rows import TASKS

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed: make_environment makes an environment for it")

from lmms_eval_runs import TASK, TASK_FOLDER

from aot_llava_lmms_eval.names import AOT, METHODS, QWEN_VL, model_id

ROOT = Path(__file__).parents[2]


def test_rows_are_run_by_a_shell_and_one_that_fails_is_noticed(local_task, tmp_path, capsys):
    """Table 8 on the mini and the local task: rows are all tokens, random anchors, AOT; the second is broken."""
    arguments = f"pretrained={MINI_CHECKPOINT},max_frames_num=4,dtype=float32,device=cpu"
    options = ["--include_path", str(TASK_FOLDER), "--limit", "1"]
    main(["commands", "8", "--output", str(tmp_path / "results"), "--model_args", arguments, "--", *options])
    script = capsys.readouterr().out.replace(",".join(TASKS.values()), TASK)
    script = script.replace("anchor_selection=random", "anchor_selection=nonsense")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash"],
        input=script,
        cwd=local_task.folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr[-3000:]
    assert done.stderr.splitlines()[-1] == "1 of 3 rows failed: see above"
    assert re.search(r"The row failed: aot_llava \S*anchor_selection=nonsense\S* wrote no results", done.stderr)
    runs = read_runs([tmp_path / "results"])
    assert [run.arguments for run in runs] == [{"retention_ratio": "1.0"}, {"retention_ratio": "0.1"}]
    assert all(run.tasks == (TASK,) for run in runs)


def test_where_lmms_eval_lists_the_models(capsys):
    """`lmms-eval models` prints static tables; docs/reproduce.md says so, and what lists the models instead."""
    from lmms_eval.cli.models_cmd import run_models
    from lmms_eval.models import list_available_models

    ours = {model_id(method) for method in (AOT, *METHODS, *QWEN_VL)}
    assert ours <= set(list_available_models())
    run_models(argparse.Namespace(aliases=True))
    assert not any(name in capsys.readouterr().out for name in ours)
