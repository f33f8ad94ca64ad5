"""lmms-eval's result files beside the paper's tables; the files here have the form that lmms-eval 0.7.3 writes."""

import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from aot_llava_baselines import BASELINES, build_baseline
from aot_llava_lmms_eval.answering import settings_of
from aot_llava_lmms_eval.arguments import HarnessArguments, split_arguments
from aot_llava_lmms_eval.names import AOT
from benchmarks.reproduce.__main__ import main
from benchmarks.reproduce.comparison import commands
from benchmarks.reproduce.matching import parts_of
from benchmarks.reproduce.paper_tables import TABLES
from benchmarks.reproduce.result_files import DEFAULT_FRAMES, INPUTS, MVBENCH_TASKS, NEUTRAL, read_run
from benchmarks.reproduce.table_rows import LLAVA_VIDEO, ONEVISION, TASKS
from modeling_aot_llava import AOTLlavaOnevisionConfig


def write(folder, date, model, arguments, results, sizes=None, config=None, **others):
    folder.mkdir(exist_ok=True, parents=True)
    file = folder / f"{date}_results.json"
    config = {"model": model, "model_args": arguments, **(config or {})}
    file.write_text(json.dumps({"results": results, "config": config, "n-samples": sizes or {}, **others}))
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
ALL = {**mvbench(50.0), **OTHERS}
WITHOUT_RATIO = (
    "pretrained=llava-hf/llava-onevision-qwen2-7b-ov-hf,max_frames_num=32,conv_template=qwen_1_5,"
    "frame_sampling=llava_onevision"
)
AT_TEN = f"{WITHOUT_RATIO},retention_ratio=0.1"


def compared(capsys, folder, *tables):
    main(["compare", str(folder), "--tables", *tables])
    return capsys.readouterr().out


def test_a_row_of_several_runs(tmp_path, capsys):
    write(tmp_path / "m", "20261125_100000", "aot_llava", AT_TEN, {**mvbench(50.0), "videomme": {"x,none": 1}})
    write(tmp_path / "m", "20261125_110000", "aot_llava", AT_TEN, OTHERS)
    main(["compare", str(tmp_path), "--tables", "1"])
    printed = capsys.readouterr().out
    mean = (50 + 61.1 + 54.32 + 55.5) / 4
    row = f"| AOT, 10% | 50.0 / 57.2 | 61.1 / 60.3 | 54.3 / 53.8 | 55.5 / 56.6 | {mean:.1f} / 57.0 | - / 97.6 |"
    assert row in printed.splitlines()
    assert "| AOT, 15% | - / 57.7 | - / 61.3 | - / 55.1 | - / 56.1 | - / 57.6 | - / 98.6 |" in printed
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
    found = [line.split(" | ")[3].split(" / ")[0] for line in printed.splitlines() if line.count(" | ") == 6][1:]
    assert [figure for figure in found if figure != "-"] == [f"{90 + n / 10:.1f}" for n in range(len(lines))]
    assert "instead of" not in printed


@pytest.mark.parametrize("settings", ["paper", "released"])
def test_every_row_can_be_built(settings):
    """Models and arguments of the rows are those of the package."""
    for table in TABLES.values():
        for row in filter(lambda row: row.model, table.rows):
            for part in parts_of(row, table.checkpoint, settings):
                method = row.model.removeprefix("aot_llava").removeprefix("_") or AOT
                given = {"pretrained": table.checkpoint.name, **part.arguments}
                _, settings_of_method = split_arguments(row.model, given, settings_of(method))
                if method == AOT:
                    fields = {"mm_newline_position": "grid"} if table.checkpoint is LLAVA_VIDEO else {}
                    AOTLlavaOnevisionConfig(**fields, **settings_of_method).validate_aot()
                else:
                    known = {field.name for field in dataclasses.fields(BASELINES[method])}
                    build_baseline(method, **{name: row.arguments[name] for name in known & set(row.arguments)})


def test_inputs_are_arguments_of_the_models_with_their_defaults():
    defaults = {field.name: field.default for field in dataclasses.fields(HarnessArguments)}
    assert {name: defaults[name] for name in INPUTS} == INPUTS
    assert defaults["max_frames_num"] == DEFAULT_FRAMES
    assert set(defaults) <= {*INPUTS, *NEUTRAL}


def test_fastvid_has_the_head_that_its_program_reads():
    rows = [row for table in TABLES.values() for row in table.rows if row.model == "aot_llava_fastvid"]
    assert len(rows) > 4
    assert {row.arguments["pooling_head"] for row in rows} == {"google/siglip-so400m-patch14-384"}


def test_llava_video_runs_in_float16_as_lmms_evals_class():
    assert all("dtype=float16" in line for line in commands("2", "results", 1))


def test_printed_means_are_those_of_the_printed_scores():
    """To the digit, but for one: 57.1, 60.2, 53.6 and 54.6 make 56.4."""
    away = [
        (name, row.title)
        for name, table in TABLES.items()
        for row in table.rows
        if row.mean is not None and abs(sum(row.scores) / 4 - row.mean) > 0.0501
    ]
    assert away == [("5", "OT w/o intra-frame")]


def test_printed_scores_are_shares_of_the_printed_means():
    """To the digit, but for two: 56.3 of 58.4 is 96.4 %, and 57.3 of 60.2 is 95.2 %."""
    away = [
        (name, row.title)
        for name, table in TABLES.items()
        for row in table.rows
        if row.score is not None and abs(100 * row.mean / table.full.mean - row.score) > 0.0501
    ]
    assert away == [("2", "AOT, 15%"), ("5", "OT w/o intra-frame")]


def test_score_is_the_share_of_our_own_mean_of_all_tokens(tmp_path, capsys):
    at_ten = {**mvbench(40.0), "egoschema": {"submission,none": 50.0}, **OTHERS}
    write(tmp_path, "20261125_100000", "aot_llava", AT_TEN, at_ten)
    write(tmp_path, "20261125_110000", "aot_llava", f"{WITHOUT_RATIO},retention_ratio=1.0", ALL)
    full, ours = (50 + 61.1 + 54.32 + 55.5) / 4, (40 + 50 + 54.32 + 55.5) / 4
    for table, title in (("1", "AOT, 10%"), ("4", "AOT"), ("5", "AOT"), ("8", "AOT")):
        (line,) = [line for line in compared(capsys, tmp_path, table).splitlines() if line.startswith(f"| {title} |")]
        assert line.endswith(f"| {ours:.1f} / 57.0 | {100 * ours / full:.1f} / 97.6 |")


def test_egoschema_is_the_full_set_whose_score_is_in_per_cent(tmp_path, capsys):
    """The task of 500 counts where there is no other, newer or not, and is named."""
    assert all("egoschema" in line.split("--tasks ")[1].split()[0].split(",") for line in commands("1", "results", 1))
    write(tmp_path, "20261125_100000", "aot_llava", AT_TEN, {"egoschema": {"submission,none": 60.3}})
    write(tmp_path, "20261125_110000", "aot_llava", AT_TEN, {"egoschema_subset": {"score,none": 0.5}})
    printed = compared(capsys, tmp_path, "1")
    assert "| AOT, 10% | - / 57.2 | 60.3 / 60.3 |" in printed
    assert "subset" not in printed
    (tmp_path / "20261125_100000_results.json").unlink()
    printed = compared(capsys, tmp_path, "1")
    assert "| AOT, 10% | - / 57.2 | 50.0 / 60.3 |" in printed
    assert "- AOT, 10%: EgoSchema: the subset of 500" in printed


@pytest.mark.parametrize(
    ("arguments", "note"),
    [
        (AT_TEN.replace(",conv_template=qwen_1_5", ""), "conv_template=checkpoint instead of qwen_1_5"),
        (AT_TEN.replace("llava_onevision", "uniform"), "frame_sampling=uniform instead of llava_onevision"),
        (f"{AT_TEN},task_prompts=llava_vid", "task_prompts=llava_vid instead of None"),
        (f"{AT_TEN},add_time_instruction=True", "add_time_instruction=True instead of False"),
        (f"{AT_TEN},dtype=bfloat16", "dtype=bfloat16 instead of auto"),
        (f"{AT_TEN},revision=v2", "revision=v2 instead of None"),
        (f"{AT_TEN},unreadable_videos=llava_vid", "unreadable_videos=llava_vid instead of stop"),
        (
            AT_TEN.replace("qwen2-7b", "qwen2-0.5b"),
            "pretrained=llava-hf/llava-onevision-qwen2-0.5b-ov-hf instead of llava-hf/llava-onevision-qwen2-7b-ov-hf",
        ),
    ],
)
def test_what_differs_from_the_commands_is_named(arguments, note, tmp_path, capsys):
    write(tmp_path, "20261125_100000", "aot_llava", arguments, OTHERS)
    printed = compared(capsys, tmp_path, "1")
    assert "| AOT, 10% | - / 57.2 | 61.1 / 60.3 | 54.3 / 53.8 | 55.5 / 56.6 |" in printed
    assert f"- AOT, 10%: {note}" in printed.splitlines()
    assert printed.count("instead of") == 1


def test_what_lmms_eval_asked_otherwise_is_named(tmp_path, capsys):
    config = {"gen_kwargs": "temperature=1", "limit": None}
    others = {"n-shot": {"videomme": 2, "egoschema": 0}, "system_instruction": "Be brief."}
    write(tmp_path, "20261125_100000", "aot_llava", AT_TEN, OTHERS, config=config, **others)
    printed = compared(capsys, tmp_path, "1")
    for note in ("gen_kwargs=temperature=1", "system_instruction=Be brief.", "videomme: 2 examples in the prompt"):
        assert f"- AOT, 10%: {note}" in printed.splitlines()


def test_checkpoint_in_a_folder_of_any_name(tmp_path, capsys):
    for table, name, arguments in (
        ("1", ONEVISION.name, AT_TEN.replace("llava-hf/", "/data/videos/")),
        ("2", LLAVA_VIDEO.name, commands("2", "x", 1)[0].split("--model_args ")[1].split()[0]),
    ):
        arguments = arguments.replace(name, f"/models/{name.split('/')[1]}/snapshots/1f")
        write(tmp_path / table, "20261125_100000", "aot_llava", arguments, OTHERS)
        printed = compared(capsys, tmp_path / table, table)
        assert "Other runs" not in printed
        assert "instead of" not in printed


def test_frames_of_a_run_that_does_not_say_them_are_the_default(tmp_path, capsys):
    """32: right for LLaVA-OneVision, and no row of LLaVA-Video, which has 64."""
    for table in ("1", "2"):
        model_args = commands(table, "x", 1)[0].split("--model_args ")[1].split()[0]
        fewer = ",".join(part for part in model_args.split(",") if not part.startswith("max_frames_num"))
        write(tmp_path / table, "20261125_100000", "aot_llava", fewer, OTHERS)
        assert ("Other runs" in compared(capsys, tmp_path / table, table)) == (table == "2")


def test_notes_of_a_run_that_a_newer_one_replaces_are_not_printed(tmp_path, capsys):
    scores = {"videomme": {"videomme_perception_score,none": 50.0}}
    cut = {"videomme": {"original": 2700, "effective": 8}}
    write(tmp_path, "20261125_100000", "aot_llava", AT_TEN, scores, cut)
    write(tmp_path, "20261125_110000", "aot_llava", AT_TEN, scores)
    assert "8 of 2700" not in compared(capsys, tmp_path, "1")


# --- the authors' settings


def arguments_by_benchmark(lines):
    found = {}
    for line in lines:
        words = shlex.split(line)
        options = dict(part.split("=") for part in words[words.index("--model_args") + 1].split(","))
        found |= dict.fromkeys(words[words.index("--tasks") + 1].split(","), options)
    return found


def lines_of_row(table, settings, **fields):
    given = [f"{name}={value}" for name, value in fields.items()]
    lines = commands(table, "results", 1, settings)
    return [line for line in lines if all(part in line for part in given) and "--model aot_llava --" in line]


def test_released_settings_of_each_benchmark():
    found = arguments_by_benchmark(
        line for line in lines_of_row("1", "released", retention_ratio=0.1) if "clip_segmentation" not in line
    )
    assert set(found) == set(TASKS.values())
    for task, options in found.items():
        of_short = task in ("mvbench", "egoschema")
        assert options["recipe"] == "released"
        assert (options["num_anchors"], options["keep_ratio"]) == (("126", "0.3") if of_short else ("108", "0.1"))


def test_released_settings_of_llava_video():
    (line,) = lines_of_row("2", "released", recipe="released")
    (options,) = {tuple(options.items()) for options in arguments_by_benchmark([line]).values()}
    assert {("recipe", "released"), ("num_anchors", "180"), ("clip_segmentation", "none")} <= set(options)
    assert ("retention_ratio", "0.25") in options


def test_rows_without_released_settings_are_said_to_be_left_out(capsys):
    main(["commands", "1", "--settings", "released"])
    printed = capsys.readouterr().out
    assert "# AOT, 25%: left out, the authors' script has no settings for it" in printed.splitlines()
    assert "retention_ratio=0.25,recipe=released" not in printed
    main(["commands", "2"])
    assert "# DyCoke, 25%: left out, not defined for the checkpoint" in capsys.readouterr().out


def test_released_runs_have_a_line_of_their_own(tmp_path, capsys):
    for number, line in enumerate(commands("1", "x", 1, "released")):
        words = shlex.split(line)
        model, arguments, tasks = (words[words.index(name) + 1] for name in ("--model", "--model_args", "--tasks"))
        results = {task: values for task, values in ALL.items() if task.split("_")[0] in tasks}
        if "egoschema" in tasks.split(","):
            results["egoschema"] = {"submission,none": 61.1}
        write(tmp_path, f"20261125_{number:06}", model, arguments, results)
    printed = compared(capsys, tmp_path, "1")
    assert "Other runs" not in printed
    assert "| AOT, 10%, released settings | 50.0 / 57.2 | 61.1 / 60.3 | 54.3 / 53.8 | 55.5 / 56.6 |" in printed
    assert "| AOT, 10% | - / 57.2 |" in printed


# --- a failed row


LMMS_EVAL = """
import json, pathlib, sys, time
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert not sys.stdin.read()
results, status = json.loads(given["--results"]), int(given["--status"])
if results:
    folder = pathlib.Path(given["--output_path"], "a_model")
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model": given["--model"], "model_args": given["--model_args"]}
    (folder / f"{time.time_ns()}_results.json").write_text(json.dumps({"results": results, "config": config}))
sys.exit(status)
"""


def command_of(tmp_path, results, status=0, model_args="pretrained=x"):
    (tmp_path / "lmms_eval.py").write_text(LMMS_EVAL)
    given = {"--model": "aot_llava", "--model_args": model_args, "--tasks": ",".join(TASKS.values())}
    given |= {"--output_path": str(tmp_path / "results"), "--results": json.dumps(results), "--status": str(status)}
    return [sys.executable, str(tmp_path / "lmms_eval.py"), *(word for option in given.items() for word in option)]


FULL_SET = {**mvbench(50.0), **OTHERS, "egoschema": {"submission,none": 60.3}}


def test_row_with_all_scores_is_no_failure(tmp_path):
    main(["run", *command_of(tmp_path, FULL_SET)])


@pytest.mark.parametrize(
    ("results", "status", "complaint"),
    [
        ({}, 0, "aot_llava pretrained=x wrote no results to .*results.*: its answers up to then are kept"),
        (FULL_SET, 3, "ended with status 3"),
        ({task: values for task, values in FULL_SET.items() if task != "videomme"}, 0, "has no score of VideoMME"),
        ({**FULL_SET, "egoschema": {"alias": "egoschema"}, "egoschema_subset": {}}, 0, "has no score of EgoSchema"),
    ],
)
def test_failed_row_is_noticed(results, status, complaint, tmp_path):
    with pytest.raises(ValueError, match=f"The row failed: aot_llava pretrained=x.*{complaint}|{complaint}"):
        main(["run", *command_of(tmp_path, results, status)])


def test_results_of_an_earlier_run_and_of_another_row_are_not_taken_for_the_rows(tmp_path):
    write(tmp_path / "results" / "a_model", "20261124_100000", "aot_llava", "pretrained=x", FULL_SET)
    with pytest.raises(ValueError, match="wrote no results"):
        main(["run", *command_of(tmp_path, {})])
    command = command_of(tmp_path, FULL_SET, model_args="pretrained=y")
    command[command.index("--model_args") + 1] = "pretrained=x"  # what is run, and below what it writes
    (tmp_path / "lmms_eval.py").write_text(LMMS_EVAL.replace('given["--model_args"]', '"pretrained=y"'))
    with pytest.raises(ValueError, match="wrote no results"):
        main(["run", *command])


def test_command_that_is_none_of_lmms_eval():
    with pytest.raises(ValueError, match="has no --tasks and no --output_path: give one that `commands` printed"):
        main(["run", "true", "--model", "x", "--model_args", "y"])


def test_shell_runs_all_rows_and_tells_of_those_that_failed(tmp_path, capsys):
    """`commands | bash`, with a program in place of accelerate that fails for one row."""
    for name, program in (
        (
            "accelerate",
            f'#!/bin/sh\nshift 5\ncase "$*" in *random*) exit 0;; esac\n{sys.executable} -c "$PROGRAM" "$@"',
        ),
        ("python", f'#!/bin/sh\nexec {sys.executable} "$@"'),
    ):
        (tmp_path / name).write_text(program + "\n")
        (tmp_path / name).chmod(0o755)
    main(["commands", "8", "--output", str(tmp_path / "results")])
    script = capsys.readouterr().out
    program = LMMS_EVAL.replace('json.loads(given["--results"])', repr(FULL_SET)).replace(
        'int(given["--status"])', "0"
    )
    done = subprocess.run(
        ["bash"],
        input=script,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PROGRAM": program, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == "1 of 3 rows failed: see above"
    assert done.stderr.count("The row failed") == 1
    assert "anchor_selection=random wrote no results" in done.stderr
    main(["compare", str(tmp_path / "results"), "--tables", "8"])
    assert "| AOT | 50.0 / 57.2 | 60.3 / 60.3 |" in capsys.readouterr().out


# --- further commands


def test_other_arguments_and_options_reach_every_command(capsys):
    main(["commands", "8", "--model_args", "pretrained=/a/b,device_map=auto", "--", "--limit", "8"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "lmms_eval" in line]
    assert len(lines) == 3
    for line in lines:
        assert "--model_args pretrained=/a/b,max_frames_num=32," in line
        assert ",device_map=auto " in line
        assert line.endswith(" --limit 8")


def test_figure_3(tmp_path):
    left = arguments_by_line("figure-3-left")
    assert {options["max_frames_num"] for options in left} == {"16", "32", "64", "128"}
    assert len(left) == 4 * 5
    right = arguments_by_line("figure-3-right")
    for name in ("intra_frame_weight", "inter_frame_weight"):
        weights = [float(options[name]) for options in right if name in options]
        assert min(weights) < 1 < max(weights)
    assert sum("intra_frame_weight" not in options and "inter_frame_weight" not in options for options in right) == 1


def arguments_by_line(table):
    return [next(iter(arguments_by_benchmark([line]).values())) for line in commands(table, "results", 1)]


def test_sinkhorn_by_iterations(capsys):
    main(["commands", "3"])
    assert capsys.readouterr().out == "python -m benchmarks.reproduce sinkhorn\n"
    main(["sinkhorn", "--frames", "2", "--iterations", "1,100", "--repeats", "1", "--device", "cpu"])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| 1")]
    assert [row[:2] for row in rows] == [
        [count, stops] for count in ("1", "100") for stops in ("never", "change below 0.01")
    ]
    for _, _, within, between, both, share in rows:
        times = [float(cell.split(" / ")[0]) for cell in (within, between)]
        assert min(times) > 0
        assert sum(times) == pytest.approx(float(both), abs=0.011)
        assert float(share) >= 0


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
