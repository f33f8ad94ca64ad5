"""`python -m benchmarks.on_a_gpu` on a CPU: every section runs, so that it does on the day with a card."""

import json
from functools import partial

import pytest
import torch

from benchmarks.on_a_gpu import kernels, run
from benchmarks.on_a_gpu.__main__ import main


def test_every_section_runs_on_a_cpu(tmp_path, capsys, monkeypatch):
    # The same graph, without half a minute of a C++ compiler's.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    assert main(["--repeats", "1", "--minutes", "60", "--device", "cpu", "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "on-a-gpu.json").read_text())
    assert list(report["sections"]) == ["kernels", "eager", "compiled", "CUDA graphs", "reading", "serving"]
    assert {"date", "machine", "versions"} <= set(report)
    sections = report["sections"]
    assert sections["eager"]["launches"]["waits"] == 0
    assert {case["model"] for case in sections["eager"]["cases"]} == {"stock", "AOT"}
    assert sections["compiled"]["largest_difference"] < 1e-5
    assert {row["kernel"] for row in sections["kernels"]["rows"]} == {"sinkhorn", "attention_received"}
    printed = capsys.readouterr().out
    assert all(section["says"] in printed for section in sections.values())


def test_a_section_that_fails_leaves_the_others(tmp_path, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(run, "compare_kernels", fail)
    for name in ("compare", "compile_tower", "replay_graphs"):
        monkeypatch.setattr(run.Models, name, lambda self: {"says": "left out"})
    assert main(["--repeats", "1", "--device", "cpu", "--output", str(tmp_path)]) == 1
    sections = json.loads((tmp_path / "on-a-gpu.json").read_text())["sections"]
    assert sections["kernels"]["error"] == "RuntimeError: no such kernel"
    assert "error" not in sections["reading"]


def test_a_kernel_that_is_wrong_is_an_error(monkeypatch):
    def wrong_once(queries, keys, scale):
        wrong_once.calls += 1
        return torch.ones(1, 1) * wrong_once.calls

    wrong_once.calls = 0
    monkeypatch.setattr(kernels, "attention_received", wrong_once)
    section = kernels.compare_kernels(torch.device("cpu"), repeats=1, is_small=True)
    assert section["error"].startswith("wrong: ")


def test_no_section_begins_once_the_time_is_over(tmp_path, monkeypatch):
    times = iter([0.0, 61.0, *range(62, 80)])
    monkeypatch.setattr(run.time, "monotonic", lambda: next(times))
    assert main(["--minutes", "1", "--device", "cpu", "--output", str(tmp_path)]) == 6
    sections = json.loads((tmp_path / "on-a-gpu.json").read_text())["sections"]
    assert {section["error"] for section in sections.values()} == {"no time left"}


def test_a_wrong_device_ends_with_2(capsys):
    if torch.cuda.is_available():
        pytest.skip("this device may be there")
    assert main(["--device", "cuda:7"]) == 2
    assert "cuda:7" in capsys.readouterr().err
