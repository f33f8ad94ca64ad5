"""The variants in `configuration/`, and what is said about one that is wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hub_upload.errors import PushError
from hub_upload.package_code import aot_defaults, package_code
from hub_upload.variants import bundled_variants, read_variant, read_variants
from modeling_aot_llava import AOTLlavaOnevisionConfig
from modeling_aot_llava.configuration_aot_llava import AOT_FIELDS
from modeling_aot_llava.token_budget import plan_token_budget, released_keep_ratio

CONFIGURATION = Path(__file__).parents[2] / "configuration"
FILES = sorted(CONFIGURATION.glob("*.json"))
PAPERS_POINTS = {10: (126, 627, 34), 15: (144, 941, 39), 20: (196, 1254, 53), 25: (205, 1568, 55)}
OF_BASE = ("mm_spatial_pool_mode", "mm_newline_position")
VALID = {"base_model": "owner/base", "num_frames": 32}


@pytest.fixture
def write(tmp_path):
    """Writes a variant: `write(num_anchors=3)`, or any text as `write("{}")`; returns the file."""

    def write_variant(text=None, name="mine", **fields):
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({**VALID, **fields}) if text is None else text)
        return file

    return write_variant


# The files of the project


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_holds_a_valid_variant_and_nothing_else(file):
    values = json.loads(file.read_text())
    assert set(values) <= {"base_model", "num_frames", *AOT_FIELDS}
    variant = read_variant(file)
    config = AOTLlavaOnevisionConfig(**variant.fields)
    assert {name: getattr(config, name) for name in variant.fields} == variant.fields
    assert "num_anchors" not in values  # else a call with another ratio would plan with the wrong number
    is_video_model = file.stem.startswith("llava-video")
    # What the base model does stands in the base's own config.
    assert set(variant.fields) == set(AOT_FIELDS) - (set() if is_video_model else set(OF_BASE))
    assert variant.num_frames == (64 if is_video_model else 32)


@pytest.mark.parametrize("percent", PAPERS_POINTS)
@pytest.mark.parametrize("clips", ["uniform", "dynamic"])
def test_the_papers_operating_points_are_there(percent, clips):
    anchors, num_video_tokens, pooled_anchors = PAPERS_POINTS[percent]
    variant = read_variant(CONFIGURATION / f"llava-onevision-7b-{percent}-{clips}.json")
    budget = plan_token_budget(AOTLlavaOnevisionConfig(**variant.fields), variant.num_frames)
    assert variant.base_model == "llava-hf/llava-onevision-qwen2-7b-ov-hf"
    assert variant.fields["recipe"] == "paper"
    assert variant.fields["clip_segmentation"] == clips
    assert (budget.patch_anchors, budget.num_video_tokens, budget.pooled_anchors) == (
        anchors,
        num_video_tokens,
        pooled_anchors,
    )


def test_the_released_recipe_meets_the_budget_on_average():
    variant = read_variant(CONFIGURATION / "llava-onevision-7b-10-released.json")
    budget = plan_token_budget(AOTLlavaOnevisionConfig(**variant.fields), variant.num_frames)
    assert variant.fields["recipe"] == "released"
    assert variant.fields["keep_ratio"] is None  # that of each call's budget
    assert released_keep_ratio(budget) == pytest.approx(0.1017, abs=1e-4)


@pytest.mark.parametrize("size", ["0.5b", "72b"])
def test_the_other_sizes_are_there(size):
    variant = read_variant(CONFIGURATION / f"llava-onevision-{size}-10-uniform.json")
    seven = read_variant(CONFIGURATION / "llava-onevision-7b-10-uniform.json")
    base_model = f"llava-hf/llava-onevision-qwen2-{size}-ov-hf"
    assert variant == replace(seven, name=variant.name, base_model=base_model)


def test_there_are_no_others():
    assert len(FILES) == 19
    assert list(bundled_variants().values()) == FILES


# What is known of the package without importing it


def test_the_fields_and_defaults_are_the_config_class_own():
    config = AOTLlavaOnevisionConfig()
    assert aot_defaults() == {name: getattr(config, name) for name in AOT_FIELDS}


def test_the_published_code_is_what_save_pretrained_writes(build_model, processor, tmp_path):
    build_model().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert package_code() == {file.name: file.read_bytes() for file in tmp_path.glob("*.py")}


# Choosing variants


def test_a_folder_gives_the_bases_own_variants_the_papers_default_first():
    names = [
        variant.name for variant in read_variants([str(CONFIGURATION)], "llava-hf/llava-onevision-qwen2-7b-ov-hf")
    ]
    uniform, dynamic = (
        [f"llava-onevision-7b-{percent}-{kind}" for percent in PAPERS_POINTS] for kind in ("uniform", "dynamic")
    )
    assert names == [*uniform, *dynamic, "llava-onevision-7b-10-released"]


def test_a_folder_of_variants_for_one_base_is_for_any_base(write, tmp_path):
    write(name="one")
    write(name="two")
    assert [variant.name for variant in read_variants([str(tmp_path)], "somebody/else")] == ["one", "two"]


def test_a_folder_of_variants_for_several_bases_does_not_guess():
    with pytest.raises(PushError, match=r"made for 4 bases .*ov-hf.*name the files that you want"):
        read_variants([str(CONFIGURATION)], "./my-checkpoint")


def test_variants_of_the_project_have_names(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (variant,) = read_variants(["llava-onevision-0.5b-10-uniform"], None)
    assert variant.base_model == "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"
    with pytest.raises(
        PushError, match=r"no variant llava-onevision-7b-10-unifrom.*'llava-onevision-7b-10-uniform'\?"
    ):
        read_variants(["llava-onevision-7b-10-unifrom"], None)


def test_two_variants_cannot_share_a_branch(write):
    with pytest.raises(PushError, match="two variants are called mine"):
        read_variants([str(write()), str(write())], None)


def test_an_empty_folder_is_said_to_be_empty(tmp_path):
    with pytest.raises(PushError, match="holds no variant"):
        read_variants([str(tmp_path)], None)


# What can be wrong with one


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("num_anchor", "num_anchors"),
        ("retention", "retention_ratio"),
        ("segmentation", "clip_segmentation"),
        ("frames", "num_frames"),
        ("base", "base_model"),
        ("Recipe", "recipe"),
        ("sinkhorn_eps", "sinkhorn_epsilon"),
    ],
)
def test_an_unknown_field_is_answered_with_the_right_one(wrong, right, write):
    with pytest.raises(PushError, match=rf"mine.json: there is no field '{wrong}'. Did you mean '{right}'\?"):
        read_variant(write(**{wrong: 1}))


def test_a_field_like_no_other_is_answered_with_all(write):
    with pytest.raises(
        PushError, match=r"no field 'vocabulary'. There are: base_model, num_frames, recipe, .*keep_ratio"
    ):
        read_variant(write(vocabulary=1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_model": None}, "`base_model` is None, but it must be a Hub ID"),
        ({"base_model": "base"}, "`base_model` is 'base', but it must be a Hub ID"),
        ({"base_model": "./a/b"}, "`base_model` is './a/b'"),
        ({"num_frames": 0}, "`num_frames` is 0, but it must be an integer from 1"),
        ({"num_frames": True}, "`num_frames` is True"),
        ({"num_frames": 10**30}, "an integer from 1 to 1,000,000"),
        ({"num_frames": 1e30}, r"`num_frames` is 1e\+30, but it must be an integer"),
        ({"base_model": "me/a--b"}, "`base_model` is 'me/a--b', but it must be a Hub ID"),
        ({"name": "x.lock"}, r"x.lock.json: its name becomes a branch.*\.lock"),
        ({"name": "a" * 40}, "its name becomes a branch.*what a commit is called"),
        ({"num_frames": "32"}, "`num_frames` is '32'"),
        ({"name": "main"}, "main.json: its name becomes a branch"),
        ({"name": "my variant"}, "its name becomes a branch"),
    ],
)
def test_a_wrong_value_is_named(fields, message, write):
    with pytest.raises(PushError, match=message):
        read_variant(write(**fields))


@pytest.mark.parametrize("fields", [{"base_model": "a" * 10_000}, {"num_frames": [1] * 10_000}, {"a" * 10_000: 1}])
def test_a_long_value_is_shown_in_short(fields, write):
    with pytest.raises(PushError, match=r"mine\.json: .*…") as error:
        read_variant(write(**fields))
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a list"),
        ("\xff", "is not JSON"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"num_frames": ' + "9" * 5000 + "}", "holds a number of thousands of digits"),
        ("\ufeff{}", "begins with a byte order mark"),
        ('{"num_frames": 1, "num_frames": 2}', "has 'num_frames' twice"),
    ],
)
def test_a_file_that_is_no_object_is_named(text, message, write):
    with pytest.raises(PushError, match=rf"mine.json {message}"):
        read_variant(write(text))


def test_fields_that_are_not_named_have_their_defaults(write):
    variant = read_variant(write(num_clips=4))
    defaults = {name: value for name, value in aot_defaults().items() if name not in OF_BASE}
    assert variant.fields == {**defaults, "num_clips": 4}
