"""The weights against the model that the config describes, in a process that has a time limit."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hub_pushes import TEN
from huggingface_hub import HfApi
from llava_next_checkpoint import original_name

from aot_llava_cli.mini import MINI_CHECKPOINT
from hub_upload import operating_point
from hub_upload.base import read_base
from hub_upload.errors import PushError
from hub_upload.hub import Hub
from hub_upload.operating_point import Checkpoint, load_without_weights
from hub_upload.repository import description_files
from hub_upload.safetensors_header import Tensor
from hub_upload.variants import bundled_variants, read_variant

NORM = "vision_tower.post_layernorm.weight"


def renamed(weights, old, new):
    return {new if name == old else name: tensor for name, tensor in weights.items()}


def changed(weights, name, **fields):
    return {**weights, name: replace(weights[name], **fields)}


def newest_names(weights):
    """The layout that transformers saves today."""
    names = (("language_model.lm_head", "lm_head"), ("language_model.model", "model.language_model"))
    return {
        next((new + name.removeprefix(old) for old, new in names if name.startswith(old)), f"model.{name}"): tensor
        for name, tensor in weights.items()
    }


HEAD, EMBEDDING = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
CASES = {
    "the older layout": (lambda weights: weights, None),
    "the newer layout": (newest_names, None),
    "LLaVA-NeXT's layout": (
        lambda weights: {original_name(name): tensor for name, tensor in newest_names(weights).items()},
        None,
    ),
    "a constant of older releases": (
        lambda weights: {**weights, "vision_tower.embeddings.position_ids": Tensor("I64", (1, 729))},
        None,
    ),
    "half precision": (lambda weights: {name: Tensor("BF16", tensor.shape) for name, tensor in weights.items()}, None),
    "a missing name": (
        lambda weights: {name: weights[name] for name in weights if name != HEAD},
        "the weights lack lm_head.weight, which the model needs",
    ),
    "a missing layer": (
        lambda weights: {name: weights[name] for name in weights if ".layers.5." not in name},
        "the weights lack model.",
    ),
    "no vision tower": (
        lambda weights: {name: weights[name] for name in weights if "vision_tower" not in name},
        "the weights lack model.vision_tower.",
    ),
    "nothing of it": (lambda weights: {"weight": Tensor("F32", (1,))}, "layers, and there are 1 weights"),
    "an unexpected name": (
        lambda weights: {**weights, "vision_tower.extra.weight": Tensor("F32", (1,))},
        "have vision_tower.extra.weight, which the model has no place for",
    ),
    "a misspelt name": (lambda weights: renamed(weights, HEAD, "lm_heat.weight"), "lm_heat.weight, which the model"),
    "another shape": (
        lambda weights: changed(weights, HEAD, shape=(467, 127)),
        f"have {HEAD} of shape [467, 127], but the config asks for [467, 128]",
    ),
    "a transposed shape": (lambda weights: changed(weights, HEAD, shape=(128, 467)), "of shape [128, 467]"),
    "integers": (lambda weights: changed(weights, NORM, dtype="I16"), f"{NORM} of type I16, but it must be one of"),
    "two names that become one": (
        lambda weights: {**weights, "model.language_model.embed_tokens.weight": weights[EMBEDDING]},
        "which are one in the model",
    ),
}


@pytest.fixture(scope="module")
def base():
    return read_base(str(MINI_CHECKPOINT), None, Hub(HfApi(token=False), print))


@pytest.fixture(scope="module")
def write_variant(base, tmp_path_factory):
    """Writes configs and code of a variant: `write_variant("name", text_config={...})`; returns a checkpoint."""

    def write(name, weights=None, num_frames=8, **changes):
        folder = tmp_path_factory.mktemp("variant")
        for file in description_files(base, read_variant(bundled_variants()[TEN])):
            file.place_in(folder)
        config = json.loads((folder / "config.json").read_text())
        for field, value in changes.items():
            config[field] = {**config[field], **value} if isinstance(value, dict) else value
        (folder / "config.json").write_text(json.dumps(config))
        return Checkpoint(name, str(folder), num_frames, weights=weights)

    return write


@pytest.fixture(scope="module")
def answers(base, write_variant):
    """What one process says about each case."""
    checkpoints = [write_variant(name, change(base.tensors)) for name, (change, _) in CASES.items()]
    tied = {name: tensor for name, tensor in base.tensors.items() if name != HEAD}
    checkpoints.append(
        write_variant("tied", tied, tie_word_embeddings=True, text_config={"tie_word_embeddings": True})
    )
    checkpoints.append(
        write_variant("endless layers", base.tensors, text_config={"num_hidden_layers": 9000, "layer_types": None})
    )
    told = operating_point._ask_fresh_process(checkpoints, HfApi(token=False))
    return {checkpoint.name: answer.get("error") for checkpoint, answer in zip(checkpoints, told)}


@pytest.mark.parametrize(("name", "reason"), [(name, reason) for name, (_, reason) in CASES.items()])
def test_weights_are_held_against_the_config(name, reason, answers):
    if reason is None:
        assert answers[name] is None
    else:
        assert reason in answers[name]


def test_tied_weights_need_not_be_there_twice(answers):
    assert answers["tied"] is None


def test_a_config_that_promises_too_much_is_not_built(answers):
    assert "the config has 9,000 layers" in answers["endless layers"]


SLEEPER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open("FILE", "w") as file:
    file.write(str(child.pid))
time.sleep(600)
"""


def test_a_process_that_does_not_answer_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    program = tmp_path / "program.py"
    program.write_text(SLEEPER.replace("FILE", str(tmp_path / "pid")))
    monkeypatch.setattr(operating_point, "_PROGRAM", program)
    monkeypatch.setattr(operating_point, "SECONDS_TO_START", 2)
    monkeypatch.setattr(operating_point, "SECONDS_A_CHECKPOINT", 0)
    with pytest.raises(PushError, match="variant x: the fresh process ended with no answer within 2 seconds"):
        load_without_weights([Checkpoint("variant x", "nowhere", 8)], HfApi(token=False))
    assert_ended(int((tmp_path / "pid").read_text()))


def assert_ended(pid):
    for _ in range(50):
        status = Path(f"/proc/{pid}/status")
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.1)
    raise AssertionError("the grandchild goes on")


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="processes are looked up in /proc")
def test_control_c_ends_the_process_too(tmp_path, monkeypatch):
    program = tmp_path / "program.py"
    program.write_text(SLEEPER.replace("FILE", str(tmp_path / "pid")))
    monkeypatch.setattr(operating_point, "_PROGRAM", program)

    def interrupted(process, *_, **__):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr("subprocess.Popen.communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_without_weights([Checkpoint("variant x", "nowhere", 8)], HfApi(token=False))
    assert_ended(int((tmp_path / "pid").read_text()))
