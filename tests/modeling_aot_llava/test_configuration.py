"""The config: every hyperparameter is a flat, documented field, and no wrong value gets past its use."""

import ast
import json
import logging
import math
import re

import numpy as np
import pytest
import torch
import transformers
from random_checkpoint import random_config, random_model, random_processor
from transformers import LlavaOnevisionConfig

from modeling_aot_llava import (
    AOTLlavaOnevisionConfig,
    AOTLlavaOnevisionForConditionalGeneration,
    AOTLlavaOnevisionProcessor,
)
from modeling_aot_llava.token_budget import plan_token_budget

# ARCHITECTURE.md's fields with ALGORITHM.md's defaults.
DOCUMENTED = {
    "recipe": "paper",
    "retention_ratio": 0.1,
    "num_anchors": None,
    "local_anchor_ratio": 0.5,
    "local_window_size": 9,
    "local_attention_layer": 5,
    "global_attention_layer": -2,
    "anchor_selection": "attention",
    "sinkhorn_epsilon": 0.1,
    "sinkhorn_iterations": 100,
    "sinkhorn_tolerance": 0.01,
    "intra_frame_weight": 1.0,
    "inter_frame_weight": 1.0,
    "intra_frame_aggregation": "transport",
    "inter_frame_aggregation": "transport",
    "num_clips": 8,
    "clip_segmentation": "uniform",
    "dynamic_similarity_threshold": 0.8,
    "temporal_threshold": None,
    "keep_ratio": None,
}
# "From a generator seeded by the config", says ALGORITHM.md of the random anchors.
FIELDS = {
    **DOCUMENTED,
    "anchor_seed": 0,
    "frames_at_once": 32,
    # LLaVA-NeXT's names of what the base model does, LLaVA-OneVision's values.
    "mm_spatial_pool_mode": "bilinear",
    "mm_newline_position": "one_token",
    "aot_newline_position": None,
}

CHANGED = {
    "recipe": "released",
    "retention_ratio": 0.2,
    "num_anchors": 196,
    "local_anchor_ratio": 0.25,
    "local_window_size": 3,
    "local_attention_layer": 4,
    "global_attention_layer": -3,
    "anchor_selection": "random",
    "anchor_seed": 7,
    "sinkhorn_epsilon": 0.05,
    "sinkhorn_iterations": 50,
    "sinkhorn_tolerance": 0.001,
    "intra_frame_weight": 0.5,
    "inter_frame_weight": 2.0,
    "intra_frame_aggregation": "cosine",
    "inter_frame_aggregation": "none",
    "num_clips": 4,
    "clip_segmentation": "dynamic",
    "dynamic_similarity_threshold": 0.7,
    "keep_ratio": 0.3,
    "frames_at_once": 8,
    "mm_spatial_pool_mode": "average",
    "mm_newline_position": "grid",
    "aot_newline_position": "one_token",
}

# A grid of 7 x 7 patches, pooled to 4 x 4, and a vision tower of 7 layers.
SMALL = {"vision_config": {"image_size": 56, "patch_size": 8}}
FITTING = {"local_window_size": 3}
NUM_FRAMES = 4
FULL_COUNT = NUM_FRAMES * 16 + 1

NOT_NUMBERS = (math.nan, True, "1", [0.5])
NOT_INTEGERS = (math.nan, True, "1", 1.0, None)

# Field -> what the message must say is allowed, the wrong values, and the fields that go with them.
WRONG = {
    "recipe": ('"paper", "released"', ("Paper", "", None, True, ["paper"]), {}),
    "retention_ratio": ("above 0", (0, -0.1, math.inf, None, *NOT_NUMBERS), {}),
    "num_anchors": ("None or an integer from 1 to 49", (0, -1, 50, math.nan, True, "1", 12.0), {}),
    "local_anchor_ratio": ("from 0 to 1", (-0.1, 1.1, math.inf, None, *NOT_NUMBERS), {}),
    "local_window_size": ("from 1 to 7", (0, -3, 8, 9, *NOT_INTEGERS), {}),
    "local_attention_layer": ("from -7 to 6: the vision tower has 7 layers", (7, -8, *NOT_INTEGERS), {}),
    "global_attention_layer": ("from -7 to 6: the vision tower has 7 layers", (7, -8, *NOT_INTEGERS), {}),
    "anchor_selection": ('"attention", "random"', ("topk", "Random", None, True), {}),
    "anchor_seed": ("an integer from 0", (-1, *NOT_INTEGERS), {}),
    "sinkhorn_epsilon": ("above 0", (0, -0.1, math.inf, None, *NOT_NUMBERS), {}),
    "sinkhorn_iterations": ("an integer from 1", (0, -1, math.inf, *NOT_INTEGERS), {}),
    "sinkhorn_tolerance": ("from 0", (-0.1, math.inf, None, *NOT_NUMBERS), {}),
    "intra_frame_weight": ("from 0", (-0.1, math.inf, None, *NOT_NUMBERS), {}),
    "inter_frame_weight": ("from 0", (-0.1, math.inf, None, *NOT_NUMBERS), {}),
    "intra_frame_aggregation": ('"transport", "cosine", "none"', ("mean", None, True), {}),
    "inter_frame_aggregation": ('"transport", "cosine", "none"', ("mean", None, True), {}),
    "num_clips": ("an integer from 1", (0, -1, math.inf, *NOT_INTEGERS), {}),
    "frames_at_once": ("an integer from 1", (0, -1, math.inf, *NOT_INTEGERS), {}),
    "clip_segmentation": ('"uniform", "dynamic", "none"', ("fixed", None, True), {}),
    "mm_spatial_pool_mode": ('"bilinear", "average"', ("max", "Average", None, True), {}),
    "mm_newline_position": (
        '"no_token", "one_token", "frame", "grid"',
        ("row", "", None, True, ["grid"]),
        {},
    ),
    "aot_newline_position": (
        'None or "no_token" or "one_token": fewer newline tokens than mm_newline_position="frame"',
        ("frame", "grid", "row", True, ["one_token"]),
        {"mm_newline_position": "frame"},
    ),
    "dynamic_similarity_threshold": ("from -1 to 1", (-1.1, 1.1, math.inf, None, *NOT_NUMBERS), {}),
    "temporal_threshold": ("None or a number from 0 to 1", (-0.1, 1.1, math.inf, *NOT_NUMBERS), {}),
    "keep_ratio": ("None or a number from 0 to 1", (-0.1, 1.1, math.inf, *NOT_NUMBERS), {"recipe": "released"}),
}
OF_THE_OTHER_RECIPE = [
    ("keep_ratio", 0.5, 'recipe="released"', {"recipe": "paper"}),
    ("temporal_threshold", 0.5, 'recipe="paper"', {"recipe": "released"}),
    ("clip_segmentation", "none", 'recipe="paper"', {"recipe": "paper"}),
    ("clip_segmentation", "uniform", '"grid" newlines', {"recipe": "released", "mm_newline_position": "grid"}),
    ("clip_segmentation", "dynamic", '"frame" newlines', {"recipe": "released", "mm_newline_position": "frame"}),
]
WRONG_VALUES = [
    pytest.param(field, value, allowed, others, id=f"{field}={value!r}")
    for field, (allowed, values, others) in WRONG.items()
    for value in values
] + [pytest.param(*case, id=f"{case[0]} of the other recipe") for case in OF_THE_OTHER_RECIPE]

EDGES = {
    "retention_ratio": (1e-9, 1, 3.5),
    "num_anchors": (1, 49),
    "local_anchor_ratio": (0, 1),
    "local_window_size": (1, 7),
    "local_attention_layer": (-7, 6),
    "global_attention_layer": (-7, 6),
    "anchor_seed": (0, 2**31),
    "sinkhorn_epsilon": (1e-6, 10),
    "sinkhorn_iterations": (1, 10**6),
    "sinkhorn_tolerance": (0, 1),
    "intra_frame_weight": (0, 100),
    "inter_frame_weight": (0, 100),
    "num_clips": (1, 1000),
    "frames_at_once": (1, 1000),
    "dynamic_similarity_threshold": (-1, 1),
    "temporal_threshold": (0, 1),
    "keep_ratio": (0, 1),
}


@pytest.fixture(scope="module")
def shared_small_model():
    return random_model(AOTLlavaOnevisionForConditionalGeneration, **SMALL, **FITTING)


@pytest.fixture
def small_model(shared_small_model, monkeypatch):
    """A model whose config is this test's own to change."""
    config = shared_small_model.config
    for field in FIELDS:
        monkeypatch.setattr(config, field, getattr(config, field))
    return shared_small_model


@pytest.fixture
def stock_folder(tmp_path):
    random_config(LlavaOnevisionConfig, **SMALL).save_pretrained(tmp_path / "stock")
    return tmp_path / "stock"


@pytest.fixture
def log(caplog, monkeypatch):
    """What transformers logs from warnings on; by default it keeps its messages to itself."""
    transformers.logging.get_verbosity()  # configures the logger, once
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    caplog.set_level(logging.WARNING, "transformers")
    return caplog


def small_config(**fields):
    return random_config(AOTLlavaOnevisionConfig, **SMALL, **{**FITTING, **fields})


def video_prompt(model, num_placeholders):
    pixels = torch.rand(1, NUM_FRAMES, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    video_token = model.config.video_token_index
    return {
        "input_ids": torch.tensor([[65, *[video_token] * num_placeholders, 66]]),
        "attention_mask": torch.ones(1, num_placeholders + 2, dtype=torch.long),
        "pixel_values_videos": pixels,
    }


USES = {
    "plan_token_budget": lambda model: plan_token_budget(model.config, NUM_FRAMES),
    "forward": lambda model: model(**video_prompt(model, 9)),
    "forward of a full prompt": lambda model: model(**video_prompt(model, FULL_COUNT)),
    "inner forward of a full prompt": lambda model: model.model(**video_prompt(model, FULL_COUNT)),
    "generate": lambda model: model.generate(**video_prompt(model, 9), max_new_tokens=1),
    "generate of a full prompt": lambda model: model.generate(**video_prompt(model, FULL_COUNT), max_new_tokens=1),
    "get_video_features": lambda model: model.model.get_video_features(
        video_prompt(model, FULL_COUNT)["pixel_values_videos"]
    ),
}


def message_about(field, value, allowed):
    """The message names the field, the value and what is allowed, in this order."""
    return rf"`{field}` is {re.escape(repr(value))}, .*{re.escape(allowed)}"


def outcome(use, model):
    try:
        return f"returned {type(use(model)).__name__}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


# --- Fields ---------------------------------------------------------------------------------------


def test_every_documented_field_exists_with_its_default():
    config = AOTLlavaOnevisionConfig()
    assert config.model_type == "aot_llava_onevision"
    assert {field: getattr(config, field) for field in FIELDS} == FIELDS


def test_the_fields_lie_flat_beside_the_stock_ones():
    fields, stock_fields = AOTLlavaOnevisionConfig().to_dict(), LlavaOnevisionConfig().to_dict()
    assert fields == {**stock_fields, **FIELDS, "model_type": "aot_llava_onevision"}


@pytest.mark.parametrize("field", FIELDS)
def test_the_docstring_states_every_field_and_its_default(field):
    entry = rf"^ +{field} \(`\w+`, \*optional\*(?:, defaults to `?(?P<default>[^`)]+)`?)?\):\n +\S"
    found = re.search(entry, AOTLlavaOnevisionConfig.__doc__, re.MULTILINE)
    assert found
    assert ast.literal_eval(found["default"] or "None") == FIELDS[field]


@pytest.mark.parametrize("position", ["frame", "one_token", "no_token"])
def test_fewer_newlines_may_be_asked_for(position):
    config = AOTLlavaOnevisionConfig(mm_newline_position="grid", aot_newline_position=position)
    assert config.compressed_newline_position == position
    assert AOTLlavaOnevisionConfig(mm_newline_position=position).compressed_newline_position == position


def test_average_pooling_needs_two_patches_a_side():
    vision = {"vision_config": {"image_size": 8, "patch_size": 8}}
    with pytest.raises(ValueError, match=r"`mm_spatial_pool_mode` is 'average', .* patch grid is 1 x 1"):
        random_config(AOTLlavaOnevisionConfig, **vision, local_window_size=1, mm_spatial_pool_mode="average")


def test_it_is_a_stock_config():
    assert issubclass(AOTLlavaOnevisionConfig, LlavaOnevisionConfig)
    config = AOTLlavaOnevisionConfig(retention_ratio=0.2)
    assert (config.image_token_id, config.vision_config.model_type, config.patch_grid_size) == (
        LlavaOnevisionConfig().image_token_index,
        "siglip_vision_model",
        27,
    )


# --- Saving and loading ---------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, CHANGED, {"temporal_threshold": 0.6}], ids=["defaults", "changed", "tau"])
def test_a_saved_config_loads_again(tmp_path, log, fields):
    config = AOTLlavaOnevisionConfig(**fields)
    config.save_pretrained(tmp_path)
    loaded = AOTLlavaOnevisionConfig.from_pretrained(tmp_path)
    assert {field: getattr(loaded, field) for field in FIELDS} == {**FIELDS, **fields}
    assert loaded.to_dict() == {**config.to_dict(), "transformers_version": transformers.__version__}
    assert log.messages == []


def test_changed_covers_every_field():
    assert CHANGED.keys() | {"temporal_threshold"} == FIELDS.keys()
    assert all(CHANGED[field] != FIELDS[field] for field in CHANGED)


def test_the_file_is_flat_json_with_every_field(tmp_path):
    AOTLlavaOnevisionConfig(**CHANGED).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {field: saved[field] for field in CHANGED} == CHANGED
    assert saved["model_type"] == "aot_llava_onevision"


def test_a_file_without_a_field_gets_its_default(tmp_path):
    AOTLlavaOnevisionConfig(retention_ratio=0.2).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    for field in ("anchor_seed", "num_clips", "temporal_threshold"):
        del saved[field]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    loaded = AOTLlavaOnevisionConfig.from_pretrained(tmp_path)
    assert {field: getattr(loaded, field) for field in FIELDS} == {**FIELDS, "retention_ratio": 0.2}


def test_a_wrong_value_in_a_file_is_refused(tmp_path):
    AOTLlavaOnevisionConfig().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**saved, "retention_ratio": -1}))
    with pytest.raises(ValueError, match=message_about("retention_ratio", -1, "above 0")):
        AOTLlavaOnevisionConfig.from_pretrained(tmp_path)


def test_from_pretrained_takes_fields_as_keywords(tmp_path):
    AOTLlavaOnevisionConfig().save_pretrained(tmp_path)
    loaded, unused = AOTLlavaOnevisionConfig.from_pretrained(tmp_path, **CHANGED, colour=1, return_unused_kwargs=True)
    assert {field: getattr(loaded, field) for field in CHANGED} == CHANGED
    assert unused == {"colour": 1}


def test_from_pretrained_checks_the_keywords(tmp_path):
    AOTLlavaOnevisionConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message_about("retention_ratio", "0.2", "above 0")):
        AOTLlavaOnevisionConfig.from_pretrained(tmp_path, retention_ratio="0.2")


def test_from_pretrained_takes_the_ratio_for_model_and_processor(tmp_path, small_model):
    small_model.save_pretrained(tmp_path)
    model = AOTLlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path, retention_ratio=0.2)
    assert (model.config.retention_ratio, model.model.config.retention_ratio) == (0.2, 0.2)
    assert small_model.config.retention_ratio == 0.1
    assert AOTLlavaOnevisionConfig.from_pretrained(tmp_path).retention_ratio == 0.1


def test_a_stock_config_loads_silently(stock_folder, log):
    config = AOTLlavaOnevisionConfig.from_pretrained(stock_folder, local_window_size=3, retention_ratio=0.2)
    assert (config.model_type, config.patch_grid_size) == ("aot_llava_onevision", 7)
    assert (config.local_window_size, config.retention_ratio) == (3, 0.2)
    assert config.vision_config.to_dict() == LlavaOnevisionConfig.from_pretrained(stock_folder).vision_config.to_dict()
    assert log.messages == []


def test_a_stock_config_whose_grid_is_too_small_for_the_default_window_is_refused(stock_folder):
    with pytest.raises(ValueError, match=message_about("local_window_size", 9, "from 1 to 7")):
        AOTLlavaOnevisionConfig.from_pretrained(stock_folder)


def test_a_config_of_another_model_still_warns(stock_folder, log):
    config = json.loads((stock_folder / "config.json").read_text())
    (stock_folder / "config.json").write_text(json.dumps({**config, "model_type": "llava_next"}))
    AOTLlavaOnevisionConfig.from_pretrained(stock_folder, **FITTING)
    assert any("model of type `llava_next`" in message for message in log.messages)


# --- Wrong values ---------------------------------------------------------------------------------


def test_wrong_values_cover_every_field():
    assert WRONG.keys() == FIELDS.keys()


@pytest.mark.parametrize(("field", "value", "allowed", "others"), WRONG_VALUES)
def test_a_wrong_value_is_refused_at_construction(field, value, allowed, others):
    with pytest.raises(ValueError, match=message_about(field, value, allowed)):
        small_config(**{field: value}, **others)


@pytest.mark.parametrize(("field", "value", "allowed", "others"), WRONG_VALUES)
def test_a_value_changed_to_a_wrong_one_is_refused_in_every_use(small_model, field, value, allowed, others):
    for name, other_value in others.items():
        setattr(small_model.config, name, other_value)
    setattr(small_model.config, field, value)
    outcomes = {name: outcome(use, small_model) for name, use in USES.items()}
    refused = re.compile("ValueError: " + message_about(field, value, allowed))
    assert {name: found for name, found in outcomes.items() if not refused.match(found)} == {}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, ends in EDGES.items() for value in ends])
def test_the_ends_of_a_range_belong_to_it(field, value):
    config = small_config(**{field: value}, recipe="released" if field == "keep_ratio" else "paper")
    assert getattr(config, field) == value
    assert plan_token_budget(config, NUM_FRAMES).num_video_tokens > 0


@pytest.mark.parametrize("side", [27, 24, 7])
def test_the_window_may_be_as_large_as_the_grid_and_no_larger(side):
    vision_config = {"image_size": side * 8, "patch_size": 8}
    random_config(AOTLlavaOnevisionConfig, vision_config=vision_config, local_window_size=side)
    with pytest.raises(ValueError, match=message_about("local_window_size", side + 1, f"from 1 to {side}")):
        random_config(AOTLlavaOnevisionConfig, vision_config=vision_config, local_window_size=side + 1)


def test_attention_layers_must_be_the_vision_towers():
    vision_config = {**SMALL["vision_config"], "num_hidden_layers": 3}
    with pytest.raises(ValueError, match=message_about("local_attention_layer", 5, "from -3 to 2")):
        random_config(AOTLlavaOnevisionConfig, vision_config=vision_config, **FITTING)


def test_stock_fields_are_checked_as_in_a_stock_config():
    errors = []
    for config_class in (LlavaOnevisionConfig, AOTLlavaOnevisionConfig):
        with pytest.raises(Exception, match="vision_feature_select_strategy") as error:
            config_class(vision_feature_select_strategy="some")
        errors.append(error.type)
    assert errors[0] is errors[1]


# --- Changes on a loaded model --------------------------------------------------------------------


@torch.no_grad()
def test_a_ratio_changed_on_a_loaded_model_changes_the_next_forward(small_model):
    lengths = []
    for ratio in (0.1, 0.2, 0.5, 0.1, 1.0):
        small_model.config.retention_ratio = ratio
        lengths.append(small_model(**video_prompt(small_model, FULL_COUNT)).logits.shape[1])
    # round(r * 64), the newline token and two tokens of text
    assert lengths == [6 + 3, 13 + 3, 32 + 3, 6 + 3, 64 + 3]


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        {"recipe": "released"},
        {"num_anchors": 10},
        {"local_window_size": 7},
        {"local_attention_layer": 0},
        {"global_attention_layer": 0},
        {"local_anchor_ratio": 1.0},
        {"anchor_selection": "random"},
        {"intra_frame_aggregation": "cosine"},
        {"inter_frame_aggregation": "none"},
        {"intra_frame_weight": 20.0},
        {"inter_frame_weight": 5.0},
        {"sinkhorn_epsilon": 0.01},
        {"num_clips": 1},
        {"temporal_threshold": 0.5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_field_changed_on_a_loaded_model_changes_the_features(small_model, change):
    small_model.config.retention_ratio, small_model.config.num_anchors = 0.25, 20
    small_model.config.local_attention_layer = 2
    pixels = video_prompt(small_model, FULL_COUNT)["pixel_values_videos"]
    before = small_model.model.get_video_features(pixels).pooler_output
    for field, value in change.items():
        setattr(small_model.config, field, value)
    after = small_model.model.get_video_features(pixels).pooler_output
    assert before.shape != after.shape or not torch.allclose(before, after)


def test_the_processor_takes_the_ratio_too(tmp_path, small_model):
    random_processor(AOTLlavaOnevisionProcessor, small_model.config).save_pretrained(tmp_path)
    assert AOTLlavaOnevisionProcessor.from_pretrained(tmp_path, retention_ratio=0.2).retention_ratio == 0.2
    assert AOTLlavaOnevisionProcessor.from_pretrained(tmp_path).retention_ratio == 0.1


NUMPY_FIELDS = {"retention_ratio": np.float32(0.5), "sinkhorn_epsilon": np.float64(0.2), "num_clips": np.int64(4)}


def test_numpys_numbers_are_numbers(tmp_path):
    config = AOTLlavaOnevisionConfig(**NUMPY_FIELDS, num_anchors=np.int32(100), anchor_seed=np.uint8(3))
    config.validate_aot()
    config.save_pretrained(tmp_path)
    loaded = AOTLlavaOnevisionConfig.from_pretrained(tmp_path)
    fields = ("retention_ratio", "sinkhorn_epsilon", "num_clips", "num_anchors", "anchor_seed")
    assert [getattr(loaded, name) for name in fields] == [0.5, 0.2, 4, 100, 3]
    assert plan_token_budget(config, 32) == plan_token_budget(loaded, 32)


@pytest.mark.parametrize("value", [np.bool_(True), np.array([0.5]), np.zeros((1000, 1000)), "0.5" * 1000])
def test_what_is_no_number_is_shown_in_one_line(value):
    with pytest.raises(ValueError, match="`retention_ratio` is") as error:
        AOTLlavaOnevisionConfig(retention_ratio=value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
