"""lmms-eval's result files beside the paper's tables; the files here have the form that lmms-eval 0.7.3 writes."""

import dataclasses
import json
import shlex

import pytest

from aot_llava_baselines import build_baseline
from aot_llava_lmms_eval.answering import settings_of
from aot_llava_lmms_eval.arguments import split_arguments
from aot_llava_lmms_eval.names import AOT
from benchmarks.reproduce.__main__ import main
from benchmarks.reproduce.comparison import commands
from benchmarks.reproduce.paper_tables import TABLES
from benchmarks.reproduce.result_files import MVBENCH_TASKS, read_run
from modeling_aot_llava import AOTLlavaOnevisionConfig


def write(folder, date, model, arguments, results, sizes=None):
    folder.mkdir(exist_ok=True, parents=True)
    file = folder / f"{date}_results.json"
    config = {"model": model, "model_args": arguments}
    file.write_text(json.dumps({"results": results, "config": config, "n-samples": sizes or {}}))
    return file


def mvbench(score):
    # As different as their mean allows.
    scores = [score - 1 if number % 2 else score + 1 for number in range(MVBENCH_TASKS)]
    results = {f"mvbench_task_{n}": {"alias": "x", "mvbench_accuracy,none": s} for n, s in enumerate(scores)}
    return {"mvbench": {" ": " "}, **results}


OTHERS = {
    "egoschema_subset": {"score,none": 0.611},
    "longvideobench_val_v": {"lvb_acc,none": 0.5432, "lvb_acc_stderr,none": "N/A"},
    "videomme": {"videomme_perception_score,none": 55.5},
}
AT_TEN = "pretrained=llava-hf/llava-onevision-qwen2-7b-ov-hf,max_frames_num=32,retention_ratio=0.1"


def test_a_row_of_several_runs(tmp_path, capsys):
    write(tmp_path / "m", "20261125_100000", "aot_llava", AT_TEN, {**mvbench(50.0), "videomme": {"x,none": 1}})
    write(tmp_path / "m", "20261125_110000", "aot_llava", AT_TEN, OTHERS)
    main(["compare", str(tmp_path), "--tables", "1"])
    printed = capsys.readouterr().out
    mean = (50 + 61.1 + 54.32 + 55.5) / 4
    row = f"| AOT, 10% | 50.0 / 57.2 | 61.1 / 60.3 | 54.3 / 53.8 | 55.5 / 56.6 | {mean:.1f} / 57.0 |"
    assert row in printed.splitlines()
    assert "| AOT, 15% | - / 57.7 | - / 61.3 | - / 55.1 | - / 56.1 | - / 57.6 |" in printed
    assert "- AOT, 10%: EgoSchema: the subset of 500" in printed
    assert "Other runs" not in printed


def test_the_newest_of_two_runs_counts(tmp_path, capsys):
    for date, score in (("20261125_120000", 0.7), ("20261124_120000", 0.1)):
        write(tmp_path, date, "aot_llava", AT_TEN, {"longvideobench_val_v": {"lvb_acc,none": score}})
    main(["compare", str(tmp_path), "--tables", "1"])
    assert "70.0 / 53.8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("aot_llava", AT_TEN + ",inter_frame_weight=0.1"),
        ("aot_llava", AT_TEN.replace("=32", "=16")),
        ("aot_llava_holitom", AT_TEN),
    ],
)
def test_a_run_that_is_no_row_is_not_taken_for_one(model, arguments, tmp_path, capsys):
    write(tmp_path, "20261125_100000", model, arguments, OTHERS)
    main(["compare", str(tmp_path), "--tables", "1"])
    printed = capsys.readouterr().out
    assert "54.3 /" not in printed
    assert f"- {model} " in printed.split("### Other runs")[1]


def test_checkpoints_are_told_apart(tmp_path, capsys):
    arguments = "pretrained=lmms-lab/LLaVA-Video-7B-Qwen2,max_frames_num=64,retention_ratio=0.15"
    arguments += ",mm_spatial_pool_mode=average"
    write(tmp_path, "20261125_100000", "aot_llava", arguments, OTHERS)
    main(["compare", str(tmp_path), "--tables", "1", "2"])
    first, second = capsys.readouterr().out.split("### Tables 2")
    assert "54.3 /" not in first
    assert "| AOT, 15% | - / 57.7 | 61.1 / 54.8 | 54.3 / 54.6 |" in second


def test_incomplete_runs_are_named(tmp_path):
    results = {"mvbench_action_count": {"mvbench_accuracy,none": 40}, "videomme": OTHERS["videomme"]}
    sizes = {"videomme": {"original": 2700, "effective": 8}}
    run = read_run(write(tmp_path, "20261125_100000", "aot_llava", {"retention_ratio": 0.1}, results, sizes))
    assert run.notes == (f"MVBench: 1 of {MVBENCH_TASKS} tasks", "videomme: 8 of 2700 samples")
    assert run.scores == {"MVBench": 40, "VideoMME": 55.5}
    assert run.arguments == {"retention_ratio": "0.1"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["compare", "nowhere"], "There is no nowhere: give lmms-eval's --output_path"),
        (["compare", "."], r"There is no \*_results.json in"),
        (["compare", "no.json"], r"no.json is not a result file of lmms-eval"),
    ],
)
def test_what_cannot_be_compared(arguments, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if arguments[1].endswith("json"):
        (tmp_path / "no.json").write_text("{}")
    with pytest.raises(ValueError, match=complaint):
        main(arguments)


def test_list_among_the_arguments(tmp_path):
    arguments = "pretrained=x,layers=[2,7,14],retention_ratio=0.1"
    run = read_run(write(tmp_path, "20261125_100000", "aot_llava_pdrop", arguments, OTHERS))
    assert run.arguments == {"layers": "[2,7,14]", "retention_ratio": "0.1"}


@pytest.mark.parametrize("name", TABLES)
def test_every_command_is_the_row_that_it_is_printed_for(name, tmp_path, capsys):
    lines = commands(name, "results", 8)
    # DyCoke is not defined for LLaVA-Video's newlines.
    assert [row.title for row in TABLES[name].rows if not row.model] == (["DyCoke, 25%"] if name == "2" else [])
    assert len(lines) == sum(row.model is not None for row in TABLES[name].rows)
    for number, line in enumerate(lines):
        words = shlex.split(line)
        model, arguments = (words[words.index(option) + 1] for option in ("--model", "--model_args"))
        score = {"longvideobench_val_v": {"lvb_acc,none": 0.9 + number / 1000}}
        write(tmp_path, f"20261125_{number:06}", model, arguments, score)
    main(["compare", str(tmp_path), "--tables", name])
    printed = capsys.readouterr().out
    assert "Other runs" not in printed
    found = [line.split(" | ")[3].split(" / ")[0] for line in printed.splitlines() if line.count(" | ") == 5][1:]
    assert [figure for figure in found if figure != "-"] == [f"{90 + n / 10:.1f}" for n in range(len(lines))]


def test_every_row_can_be_built():
    """Models and arguments of the rows are those of the package."""
    for table in TABLES.values():
        for row in filter(lambda row: row.model, table.rows):
            method = row.model.removeprefix("aot_llava").removeprefix("_") or AOT
            given = {"pretrained": table.checkpoint.name, **table.checkpoint.arguments, **row.arguments}
            _, settings = split_arguments(row.model, given, settings_of(method))
            if method == AOT:
                AOTLlavaOnevisionConfig(**settings).validate_aot()
            else:
                assert dataclasses.is_dataclass(build_baseline(method, **row.arguments))


def test_printed_means_are_those_of_the_printed_scores():
    """To the digit, but for one: 57.1, 60.2, 53.6 and 54.6 make 56.4."""
    away = [
        (name, row.title)
        for name, table in TABLES.items()
        for row in table.rows
        if row.mean is not None and abs(sum(row.scores) / 4 - row.mean) > 0.0501
    ]
    assert away == [("5", "OT w/o intra-frame")]


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "is not a result file of lmms-eval: JSONDecodeError"), ("{}", "lmms-eval: KeyError 'results'")],
)
def test_foreign_files(content, said, tmp_path):
    (tmp_path / "a_results.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        main(["compare", str(tmp_path)])


def test_no_files(tmp_path):
    with pytest.raises(ValueError, match=r"There is no \*_results.json in .*: give lmms-eval's --output_path"):
        main(["compare", str(tmp_path)])
