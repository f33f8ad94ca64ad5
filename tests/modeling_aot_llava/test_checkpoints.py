"""Real checkpoints: whatever the age of their key names, all weights arrive, and none is made up.

transformers converts old key names for its own classes alone, unless it is told to do so for others; what it does not
convert, it initialises anew and goes on. So each layout is held against the stock class: the same weights, no key
missing or left over, and nothing logged.
"""

import json
import logging
import shutil

import pytest
import torch
import transformers
from older_names import PRE_5_NAMES
from random_checkpoint import random_model, save_random_checkpoint
from safetensors.torch import load_file, save_file
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionModel,
    LlavaOnevisionProcessor,
)

from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionModel
from modeling_aot_llava.configuration_aot_llava import AOT_FIELDS

SMALL = {"vision_config": {"image_size": 56, "patch_size": 8}}
# The default window of 9 does not fit a grid of 7 x 7.
FITTING = {"local_window_size": 3}

# The same in later files.
V5_NAMES = {"": ""}
V5_NAMES_OF_4_52 = {"model.vision_tower.": "model.vision_tower.vision_model.", "": ""}

# What the config files of 2024 say besides.
CONFIG_OF_4_45 = {
    "ignore_index": -100,
    "use_image_newline_parameter": True,
    "torch_dtype": "float32",
    "transformers_version": "4.45.0.dev0",
}

LAYOUTS = ("saved by stock", "pre-5", "model.* of 4.52", "model.* of 5")


def renamed(key, names):
    old, new = next((old, new) for old, new in names.items() if key.startswith(old))
    return new + key.removeprefix(old)


def save_with_names(folder, stock_folder, model, names, config_fields):
    """Copies a stock checkpoint, its weights under other names."""
    shutil.copytree(stock_folder, folder)
    weights = {renamed(key, names): value.clone() for key, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    if config_fields:
        config.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(config | config_fields))
    return folder


@pytest.fixture(scope="module")
def stock_model():
    return random_model(LlavaOnevisionForConditionalGeneration, **SMALL)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, stock_model):
    """The same stock checkpoint in every layout."""
    root = tmp_path_factory.mktemp("checkpoints")
    stock = root / "stock"
    save_random_checkpoint(
        stock,
        model_class=LlavaOnevisionForConditionalGeneration,
        processor_class=LlavaOnevisionProcessor,
        **SMALL,
    )
    return {
        "saved by stock": stock,
        "pre-5": save_with_names(root / "pre-5", stock, stock_model, PRE_5_NAMES, CONFIG_OF_4_45),
        "model.* of 4.52": save_with_names(root / "v4.52", stock, stock_model, V5_NAMES_OF_4_52, {}),
        "model.* of 5": save_with_names(root / "v5", stock, stock_model, V5_NAMES, {}),
    }


@pytest.fixture
def log(caplog, monkeypatch):
    """What transformers and accelerate log from warnings on; transformers keeps its messages to itself by default."""
    transformers.logging.get_verbosity()  # configures the logger, once
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    transformers.utils.logging.warning_once.cache_clear()
    caplog.set_level(logging.WARNING, "transformers")
    return caplog


def load(folder, model_class=AOTLlavaOnevisionForConditionalGeneration, **kwargs):
    """Loads a checkpoint and checks that its keys are just the model's."""
    is_aot = model_class.__name__.startswith("AOT")
    kwargs = {**FITTING, **kwargs} if is_aot else kwargs
    model, info = model_class.from_pretrained(folder, output_loading_info=True, **kwargs)
    assert {kind: sorted(keys) for kind, keys in info.items() if keys} == {}
    return model


def assert_same_weights(model, expected, dtype=None):
    weights, expected = model.state_dict(), expected.state_dict()
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value.to(dtype), rtol=0, atol=0, msg=name)


def video_inputs(model, num_frames=4, num_placeholders=7, dtype=torch.float32):
    """A prompt that asks for the 6 tokens that the config's ratio gives, and the newline token."""
    video_token = model.config.video_token_index
    pixels = torch.rand(1, num_frames, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    return {
        "input_ids": torch.tensor([[65, *[video_token] * num_placeholders, 66]]),
        "attention_mask": torch.ones(1, num_placeholders + 2, dtype=torch.long),
        "pixel_values_videos": (2 * pixels - 1).to(dtype),
    }


@torch.no_grad()
def logits(model, **kwargs):
    return model(**video_inputs(model, **kwargs)).logits


# --- Layouts --------------------------------------------------------------------------------------


def test_the_layouts_are_what_their_names_say(folders):
    keys = {layout: set(load_file(folder / "model.safetensors")) for layout, folder in folders.items()}
    assert {"image_newline", "language_model.lm_head.weight"} <= keys["pre-5"]
    assert "language_model.model.embed_tokens.weight" in keys["pre-5"]
    assert "vision_tower.vision_model.post_layernorm.weight" in keys["pre-5"]
    assert "model.vision_tower.vision_model.post_layernorm.weight" in keys["model.* of 4.52"]
    assert {"lm_head.weight", "model.vision_tower.post_layernorm.weight"} <= keys["model.* of 5"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_completely_and_silently(folders, stock_model, log, layout):
    model = load(folders[layout])
    assert_same_weights(model, stock_model)
    assert log.messages == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_inner_model_loads_as_far_as_the_stock_one_does(folders, log, layout):
    stock, stock_info = LlavaOnevisionModel.from_pretrained(folders[layout], output_loading_info=True)
    stock_log = [record.getMessage().replace("Llava", "AOTLlava") for record in log.records]
    log.clear()
    model, info = AOTLlavaOnevisionModel.from_pretrained(folders[layout], output_loading_info=True, **FITTING)
    assert_same_weights(model, stock)
    assert info == stock_info
    assert not info["missing_keys"]
    assert log.messages == stock_log


def test_the_inner_model_saved_by_stock_loads_silently(tmp_path, stock_model, log):
    stock_model.model.save_pretrained(tmp_path)
    assert_same_weights(load(tmp_path, AOTLlavaOnevisionModel), stock_model.model)
    assert log.messages == []


def test_the_stock_checkpoints_answers_are_kept_with_aot_off(folders, stock_model):
    model = load(folders["pre-5"], retention_ratio=1.0)
    full_prompt = 4 * 16 + 1
    expected = logits(stock_model, num_placeholders=full_prompt)
    assert torch.equal(logits(model, num_placeholders=full_prompt), expected)


@pytest.mark.parametrize("layout", ["saved by stock", "pre-5"])
def test_sharded_checkpoints_load(folders, stock_model, log, tmp_path, layout):
    weights = load_file(folders[layout] / "model.safetensors")
    shutil.copytree(folders[layout], tmp_path / "sharded")
    (tmp_path / "sharded/model.safetensors").unlink()
    shards = {f"model-{shard + 1:05}-of-00003.safetensors": sorted(weights)[shard::3] for shard in range(3)}
    for name, keys in shards.items():
        save_file({key: weights[key] for key in keys}, tmp_path / "sharded" / name, metadata={"format": "pt"})
    weight_map = {key: name for name, keys in shards.items() for key in keys}
    index = {"metadata": {}, "weight_map": weight_map}
    (tmp_path / "sharded/model.safetensors.index.json").write_text(json.dumps(index))

    assert_same_weights(load(tmp_path / "sharded"), stock_model)
    assert log.messages == []


def test_shards_that_the_model_saves_load_again(folders, stock_model, log, tmp_path):
    load(folders["pre-5"]).save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same_weights(load(tmp_path), stock_model)
    assert log.messages == []


def test_a_config_that_does_not_fit_the_checkpoint_is_refused(folders):
    with pytest.raises(ValueError, match=r"`local_window_size` is 9, but it must be an integer from 1 to 7"):
        AOTLlavaOnevisionForConditionalGeneration.from_pretrained(folders["saved by stock"])


def test_the_checkpoint_is_built_once_and_without_memory(folders, monkeypatch):
    devices = []
    build = LlavaOnevisionModel.__init__

    def watched_build(self, config):
        build(self, config)
        devices.append({parameter.device.type for parameter in self.parameters()})

    monkeypatch.setattr(LlavaOnevisionModel, "__init__", watched_build)
    load(folders["saved by stock"])
    assert devices == [{"meta"}]


# --- Tied embeddings ------------------------------------------------------------------------------


@pytest.mark.parametrize("tied_by", ["config", "text_config"])
@pytest.mark.parametrize("names", [None, PRE_5_NAMES], ids=["saved by stock", "pre-5"])
def test_tied_embeddings_stay_tied(tmp_path, log, tied_by, names):
    fields = {**SMALL, "tie_word_embeddings": True, "text_config": {"tie_word_embeddings": True}}
    stock = random_model(LlavaOnevisionForConditionalGeneration, **fields)
    stock.save_pretrained(tmp_path / "stock")
    folder = tmp_path / "stock"
    if names:
        folder = save_with_names(tmp_path / "old", folder, stock, names, CONFIG_OF_4_45)
        weights = load_file(folder / "model.safetensors")
        del weights["language_model.lm_head.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if tied_by == "text_config":  # where the published 0.5B checkpoint says it
        config = json.loads((folder / "config.json").read_text())
        del config["tie_word_embeddings"]
        (folder / "config.json").write_text(json.dumps(config))

    model = load(folder)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert_same_weights(model, stock)
    assert log.messages == []

    model.save_pretrained(tmp_path / "again")
    again = load(tmp_path / "again")
    assert again.lm_head.weight is again.get_input_embeddings().weight
    assert_same_weights(again, stock)


def test_untied_embeddings_stay_apart(folders):
    model = load(folders["pre-5"])
    assert not torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)


# --- Types and devices ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, "bfloat16"])
def test_the_weights_arrive_in_the_wanted_type(folders, stock_model, log, dtype):
    model = load(folders["pre-5"], dtype=dtype)
    expected = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert_same_weights(model, stock_model, expected)
    assert torch.isfinite(logits(model, dtype=expected)).all()
    assert log.messages == []


@pytest.mark.parametrize("layout", ["saved by stock", "pre-5"])
def test_auto_dtype_is_that_of_the_file(folders, stock_model, tmp_path, layout):
    shutil.copytree(folders[layout], tmp_path / "half")
    weights = load_file(folders[layout] / "model.safetensors")
    halves = {key: value.half() for key, value in weights.items()}
    save_file(halves, tmp_path / "half/model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "half/config.json").read_text())
    config["torch_dtype" if "torch_dtype" in config else "dtype"] = "float16"
    (tmp_path / "half/config.json").write_text(json.dumps(config))

    model = load(tmp_path / "half", dtype="auto")
    assert model.dtype == torch.float16
    assert_same_weights(model, stock_model, torch.float16)


@pytest.mark.parametrize("device_map", ["auto", "cpu", {"": "cpu"}])
def test_device_map(folders, stock_model, log, device_map):
    model = load(folders["pre-5"], device_map=device_map)
    wanted = torch.device("cuda" if device_map == "auto" and torch.cuda.is_available() else "cpu")
    assert {parameter.device.type for parameter in model.parameters()} == {wanted.type}
    assert_same_weights(model.cpu(), stock_model)
    assert log.messages == []


@pytest.mark.filterwarnings("ignore:The following device_map keys do not match:UserWarning")
def test_layers_offloaded_to_disk_answer_like_those_in_memory(folders, tmp_path):
    model = load(folders["pre-5"], device_map="auto", max_memory={"cpu": "200KB"}, offload_folder=tmp_path)
    assert "disk" in model.hf_device_map.values()
    on_disk = [name for name, parameter in model.named_parameters() if parameter.device.type == "meta"]
    watched_layer = f"encoder.layers.{model.config.local_attention_layer}."
    assert any("vision_tower" in name and watched_layer in name for name in on_disk)
    in_memory = load(folders["pre-5"])
    torch.testing.assert_close(logits(model), logits(in_memory))
    inputs = video_inputs(model)
    answer = model.generate(**inputs, max_new_tokens=3, min_new_tokens=3)
    assert torch.equal(answer, in_memory.generate(**inputs, max_new_tokens=3, min_new_tokens=3))


PARTS = ("vision_tower", "multi_modal_projector", "language_model")
DEVICE_MAPS = {
    "everything": {"": "disk"},
    "the newline": {"model.image_newline": "disk", "lm_head": "cpu"} | {f"model.{part}": "cpu" for part in PARTS},
}


@pytest.mark.filterwarnings("ignore:The following device_map keys do not match:UserWarning")
@pytest.mark.parametrize("on_disk", DEVICE_MAPS)
@pytest.mark.parametrize("kind", ["video", "text"])
def test_what_is_offloaded_to_disk_answers_as_in_memory(folders, tmp_path, on_disk, kind):
    """But for the newline by itself, which is no module: nothing of accelerate's fetches it, in stock neither."""
    outcomes = []
    offloaded = {"device_map": DEVICE_MAPS[on_disk], "offload_folder": tmp_path}
    stock = LlavaOnevisionForConditionalGeneration if (on_disk, kind) == ("the newline", "video") else None
    for options in ({} if stock is None else {"model_class": stock, **offloaded}, offloaded):
        model = load(folders["pre-5"], **options)
        model.config.retention_ratio = 1
        ids = [[1, *[model.config.video_token_id] * (4 * 16 + 1), 2]] if kind == "video" else [[1, 2, 3]]
        inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.ones_like(torch.tensor(ids))}
        if kind == "video":
            inputs["pixel_values_videos"] = torch.ones(1, 4, 3, 56, 56)
        try:
            outcomes.append(model.generate(**inputs, max_new_tokens=2, min_new_tokens=2).tolist())
        except NotImplementedError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
    assert isinstance(outcomes[0], str) == (stock is not None)


# --- Saving ---------------------------------------------------------------------------------------


def test_a_saved_model_loads_again(folders, stock_model, log, tmp_path):
    load(folders["pre-5"], retention_ratio=0.2, num_clips=4).save_pretrained(tmp_path)
    again = AOTLlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path)
    assert_same_weights(again, stock_model)
    assert (again.config.retention_ratio, again.config.num_clips, again.config.local_window_size) == (0.2, 4, 3)
    assert again.config.architectures == ["AOTLlavaOnevisionForConditionalGeneration"]
    assert log.messages == []


def test_the_stock_class_loads_what_the_aot_class_saves(folders, stock_model, tmp_path):
    load(folders["pre-5"]).save_pretrained(tmp_path)
    assert_same_weights(load(tmp_path, LlavaOnevisionForConditionalGeneration), stock_model)


def test_the_stock_inner_model_loads_what_the_aot_inner_model_saves(folders, stock_model, tmp_path):
    load(folders["pre-5"]).model.save_pretrained(tmp_path)
    assert_same_weights(load(tmp_path, LlavaOnevisionModel), stock_model.model)


def test_aot_adds_no_weights(folders, tmp_path):
    load(folders["saved by stock"]).save_pretrained(tmp_path)
    saved, stock = (load_file(folder / "model.safetensors") for folder in (tmp_path, folders["saved by stock"]))
    assert sum(value.numel() for value in saved.values()) == sum(value.numel() for value in stock.values())


def test_aot_fields_stay_out_of_the_generation_config(folders, stock_model, log, tmp_path):
    model = load(folders["saved by stock"], retention_ratio=0.2, num_clips=4, temporal_threshold=0.5)
    assert model.config.retention_ratio == 0.2
    model.save_pretrained(tmp_path)
    files = {}
    for name, folder in {"aot": tmp_path, "stock": folders["saved by stock"]}.items():
        files[name] = json.loads((folder / "generation_config.json").read_text())
    assert files["aot"] == files["stock"]
    assert not set(AOT_FIELDS) & vars(model.generation_config).keys()
    model.generate(**video_inputs(model, num_placeholders=14), max_new_tokens=1)
    assert log.messages == []


def test_a_stock_config_is_refused(folders):
    config = LlavaOnevisionConfig.from_pretrained(folders["saved by stock"])
    with pytest.raises(TypeError, match=r"LlavaOnevisionConfig, but .* AOTLlavaOnevisionConfig"):
        AOTLlavaOnevisionForConditionalGeneration(config)
