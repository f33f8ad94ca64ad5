"""Checkpoints of the Qwen-VL family: stock ones load whole, and what is saved here loads where this project is not."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from qwen_vl_hosts import config_of, inputs_of, video_of
from safetensors.torch import load_file, save_file

import modeling_aot_llava
from modeling_aot_llava.aot_fields import aot_fields_of

PACKAGE = Path(modeling_aot_llava.__file__).parent
VIDEO = [video_of(6, 2, 3, seed=1)]


@pytest.fixture(scope="module")
def stock_folder(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock")
    pair.stock.save_pretrained(folder)
    pair.stock_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def own_folder(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    pair.ours.save_pretrained(folder)
    pair.processor.save_pretrained(folder)
    return folder


def load_whole(model_class, folder, **options):
    """Nothing is missing, too much or of another shape."""
    model, info = model_class.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(info.values()), info
    return model


def same_weights(model, other):
    states = model.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


def publish(pair, folder):
    """The stock model as its makers publish it, which is not what this transformers writes."""
    pair.stock.save_pretrained(folder, save_original_format=True)
    weights = load_file(folder / "model.safetensors")
    if pair.host.has_span_a_frame:  # experts lie transposed
        weights = {name: value.mT.contiguous() if ".experts." in name else value for name, value in weights.items()}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    else:  # other names, and the text's fields lie flat
        assert any(name.startswith("visual.") for name in weights)
        config = json.loads((folder / "config.json").read_text())
        text = config.pop("text_config")
        rope = text.pop("rope_parameters")
        text |= {"rope_theta": rope["rope_theta"]}
        text |= {"rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}}
        (folder / "config.json").write_text(json.dumps({**text, **config}))


@pytest.mark.parametrize("is_published", [True, False])
def test_a_stock_checkpoint_loads_whole(pair, tmp_path, is_published):
    """Once the language model of one with Qwen2.5-VL's published names stayed random, and only a warning told it."""
    if is_published:
        publish(pair, tmp_path)
    else:
        pair.stock.save_pretrained(tmp_path, save_original_format=False)
    model = load_whole(type(pair.ours), tmp_path, **pair.host.aot)
    assert same_weights(model, pair.stock)
    assert isinstance(model.config, type(pair.ours.config))
    assert model.config.retention_ratio == 0.1
    configs = [type(pair.ours.config).from_pretrained(tmp_path, **pair.host.aot)]
    configs.append(type(pair.stock.config).from_pretrained(tmp_path))
    for part in ("text_config", "vision_config"):
        ours, theirs = (getattr(config, part).to_dict() for config in configs)
        assert ours == theirs
    if is_published:  # of another form not all stock classes without a head take their weights either
        inner, info = type(pair.ours.model).from_pretrained(tmp_path, output_loading_info=True, **pair.host.aot)
        assert same_weights(inner, pair.stock.model)
        assert not info["missing_keys"] | info["mismatched_keys"]


def test_a_checkpoint_with_one_matrix_for_words_in_and_out_loads_whole(pair, tmp_path):
    """Small ones are like that."""
    stock = type(pair.stock)(config_of(pair.host, is_ours=False, tie_word_embeddings=True))
    stock.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    model = load_whole(type(pair.ours), tmp_path, **pair.host.aot)
    assert same_weights(model, stock)
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_a_setting_of_from_pretrained_reaches_the_config_alone(pair, stock_folder):
    model = type(pair.ours).from_pretrained(stock_folder, retention_ratio=0.5, num_clips=3, **pair.host.aot)
    assert (model.config.retention_ratio, model.config.num_clips) == (0.5, 3)
    assert not hasattr(model.generation_config, "retention_ratio")
    with pytest.raises(ValueError, match="`retention_ratio` is -1"):
        type(pair.ours).from_pretrained(stock_folder, retention_ratio=-1, **pair.host.aot)
    processor = type(pair.processor).from_pretrained(stock_folder, retention_ratio=0.5)
    assert processor.retention_ratio == 0.5
    inputs = inputs_of(processor, VIDEO)
    assert int((inputs["input_ids"] == model.config.video_token_id).sum()) == 9  # of 3 frames with 6 tokens
    with pytest.raises(TypeError, match="did you mean `retention_ratio`"):
        type(pair.processor).from_pretrained(stock_folder, retention_rate=0.5)


def test_the_auto_classes_know_what_was_saved_and_so_does_the_stock_class(pair, own_folder):
    model = load_whole(transformers.AutoModelForImageTextToText, own_folder)
    assert type(model) is type(pair.ours)
    assert same_weights(model, pair.ours)
    names = aot_fields_of(type(model.config))
    assert all(getattr(model.config, name) == getattr(pair.ours.config, name) for name in names)
    processor = transformers.AutoProcessor.from_pretrained(own_folder)
    assert type(processor) is type(pair.processor)
    assert processor.retention_ratio == 0.25
    assert "retention_ratio" not in json.loads((own_folder / "tokenizer_config.json").read_text())
    assert same_weights(load_whole(type(pair.stock), own_folder), pair.stock)
    assert same_weights(transformers.AutoModel.from_pretrained(own_folder), pair.stock.model)


def test_the_pixel_cap_is_pinned(pair, own_folder):
    assert pair.stock_processor.video_processor.cap_pixels_per_frame is None
    assert pair.processor.video_processor.cap_pixels_per_frame is False
    config = json.loads((own_folder / "processor_config.json").read_text())
    assert config["video_processor"]["cap_pixels_per_frame"] is False


def closure_of(entries):
    """All that the entry files import of the package, themselves included."""
    needed, unread = set(), set(entries)
    while unread:
        name = unread.pop()
        needed.add(name)
        imports = (
            node for node in ast.walk(ast.parse((PACKAGE / name).read_text())) if isinstance(node, ast.ImportFrom)
        )
        unread |= {f"{node.module}.py" for node in imports if node.level == 1} - needed
    return needed


FRESH_PROCESS = """
import sys
from importlib.abc import MetaPathFinder

class NoProject(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_aot_llava", "aot_llava_cli"):
            raise ImportError(f"{name} is hidden")

sys.meta_path.insert(0, NoProject())
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

folder, given, answer = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
inputs, call = torch.load(given, weights_only=False)
made = processor(**call)
assert type(model).__module__.startswith("transformers_modules")
assert type(processor).__module__.startswith("transformers_modules")
model.save_pretrained(answer + "-again")
encoded = model.encode_video(**processor(**call, return_metadata=True))
encoded.save(answer + ".aot.safetensors")
later = [processor(**{**call, "videos": [video]}) for video in (encoded, answer + ".aot.safetensors")]
torch.save((made["input_ids"], [model.generate(**each, max_new_tokens=6) for each in (inputs, *later)]), answer)
"""


def test_a_folder_loads_in_an_environment_without_the_project_and_holds_no_file_too_many(pair, own_folder, tmp_path):
    stem = pair.ours.config.model_type
    processing = "processing_aot_qwen_vl.py"
    entries = {"configuration_aot_qwen_vl.py", f"modeling_{stem}.py", processing}
    held = {path.name for path in own_folder.glob("*.py")}
    assert held == closure_of(entries)
    assert not any("llava" in name for name in held)
    metadata = [{"fps": 2.0, "total_num_frames": 6, "frames_indices": list(range(6))}]
    text = "<|vision_start|><|video_pad|><|vision_end|>What?"
    call = {"text": [text], "videos": VIDEO, "video_metadata": metadata, "return_tensors": "pt"}
    inputs = inputs_of(pair.processor, VIDEO, text)
    torch.save((dict(inputs), call), tmp_path / "given")
    ran = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, str(own_folder), str(tmp_path / "given"), str(tmp_path / "answer")],
        env=os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    ids, outputs = torch.load(tmp_path / "answer", weights_only=False)
    assert torch.equal(ids, inputs["input_ids"])
    of_file = pair.processor(text=[text], videos=[tmp_path / "answer.aot.safetensors"], return_tensors="pt")
    outputs.append(pair.ours.generate(**of_file, max_new_tokens=6))
    assert all(torch.equal(output, pair.ours.generate(**inputs, max_new_tokens=6)) for output in outputs)
    assert {path.name for path in (tmp_path / "answer-again").glob("*.py")} >= closure_of(entries - {processing})
