"""The program `python -m benchmarks`, on its tiny shape. Nothing here depends on how fast this machine is."""

import contextlib
import importlib
import json
import math
import re
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from command_results import assert_one_line
from typer.testing import CliRunner

from aot_llava_cli.__main__ import app
from benchmarks import comparison as comparison_module
from benchmarks import plot, progress, serving, shapes
from benchmarks.__main__ import main
from benchmarks.comparison import Comparison
from benchmarks.measure import PeakMemory
from benchmarks.options import parse_options
from benchmarks.parts import PARTS
from benchmarks.report import as_text
from benchmarks.shapes import SHAPES, build_models, fill_in_defaults, make_prompt, random_videos
from benchmarks.stages import CompressionInputs
from modeling_aot_llava import AOTLlavaOnevisionConfig, fused_kernels
from modeling_aot_llava.cost_model import count_flops, decode_flops, prefill_flops

CPU = torch.device("cpu")
TEXT_TOKENS = 30
AOTS_PARTS = "attention_received_seconds", "compression_seconds"
TINY = {"num_layers": 2, "hidden_size": 64, "intermediate_size": 128}
QUICK = ["--frames", "2", "--stage-frames", "2", "--ratios", "1.0,0.1", "--repeats", "1", "--decode-tokens", "2"]
QUICK += ["--device", "cpu"]


@pytest.fixture(scope="module")
def models():
    """The tiny shape's stock and AOT model."""
    torch.manual_seed(0)
    return build_models(SHAPES["tiny"], torch.float32, CPU)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The results of one quick run of the whole program, by its other name; without the plot."""
    folder = tmp_path_factory.mktemp("results")
    arguments = ["benchmark", *QUICK, "--frames", "2,3", "--stage-frames", "2,5", "--repeats", "2", "--no-plot"]
    result = CliRunner().invoke(app, [*arguments, "--output", str(folder)], prog_name="aot-llava")
    assert result.exit_code == 0, result.output
    (folder / "stdout").write_text(result.stdout)
    (folder / "stderr").write_text(result.stderr)
    return folder


@pytest.fixture(scope="module")
def report(folder):
    return json.loads((folder / "results.json").read_text())


def of(report, **wanted):
    """The one case with these values."""
    (case,) = [case for case in report["cases"] if all(case[name] == value for name, value in wanted.items())]
    return case


def compared(report):
    """The cases that were run end to end."""
    return [case for case in report["cases"] if "first_token_seconds" in case]


def refusal(arguments, capsys):
    """The one line with which the program refuses these arguments."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_there_is_a_case_for_every_number_of_frames_and_contender(report):
    found = [(case["frames"], case["model"], case["retention_ratio"]) for case in report["cases"]]
    contenders = [("stock", None), ("AOT", 1.0), ("AOT", 0.1)]
    assert found == [*((frames, *each) for frames in (2, 3) for each in contenders), (5, "AOT", 0.1)]


def test_report_says_where_when_and_with_what(report):
    assert report["date"].endswith("+00:00")
    assert report["machine"]["processor"]
    assert report["machine"]["threads"] == torch.get_num_threads()
    assert report["versions"]["torch"] == torch.__version__
    assert report["options"]["dtype"] == "float32"
    assert report["options"]["device"] == "cpu"
    assert report["parameters"] > 0


@pytest.mark.parametrize(("frames", "ratio", "tokens"), [(2, None, 392), (2, 1.0, 392), (2, 0.1, 39), (3, 0.1, 59)])
def test_token_counts_are_exact(report, frames, ratio, tokens):
    case = of(report, frames=frames, retention_ratio=ratio)
    assert case["video_tokens"] == tokens
    assert case["prompt_tokens"] == tokens + 1 + TEXT_TOKENS


def test_flops_are_those_of_eq_17_and_18(report):
    for case in report["cases"]:
        flops, batch, tokens = case["flops"], case["batch"], case["prompt_tokens"]
        assert flops["prefill"] == batch * prefill_flops(tokens, **TINY)
        assert flops["decode"] == batch * decode_flops(tokens, 2, **TINY)
        patch_embedding = 729 * 64 * 3 * 14 * 14
        layers = prefill_flops(729, num_layers=7, hidden_size=64, intermediate_size=128)
        assert flops["vision_tower"] == batch * case["frames"] * (patch_embedding + layers)
        assert flops["projector"] == batch * case["frames"] * 729 * (64 * 64 + 64 * 64)
        assert flops["first_token"] == flops["vision_tower"] + flops["projector"] + flops["prefill"]


def test_limit_of_the_7b_shape_is_the_known_one():
    shape = SHAPES["7b"]
    config = AOTLlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 14, **shape.vision},
        text_config={"model_type": "qwen2", **shape.text},
    )
    stock, aot = (
        count_flops(config, num_frames=32, num_tokens=tokens, decode_tokens=1, batch=1) for tokens in (6272, 627)
    )
    assert stock["prefill"] / 1e12 == pytest.approx(40.8, abs=0.05)
    assert stock["first_token"] / aot["first_token"] == pytest.approx(3.6, abs=0.1)


def test_medians_are_those_of_the_samples(report):
    quantities = ("first_token_seconds", "prefill_seconds", "decode_tokens_per_second", "peak_memory_bytes")
    for case in compared(report):
        for summary in (case[name] for name in quantities):
            assert len(summary["samples"]) == 2
            assert summary["median"] == statistics.median(summary["samples"])
            assert 0 < summary["min"] <= summary["median"] <= summary["max"] < math.inf


def test_ratios_are_those_of_the_medians(report):
    for case in compared(report):
        stock = of(report, frames=case["frames"], model="stock")

        def ratio(name, case=case, stock=stock):
            return case[name]["median"] / stock[name]["median"]

        speedups = case["speedup_over_stock"]
        assert speedups["first_token_seconds"] == pytest.approx(1 / ratio("first_token_seconds"))
        assert speedups["prefill_seconds"] == pytest.approx(1 / ratio("prefill_seconds"))
        assert speedups["decode_tokens_per_second"] == pytest.approx(ratio("decode_tokens_per_second"))
        assert case["memory_over_stock"]["peak_memory_bytes"] == pytest.approx(ratio("peak_memory_bytes"))
        limit = stock["flops"]["first_token"] / case["flops"]["first_token"]
        assert case["flops_limit"] == pytest.approx(limit)
        assert case["share_of_flops_limit"] == pytest.approx(speedups["first_token_seconds"] / limit)


def test_parts_add_up_to_the_time_to_first_token(report):
    for case in compared(report):
        for sample in range(2):
            parts = {name: case[name]["samples"][sample] for name in PARTS}
            assert sum(parts.values()) == pytest.approx(case["first_token_seconds"]["samples"][sample])
            own = [parts[name] for name in AOTS_PARTS]
            assert all(seconds > 0 for seconds in own) if case["retention_ratio"] == 0.1 else not any(own)
            assert all(seconds > 0 for name, seconds in parts.items() if name not in AOTS_PARTS)


def test_reading_and_preparing_the_video_is_measured_beside_it(report, folder):
    for case in compared(report):
        for name in ("reading_seconds", "processing_seconds"):
            assert len(case["preparation"][name]["samples"]) == 2
            assert case["preparation"][name]["min"] > 0
    table = (folder / "stdout").read_text()
    for frames in (2, 3):
        assert f"Before that, on the CPU: a video's {frames} frames are read in" in table


def test_a_trace_is_written_on_request(models, tmp_path):
    options = parse_options([*QUICK, "--ratios", "0.1", "--profile", "--output", str(tmp_path)], "benchmarks")
    fill_in_defaults(options, CPU)
    list(Comparison(*models, options, contextlib.nullcontext).run())
    (trace,) = tmp_path.iterdir()
    assert trace.name == "trace-2-frames-batch-1.json"
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert "aten::bmm" in names


def test_fewer_frames_at_once_are_measured_beside_the_default(models):
    """Of the smallest ratio, where the video has more frames; time and memory, no stages."""
    options = parse_options([*QUICK, "--ratios", "1.0,0.1", "--frames-at-once", "1,4"], "benchmarks")
    fill_in_defaults(options, CPU)
    options.frames, options.stage_frames, options.repeats = [3], [], 1
    comparison = Comparison(*models, options, contextlib.nullcontext)
    calls = []
    handle = models[1].model.vision_tower.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    (cases,) = comparison.run()
    handle.remove()
    assert [case["variation"] for case in cases] == [None, None, None, "1 frames at once"]
    assert cases[-1]["memory_growth_bytes"]["samples"]
    assert "stages" in cases[-2]
    assert "stages" not in cases[-1]
    assert calls.count(3) >= 2
    assert calls.count(1) >= 3
    assert comparison.num_steps == len(cases) + 1


def test_on_a_gpu_aot_also_runs_without_its_kernels(models, monkeypatch):
    """What a GPU's run compares, without one: the kernels are refused for the eager contender alone."""
    options = parse_options([*QUICK, "--ratios", "1.0,0.1"], "benchmarks")
    fill_in_defaults(options, CPU)
    comparison = Comparison(*models, options, contextlib.nullcontext)
    monkeypatch.setattr(comparison, "_weight", SimpleNamespace(is_cuda=True))
    contenders = comparison._contenders(num_frames=2)
    assert [comparison_module._name(each) for each in contenders] == ["stock", "AOT 100%", "AOT 10%, eager", "AOT 10%"]
    monkeypatch.setattr(fused_kernels, "can_run_kernels", lambda args: True)
    for contender in contenders:
        with contender.active():
            assert fused_kernels.can_run_kernels(()) == contender.has_kernels


def test_stages_are_those_of_aot_and_add_up(report):
    names = ["attention capture", "anchors", "intra-frame", "pooling", "inter-frame", "gather"]
    for case in compared(report):
        assert ("stages" in case) == (case["retention_ratio"] == 0.1)
    for case in (case for case in compared(report) if "stages" in case):
        stages, stock = case["stages"], of(report, frames=case["frames"], model="stock")
        assert list(stages["seconds"]) == [*names, "after projector", "together"]
        assert all(stages["seconds"][name]["median"] > 0 for name in names)
        wholes = {
            "share_of_first_token": case["first_token_seconds"],
            "share_of_prefill": case["prefill_seconds"],
            "share_of_stock_first_token": stock["first_token_seconds"],
        }
        for share, whole in wholes.items():
            for name, summary in stages["seconds"].items():
                assert stages[share][name] == pytest.approx(summary["median"] / whole["median"])
        assert case["vision_tower"]["frames"] == 2
        scale = case["frames"] / 2
        captured = [scale * seconds for seconds in case["vision_tower"]["capture"]["samples"]]
        assert stages["seconds"]["attention capture"]["samples"] == pytest.approx(captured)


def test_stages_of_more_frames_are_measured_without_the_models(report):
    case = of(report, frames=5)
    assert (case["model"], case["retention_ratio"], case["video_tokens"]) == ("AOT", 0.1, 98)
    assert "first_token_seconds" not in case
    tower, stages = case["vision_tower"], case["stages"]
    assert tower["seconds_of_all_frames"] == pytest.approx(tower["alone"]["median"] * 5 / 2)
    for name, summary in stages["seconds"].items():
        assert stages["share_of_vision_tower"][name] == pytest.approx(
            summary["median"] / tower["seconds_of_all_frames"]
        )
    assert "share_of_prefill" not in stages


def test_the_tiny_shape_is_said_to_tell_nothing_of_time(report):
    assert "take another --shape" in as_text(report).splitlines()[2]
    other = {**report, "options": {**report["options"], "shape": "0.5b"}}
    assert "--shape" not in as_text(other)


@pytest.mark.parametrize("width", [80, 100, 300])
def test_tables_are_no_wider_than_the_terminal_and_lose_nothing(report, width):
    text = as_text(report, width)
    assert max(map(len, text.splitlines())) <= width
    for title in ("first token", "of limit", "decode", "above weights", "language model", "inter-frame"):
        assert title in text
    cells = re.findall(r"[\d.]+ GiB", text)
    assert cells
    assert sorted(cells) == sorted(re.findall(r"[\d.]+ GiB", as_text(report, 1000)))
    # Each part of a table says what its rows are about.
    titles = [line for line in text.splitlines() if line.startswith("batch  frames")]
    assert len(titles) >= (3 if width == 300 else 6)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_progress_says_what_is_done_before_it_is(is_terminal, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_TICKS", 0.01)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    said = []
    with progress.Progress("importing") as bar:
        bar.count_to(2)
        for name in ("first", "second"):
            with bar.step(name):
                time.sleep(0.05)
                said.append(capsys.readouterr().err)
    assert ("[0:00] importing" in said[0]) == is_terminal
    assert "[0/2, 0:00] first" in said[0]
    assert re.search(r"\[1/2, 0:00.*\] second", said[1])
    # The clock of a terminal goes on during a step; a file gets one line a step.
    assert (said[0].count("first") > 2) == is_terminal
    assert ("\r" in said[0]) == is_terminal
    assert "[2/2, 0:00] done" in capsys.readouterr().err


def test_table_goes_to_stdout_and_the_progress_bar_to_stderr(folder):
    table = (folder / "stdout").read_text()
    assert "AOT 10%" in table
    assert "Where AOT's own time goes" in table
    assert str(folder / "results.json") in table
    bar = (folder / "stderr").read_text()
    assert "15/15" in bar  # for each number of frames 2 rounds of 3, and the stages; the stages of 5 frames


def test_plot_is_drawn(report, tmp_path):
    pytest.importorskip("matplotlib")
    files = plot.draw(report, tmp_path)
    assert [file.name for file in files] == ["speed-and-memory-batch-1.png"]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert files[0].stat().st_size > 10_000


def test_the_plot_is_drawn_again_from_the_results(folder, capsys):
    pytest.importorskip("matplotlib")
    plot.main([str(folder / "results.json")])
    (picture,) = capsys.readouterr().out.splitlines()
    assert Path(picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("content", ["no JSON", "{}", "[1]"])
def test_what_holds_no_results_is_named(content, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"holds no results: give the results\.json"):
        plot.main([str(file)])


def test_missing_matplotlib_is_named_before_anything_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"matplotlib.*pip install.*--no-plot"):
        main([*QUICK, "--output", str(tmp_path / "results")])
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--shape", "13b"], ("--shape", "13b", "tiny")),
        (["--frames", "8,0"], ("--frames", "'0'", "integer from 1")),
        (["--frames", "8,eight"], ("--frames", "'eight'")),
        (["--frames", "8,8"], ("--frames", "twice")),
        (["--ratios", "1.5"], ("--ratios", "'1.5'", "above 0 up to 1")),
        (["--ratios", "nan"], ("--ratios", "'nan'")),
        (["--ratios", ""], ("--ratios", "''")),
        (["--stage-frames", "0"], ("--stage-frames", "'0'")),
        (["--batch", "-1"], ("--batch", "-1")),
        (["--repeats", "0"], ("--repeats", "'0'")),
        (["--decode-tokens", "0"], ("--decode-tokens", "'0'")),
        (["--dtype", "int8"], ("--dtype", "int8")),
        (["--device", "abacus"], ("--device", "'abacus' is none of cpu, cuda and cuda:N")),
        (["--device", "cpu:1"], ("--device", "'cpu:1' is none of")),
        (["--device", "cuda:99", "--no-plot"], ("--device", "cuda:99")),
        (["--output", __file__], ("--output", "is a file")),
        (["--fast"], ("--fast",)),
    ],
)
def test_wrong_options_are_refused_in_one_line(arguments, parts, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refusal(arguments, capsys)
    for part in ("python -m benchmarks: ", *parts):
        assert part in line


@pytest.mark.parametrize(
    ("module", "arguments", "parts"),
    [
        ("launches", ["--frames", "0"], ("--frames", "'0' is not an integer from 1")),
        ("serving", ["--ratios", "0"], ("--ratios", "'0' is not a number above 0 up to 1")),
        ("questions", ["--questions", "0"], ("--questions", "'0' is not an integer from 1")),
        ("push_memory", ["--sizes", "0"], ("--sizes", "'0' is not an integer from 1")),
        ("push_memory", ["--folder", __file__], ("--folder", f"{__file__} is no folder")),
    ],
)
def test_the_other_programs_refuse_in_one_line_too(module, arguments, parts, capsys):
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"benchmarks.{module}").main(arguments)
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    for part in (f"python -m benchmarks.{module}: ", *parts):
        assert part in line


def test_serving_without_vllm_says_where_it_comes_from(capsys, monkeypatch):
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        serving.main([])
    assert "vLLM is not installed: make its environment with tests/serving/make_environment" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_measured(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/results cannot be made \(.*\): give another --output"):
        main([*QUICK, "--no-plot", "--output", str(tmp_path / "file" / "results")])


@pytest.mark.parametrize(
    ("name", "content"),
    [("results.json", '{"cases": "mine"}'), ("results.json", "["), ("speed-and-memory-batch-1.png", "mine")],
)
def test_files_that_are_no_results_are_not_replaced(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(OSError, match=f"{name} is no result of this program, and is not replaced"):
        main([*QUICK, "--no-plot", "--output", str(tmp_path)])
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {name: content}


def test_wrong_options_are_refused_without_importing_torch():
    refuse = "import sys; from benchmarks.options import parse_options\ntry: parse_options(['--repeats', '0'], 'it')\n"
    check = "except SystemExit as stop: sys.exit(10 * stop.code + ('torch' in sys.modules))"
    process = subprocess.run([sys.executable, "-c", refuse + check], cwd=Path(__file__).parents[2], check=False)
    assert process.returncode == 20


def test_the_command_answers_help_with_its_options():
    result = CliRunner().invoke(app, ["benchmark", "--help"], prog_name="aot-llava")
    assert result.exit_code == 0
    assert "--decode-tokens" in result.stdout
    assert "aot-llava benchmark" in result.stdout


def test_an_installation_says_where_the_benchmarks_are(monkeypatch):
    monkeypatch.setitem(sys.modules, "benchmarks.__main__", None)
    result = CliRunner().invoke(app, ["benchmark"], prog_name="aot-llava")
    assert_one_line(result, 1, "not part of an installation", "run `python -m benchmarks` in a checkout")


def test_a_gpu_measures_everything_by_default():
    options = parse_options(["--shape", "7b", "--repeats", "2"], "benchmarks")
    fill_in_defaults(options, torch.device("cuda"))
    assert options.frames == (8, 16, 32, 64, 128)
    assert options.ratios == (1.0, 0.25, 0.2, 0.15, 0.1)
    assert options.batch == (1, 8)
    assert (options.dtype, options.repeats) == ("bfloat16", 2)


def test_llava_video_is_compared_with_itself_uncompressed():
    """No class of transformers is LLaVA-Video; its shape is the 7B's with other fields."""
    assert SHAPES["llava-video-7b"].text == SHAPES["7b"].text
    shape = replace(SHAPES["tiny"], video_path=SHAPES["llava-video-7b"].video_path)
    stock, aot = build_models(shape, torch.float32, CPU)
    assert (stock.config.retention_ratio, aot.config.retention_ratio) == (1.0, 0.1)
    videos = random_videos(aot.config, 1, 2, like=aot.model.image_newline)
    full, tenth = make_prompt(aot.config, 338, videos), make_prompt(aot.config, 34, videos)
    assert int((full["input_ids"] == aot.config.video_token_index).sum()) == 338 + 26
    with torch.inference_mode():
        assert stock(**full).logits.shape[1] == 338 + 26 + 30
        assert aot(**tenth).logits.shape[1] == 34 + 26 + 30
        aot.config.retention_ratio = 1.0
        assert torch.equal(stock(**full).logits, aot(**full).logits)


def test_both_models_share_their_weights_and_agree(models):
    stock, aot = models
    assert {tensor.data_ptr() for tensor in stock.parameters()} == {tensor.data_ptr() for tensor in aot.parameters()}
    assert not any(tensor.is_meta for tensor in [*stock.parameters(), *stock.buffers()])
    aot.config.retention_ratio = 1.0
    prompt = make_prompt(aot.config, 392, random_videos(aot.config, 2, 2, like=aot.model.image_newline))
    with torch.inference_mode():
        logits = stock(**prompt).logits
        assert logits.isfinite().all()
        assert logits.std() > 0
        assert torch.equal(logits, aot(**prompt).logits)


def test_what_does_not_fit_into_memory_is_reported_and_the_rest_goes_on(models, monkeypatch):
    measure = comparison_module.measure_first_token

    def fail_for_stock(model, prompt):
        if model is models[0] and prompt["pixel_values_videos"].shape[1] > 1:
            raise torch.OutOfMemoryError
        return measure(model, prompt)

    monkeypatch.setattr(comparison_module, "measure_first_token", fail_for_stock)
    options = parse_options([*QUICK, "--batch", "2", "--ratios", "0.1"], "benchmarks")
    fill_in_defaults(options, CPU)
    (cases,) = Comparison(*models, options, contextlib.nullcontext).run()
    assert [case["out_of_memory"] for case in cases] == [True, False]
    assert [case["batch"] for case in cases] == [2, 2]
    assert "first_token_seconds" not in cases[0]
    assert "speedup_over_stock" not in cases[1]
    assert cases[1]["first_token_seconds"]["median"] > 0
    assert "share_of_stock_first_token" not in cases[1]["stages"]


def test_a_model_that_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(shapes.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**20))
    with pytest.raises(MemoryError, match=r"weights take 0.0 GiB, but cpu has 0.0 GiB.*--shape"):
        build_models(SHAPES["tiny"], torch.float32, CPU)


def test_results_of_an_interrupted_run_are_kept(monkeypatch, tmp_path):
    def stop(self, num_frames):
        raise KeyboardInterrupt

    monkeypatch.setattr(Comparison, "_measure_stages_alone", stop)
    with pytest.raises(KeyboardInterrupt):
        main([*QUICK, "--stage-frames", "5", "--no-plot", "--output", str(tmp_path)])
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]
    cases = json.loads((tmp_path / "results.json").read_text())["cases"]
    assert [case["retention_ratio"] for case in cases] == [None, 1.0, 0.1]


def test_peak_memory_sees_what_is_freed_again():
    with PeakMemory(CPU) as memory:
        block = torch.ones(256 * 2**20, dtype=torch.uint8)
        for _ in range(20):
            block.add_(1)
        del block
    assert memory.peak - memory.before > 200 * 2**20


def test_repeated_frames_differ_a_little():
    inputs = CompressionInputs(torch.randn(2, 9, 4), torch.rand(2, 9), torch.rand(2, 9))
    assert inputs.with_frames(2) is inputs
    features = inputs.with_frames(5).features
    assert features.shape == (5, 9, 4)
    similarity = torch.nn.functional.cosine_similarity(features[0].flatten(), features[2].flatten(), dim=0)
    assert 0.9 < similarity < 1
