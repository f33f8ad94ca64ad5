"""Publishing from an original LLaVA-Video checkpoint: its weights as they are, everything else made for it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tracemalloc

import huggingface_hub
import pytest
import torch
from hub_server import HubServer, environment, use_in_this_process
from llava_next_checkpoint import SMALL_TEXT, SMALL_TOWER, save_original
from random_checkpoint import random_config
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration
from typer.testing import CliRunner

from aot_llava_cli.__main__ import app
from hub_upload.conversion import rename_keys
from hub_upload.errors import PushError
from hub_upload.files import CHUNK
from hub_upload.publisher import can_copy_between_repositories
from hub_upload.variants import read_variants
from modeling_aot_llava import AOTLlavaOnevisionConfig, AOTLlavaOnevisionForConditionalGeneration
from modeling_aot_llava.token_budget import plan_token_budget

BASE = "lmms-lab/LLaVA-Video-7B-Qwen2"
VARIANT = "llava-video-7b-10-uniform"
ANSWER = """
import json, sys
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
folder, tower = sys.argv[1], json.loads(sys.argv[2])
model, info = AutoModelForImageTextToText.from_pretrained(
    folder, trust_remote_code=True, vision_config=tower, dtype=torch.float32, output_loading_info=True
)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
conversation = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What?"}]}]
text = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
video = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
inputs = processor(text=text, videos=[video], add_time_instruction=False, return_tensors="pt")
answer = model.generate(**inputs, max_new_tokens=2, min_new_tokens=2, do_sample=False)
print(json.dumps({
    "problems": sorted(key for keys in info.values() for key in keys),
    "weights": {name: float(value.double().sum()) for name, value in model.state_dict().items()},
    "placeholders": int((inputs["input_ids"] == 151647).sum()),
    "text": text,
    "new": answer.shape[1] - inputs["input_ids"].shape[1],
    "num_frames": processor.num_frames,
    "times": processor.add_time_instruction,
}))
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    save_original(folder, **SMALL_TEXT)
    config = AOTLlavaOnevisionConfig.from_pretrained(folder, vision_config=SMALL_TOWER)
    model = AOTLlavaOnevisionForConditionalGeneration(config)
    save_original(folder, model, **SMALL_TEXT)
    return folder, model


@pytest.fixture(scope="module")
def push_of_published(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "variant"
    result = push("--base", original[0], "--variant", VARIANT, "--output", folder)
    assert result.exit_code == 0, result.output
    return folder, result


@pytest.fixture(scope="module")
def published(push_of_published):
    return push_of_published[0]


def push(*arguments):
    return CliRunner().invoke(app, ["push", *map(str, arguments)])


def answer_in_a_fresh_process(location, variables, folder):
    process = subprocess.run(
        [sys.executable, "-c", ANSWER, location, json.dumps(SMALL_TOWER)],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=variables,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("model*safetensors*")}


def test_weights_and_index_are_the_originals(original, published):
    assert len(hashes(published)) == 4
    assert hashes(published) == hashes(original[0])


def test_the_configs_are_made_from_the_flat_one(published):
    config = json.loads((published / "config.json").read_text())
    assert config["model_type"] == "aot_llava_onevision"
    assert (config["mm_spatial_pool_mode"], config["mm_newline_position"]) == ("average", "grid")
    assert config["retention_ratio"] == 0.1
    assert "num_anchors" not in config  # that of each call's ratio
    assert config["text_config"]["hidden_size"] == 16
    assert config["vision_config"]["num_hidden_layers"] == 26
    processor = json.loads((published / "processor_config.json").read_text())
    assert (processor["mm_spatial_pool_mode"], processor["mm_newline_position"]) == ("average", "grid")
    assert (processor["num_frames"], processor["num_image_tokens"]) == (64, 729)
    assert "preprocessor_config.json" not in {path.name for path in published.iterdir()}


def test_the_card_tells_the_newline_tokens(published):
    """One after each of the 13 rows of 64 frames; AOT leaves them all."""
    card = (published / "README.md").read_text(encoding="utf-8")
    assert "| video tokens in the prompt | 10,816 | 1,082 |\n| newline tokens beside them | 832 | 832 |\n" in card


def test_it_answers_in_a_fresh_process(original, published):
    answer = answer_in_a_fresh_process(str(published), None, published)
    assert answer["problems"] == []
    expected = {name: float(value.double().sum()) for name, value in original[1].state_dict().items()}
    assert answer["weights"] == pytest.approx(expected)
    assert answer["placeholders"] == round(0.1 * 4 * 169) + 4 * 13
    assert answer["text"].startswith(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<video>\n"
    )
    assert (answer["new"], answer["num_frames"], answer["times"]) == (2, 64, True)


def test_what_is_not_supported_is_refused(tmp_path, original):
    save_original(tmp_path / "fast", original[1], **SMALL_TEXT, add_faster_video=True)
    result = push("--base", tmp_path / "fast", "--variant", VARIANT, "--output", tmp_path / "out")
    assert result.exit_code != 0
    assert "`add_faster_video` is True, which is not supported" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("clips", ["uniform", "dynamic"])
@pytest.mark.parametrize(("percent", "anchors"), [(10, 108), (15, 144), (20, 176), (25, 198)])
def test_the_papers_operating_points_are_there(percent, anchors, clips):
    (variant,) = read_variants([f"llava-video-7b-{percent}-{clips}"], None)
    assert (variant.base_model, variant.num_frames) == ("lmms-lab/LLaVA-Video-7B-Qwen2", 64)
    config = AOTLlavaOnevisionConfig(**variant.fields)
    assert (config.num_anchors, config.clip_segmentation, config.pooled_grid_size) == (None, clips, 13)
    assert plan_token_budget(config, 64).patch_anchors == anchors


@pytest.mark.skipif(not can_copy_between_repositories(), reason="this huggingface_hub copies within a repository only")
def test_the_hub_copies_the_weights_and_a_fresh_process_loads_them(original, tmp_path):
    """The push itself loads config and code in a fresh process; here another one answers."""
    with HubServer() as server, pytest.MonkeyPatch.context() as monkeypatch:
        use_in_this_process(server, monkeypatch)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        server.add_repo(BASE, {path.name: path for path in original[0].iterdir()})
        result = push("--variant", VARIANT, "--repo-id", "me/video", "--token", server.token("me"))
        assert result.exit_code == 0, result.output
        assert "the Hub copies the weights itself" in result.output
        assert server.large_bytes_uploaded() == 0
        assert server.bytes_downloaded("*.safetensors") < 3 * 16_384, "their headers alone"
        answer = answer_in_a_fresh_process(
            "me/video", {**os.environ, **environment(server, tmp_path / "user")}, tmp_path
        )
    assert (answer["problems"], answer["new"]) == ([], 2)


# --convert


@pytest.fixture(scope="module")
def converted(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "converted"
    result = push("--base", original[0], "--variant", VARIANT, "--output", folder, "--convert")
    assert result.exit_code == 0, result.output
    return folder


def test_converted_weights_have_the_models_names(original, converted):
    expected = original[1].state_dict()
    weights = {}
    for shard in sorted(converted.glob("*.safetensors")):
        part = load_file(shard)
        index = json.loads((converted / "model.safetensors.index.json").read_text())
        assert {name for name, file in index["weight_map"].items() if file == shard.name} == set(part)
        weights |= part
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_the_stock_class_loads_what_was_converted(original, converted):
    model, info = LlavaOnevisionForConditionalGeneration.from_pretrained(
        converted, vision_config=SMALL_TOWER, dtype=torch.float32, output_loading_info=True
    )
    assert [key for keys in info.values() for key in keys] == []
    assert all(torch.equal(value, original[1].state_dict()[name]) for name, value in model.state_dict().items())


def test_converting_keeps_the_original_and_takes_little_memory(original, tmp_path):
    source, target = tmp_path / "large.safetensors", tmp_path / "renamed.safetensors"
    save_file({"model.norm.weight": torch.arange(16_000_000)}, source, metadata={"format": "pt"})
    before = hashlib.sha256(source.read_bytes()).hexdigest()
    tracemalloc.start()
    rename_keys(source, target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * CHUNK < source.stat().st_size
    assert hashlib.sha256(source.read_bytes()).hexdigest() == before
    assert torch.equal(load_file(target)["model.language_model.norm.weight"], torch.arange(16_000_000))
    with safe_open(target, "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize(
    "name", ["model.vision_resampler.weight", "model.vision_tower.vision_tower.vision_model.head.probe"]
)
def test_weights_of_another_model_are_refused(tmp_path, name):
    save_file({name: torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(PushError, match=f"has weights called {name}"):
        rename_keys(tmp_path / "a.safetensors", tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    "content", [b"", b"1234567", (1 << 40).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"[{"]
)
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(PushError, match="download it again"):
        rename_keys(tmp_path / "a.safetensors", tmp_path / "b.safetensors")


def test_convert_needs_an_original_and_an_output(original, tmp_path):
    result = push("--base", original[0], "--variant", VARIANT, "--repo-id", "me/it", "--convert", "--dry-run")
    assert result.exit_code != 0
    assert "needs --output" in " ".join(result.output.split())
    random_config(LlavaOnevisionConfig).save_pretrained(tmp_path / "stock")
    save_file({"lm_head.weight": torch.ones(1)}, tmp_path / "stock" / "model.safetensors")
    result = push("--base", tmp_path / "stock", "--variant", VARIANT, "--output", tmp_path / "out", "--convert")
    assert result.exit_code != 0
    assert "is for original LLaVA-Video checkpoints" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


@pytest.fixture
def damaged(original, tmp_path):
    """A copy of the original, whose first shard a function changes in place: tensors or bytes."""

    def damage(change):
        base = shutil.copytree(original[0], tmp_path / "base")
        shard = base / "model-00001-of-00003.safetensors"
        change(shard)
        names = {
            name: file.name for file in base.glob("*.safetensors") if change is not cut for name in names_in(file)
        }
        if names:
            (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
        return base

    return damage


def names_in(file):
    with safe_open(file, "pt") as opened:
        return list(opened.keys())


def cut(shard):
    shard.write_bytes(shard.read_bytes()[:-4])


def repeat(shard):
    save_file({**load_file(shard), "model.multi_modal_projector.linear_1.bias": torch.ones(16)}, shard)


def lose(shard):
    weights = load_file(shard)
    del weights[min(weights)]
    save_file(weights, shard)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (cut, "model-00001-of-00003.safetensors of {base} is cut short"),
        (repeat, "which are the same weights under transformers' names"),
        (lose, "the weights lack "),
    ],
)
def test_nothing_is_converted_that_would_not_load(change, reason, damaged, tmp_path):
    base = damaged(change)
    result = push("--base", base, "--variant", VARIANT, "--output", tmp_path / "out", "--convert")
    assert result.exit_code == 1
    assert reason.format(base=base) in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_a_tower_of_other_sizes_is_pointed_out(push_of_published):
    _, result = push_of_published
    assert "num_hidden_layers 7 in place of 26, hidden_size 16 in place of 1152" in " ".join(result.stderr.split())
