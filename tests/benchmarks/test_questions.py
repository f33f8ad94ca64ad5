"""The benchmark of several questions about one video."""

import pytest
import torch
from random_checkpoint import save_random_checkpoint

from aot_llava_cli import answer
from benchmarks import questions


def test_a_row_for_each_number_of_questions(tmp_path, capsys, monkeypatch):
    save_random_checkpoint(tmp_path, vision_config={"image_size": 56, "patch_size": 8}, local_window_size=3)
    encodings, encode = [], answer.encode
    monkeypatch.setattr(answer, "encode", lambda *args, **more: encodings.append(1) or encode(*args, **more))
    options = ["--model", str(tmp_path), "--num-frames", "2", "--max-new-tokens", "1", "--repeats", "1"]
    questions.main([*options, "--questions", "1,2", "--device", "cpu"])
    rows = capsys.readouterr().out.splitlines()
    assert [row.split("|")[1].strip() for row in rows] == ["questions", "---", "1", "2"]
    for row in rows[2:]:
        each, once, ratio = (float("".join(c for c in cell if c in "0123456789.")) for cell in row.split("|")[2:5])
        assert min(each, once) > 0
        assert ratio == pytest.approx(once / each, abs=0.02 + 0.02 * ratio)
    assert len(encodings) == 2

    monkeypatch.setattr(questions._Asking, "ask_once_encoded", lambda _self, number: [torch.zeros(1)] * number)
    with pytest.raises(RuntimeError, match="answers otherwise"):
        questions.main([*options, "--questions", "1", "--device", "cpu"])
