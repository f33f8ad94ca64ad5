"""Bases to publish and a Hub to publish them on."""

import shutil

import pytest
import torch
from hub_pushes import CARD, leave_out_loading, new_hub
from random_checkpoint import random_model, random_processor
from safetensors.torch import save_file
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory):
    """A stock checkpoint in shards, with the patch grid of the real one, which the variants are made for."""
    folder = tmp_path_factory.mktemp("base")
    model = random_model(LlavaOnevisionForConditionalGeneration)
    model.save_pretrained(folder, max_shard_size="600KB")
    random_processor(LlavaOnevisionProcessor, model.config).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture(scope="session")
def small_base(base_folder, tmp_path_factory):
    """A base with few files, so that a push has few requests; its weights are nobody's and do not load."""
    folder = tmp_path_factory.mktemp("small")
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        shutil.copy(base_folder / name, folder)
    save_file({"weights": torch.arange(1250.0)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def server(base_folder, tmp_path):
    with new_hub(base_folder, tmp_path / "cache") as server:
        yield server


@pytest.fixture
def small_server(small_base, tmp_path):
    """A Hub that has the small base under the base's name."""
    with new_hub(small_base, tmp_path / "cache") as server:
        yield server


@pytest.fixture
def no_loading(monkeypatch):
    """Leaves out the fresh process that imports torch, where it is not what is tested; returns what it was asked."""
    return leave_out_loading(monkeypatch)


@pytest.fixture
def copy_of(tmp_path):
    """Copies a base to change it: `copy_of(small_base)`."""

    def copy(folder):
        return shutil.copytree(folder, tmp_path / "copy")

    return copy
