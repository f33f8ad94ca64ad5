"""What the models take as `--model_args`; needs no lmms-eval."""

import dataclasses

import pytest

from aot_llava_baselines import BASELINES
from aot_llava_lmms_eval.answering import options_of_generate, settings_of
from aot_llava_lmms_eval.arguments import HARNESS, HarnessArguments, split_arguments
from aot_llava_lmms_eval.names import AOT, METHODS
from modeling_aot_llava.configuration_aot_llava import AOT_FIELDS


def split(**given):
    return split_arguments("aot_llava", {"pretrained": "somewhere", **given}, settings_of(AOT))


def test_names_are_those_of_the_baselines():
    assert set(METHODS) == set(BASELINES)


def test_every_field_of_aot_and_of_the_methods_is_an_argument():
    assert settings_of(AOT) == AOT_FIELDS
    for method, kind in BASELINES.items():
        assert {field.name for field in dataclasses.fields(kind)} <= set(settings_of(method))
        assert not set(settings_of(method)) & set(HARNESS)


def test_values_as_lmms_eval_hands_them_over():
    harness, settings = split(
        batch_size="4", global_attention_layer=-2.0, retention_ratio=1, num_anchors="None", intra_frame_weight=2.0
    )
    assert harness == HarnessArguments("somewhere", batch_size=4)
    assert settings == {
        "global_attention_layer": -2,
        "retention_ratio": 1,
        "num_anchors": None,
        "intra_frame_weight": 2.0,
    }
    assert isinstance(settings["global_attention_layer"], int)


def test_list_in_brackets():
    _, settings = split_arguments("x", {"pretrained": "p", "layers": "[2,7,14]"}, settings_of("pdrop"))
    assert settings == {"layers": (2, 7, 14)}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"max_num_frames": 8}, "no argument 'max_num_frames'; did you mean 'max_frames_num'"),
        ({"xyz": 8}, "no argument 'xyz'. Its arguments are pretrained, revision"),
        ({"batch_size": "auto"}, "batch_size is 'auto', but must be an integer from 1"),
        ({"max_frames_num": 0}, "max_frames_num is 0, but must be an integer from 1"),
        ({"conv_template": "vicuna_v1"}, "conv_template is 'vicuna_v1', but must be one of checkpoint, qwen_1_5"),
        ({"frame_sampling": "fps"}, "frame_sampling is 'fps', but must be one of uniform, llava_onevision, llava_vid"),
        ({"dtype": "int"}, "dtype is 'int', but must be one of auto, float32, bfloat16, float16"),
        (
            {"unreadable_videos": "skip"},
            "unreadable_videos is 'skip', but must be one of stop, llava_onevision, llava_vid",
        ),
        ({"keep_encoded_gib": -0.5}, "keep_encoded_gib is -0.5, but must be a number from 0"),
        ({"keep_encoded_gib": "all"}, "keep_encoded_gib is 'all', but must be a number from 0"),
        ({"read_ahead": -1}, "read_ahead is -1, but must be an integer from 0"),
        ({"add_time_instruction": "maybe"}, "add_time_instruction is 'maybe', but must be True or False"),
    ],
)
def test_wrong_arguments(given, complaint):
    with pytest.raises(ValueError, match="^(aot_llava has )?" + complaint):
        split(**given)


def test_checkpoint_is_needed():
    with pytest.raises(ValueError, match="aot_llava needs a checkpoint: --model_args pretrained="):
        split_arguments("aot_llava", {"retention_ratio": 0.1}, settings_of(AOT))


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (
            {"until": ["\n\n"], "temperature": 0, "top_p": 1.0, "num_beams": 1, "max_new_tokens": 16},
            {"do_sample": False, "num_beams": 1, "max_new_tokens": 16},
        ),
        ({"temperature": 0.7}, {"do_sample": True, "temperature": 0.7, "max_new_tokens": 1024}),
        ({"do_sample": False, "temperature": 0.7}, {"do_sample": False, "max_new_tokens": 1024}),
        ({}, {"do_sample": False, "max_new_tokens": 1024}),
    ],
)
def test_options_of_generate(given, options):
    before = dict(given)
    assert options_of_generate(given) == options
    assert given == before
