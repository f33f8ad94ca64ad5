"""The processor: B + 1 placeholders a video, whatever form the video comes in, and else the stock processor."""

import copy
import functools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from random_checkpoint import random_config, random_processor
from transformers import AutoProcessor, LlavaOnevisionConfig, LlavaOnevisionProcessor
from transformers.video_utils import VideoMetadata

from modeling_aot_llava import AOTLlavaOnevisionConfig, AOTLlavaOnevisionProcessor
from modeling_aot_llava.token_budget import plan_token_budget

SMALL = {"vision_config": {"image_size": 56, "patch_size": 8}}
RATIOS = (0.001, 0.1, 0.15, 0.2, 0.25, 0.5, 0.999)
WRONG_RATIOS = (0, -0.1, math.nan, math.inf, True, "0.2", [0.2], {})

# Frames that cost nothing to process.
UNTOUCHED = {"do_resize": False, "do_rescale": False, "do_normalize": False}

CONFIG = random_config(AOTLlavaOnevisionConfig, **SMALL, local_window_size=3)
STOCK = random_processor(LlavaOnevisionProcessor, random_config(LlavaOnevisionConfig, **SMALL))
# The real grid of 27 x 27 patches.
REAL_CONFIG = random_config(AOTLlavaOnevisionConfig)
REAL_PROCESSOR = random_processor(AOTLlavaOnevisionProcessor, REAL_CONFIG)


@pytest.fixture(scope="module")
def shared_processor():
    return random_processor(AOTLlavaOnevisionProcessor, CONFIG)


@pytest.fixture
def processor(shared_processor):
    """A processor that no test may leave changed."""
    before = shared_processor.to_dict()
    yield shared_processor
    assert shared_processor.to_dict() == before


@pytest.fixture
def stock_folder(tmp_path):
    STOCK.save_pretrained(tmp_path / "stock")
    return tmp_path / "stock"


@pytest.fixture(scope="module")
def picture_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    paths = [str(folder / f"{index}.png") for index in range(3)]
    for index, path in enumerate(paths):
        Image.new("RGB", (60, 40), (80 * index, 100, 200)).save(path)
    return paths


def frames(num_frames=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_frames, 40, 60, 3), dtype=np.uint8)


def expected_count(num_frames, ratio, tokens_per_frame=16, num_clips=8):
    """B of ALGORITHM.md, section 7."""
    everything = num_frames * tokens_per_frame
    if ratio >= 1:
        return everything
    clips = max(1, min(num_clips, num_frames // 2))
    return min(everything, max(clips, math.floor(ratio * num_frames * tokens_per_frame + 0.5)))


def placeholders(processor, inputs):
    """Placeholders of each row."""
    return [int((torch.as_tensor(row) == processor.video_token_id).sum()) for row in inputs["input_ids"]]


def runs_of_placeholders(processor, row):
    """The lengths of the runs of placeholders in a row."""
    marks = "".join("v" if token == processor.video_token_id else " " for token in row.tolist())
    return [len(run) for run in marks.split()]


def assert_same_inputs(inputs, expected):
    assert inputs.keys() == expected.keys()
    for name in expected:
        assert type(inputs[name]) is type(expected[name]), name
        assert are_equal(inputs[name], expected[name]), name


def are_equal(values, expected):
    if isinstance(expected, list):
        return len(values) == len(expected) and all(map(are_equal, values, expected))
    return np.array_equal(values, expected)


def outcome(call):
    """What a call returns, or the error that it raises."""
    try:
        return call(), None
    except Exception as error:
        return None, (type(error), str(error))


# --- Counts ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    num_frames=st.integers(1, 128),
    ratio=st.one_of(st.floats(1e-6, 1.2), st.sampled_from(RATIOS)),
    is_real=st.booleans(),
)
def test_a_video_gets_one_placeholder_a_token_and_one_for_the_newline(shared_processor, num_frames, ratio, is_real):
    processor, per_frame = (REAL_PROCESSOR, 196) if is_real else (shared_processor, 16)
    video = np.zeros((num_frames, 4, 4, 3), dtype=np.uint8)
    inputs = processor(text="a<video>b", videos=[video], retention_ratio=ratio, videos_kwargs=UNTOUCHED)
    count = expected_count(num_frames, ratio, per_frame) + 1
    assert inputs["input_ids"] == [[64, *[processor.video_token_id] * count, 65]]
    assert processor._get_num_multimodal_tokens(
        video_sizes=[(num_frames, 4, 4)], retention_ratio=ratio
    ).num_video_tokens == [count]


@pytest.mark.parametrize("ratio", [*RATIOS, 1.0, 2])
@pytest.mark.parametrize(
    ("make_config", "num_clips"), [(lambda: REAL_CONFIG, 8), (lambda: CONFIG, 8), (lambda: CONFIG, 3)]
)
def test_processor_and_budget_agree_for_every_number_of_frames(make_config, num_clips, ratio):
    config = copy.deepcopy(make_config())
    config.retention_ratio, config.num_clips = ratio, num_clips
    processor = random_processor(AOTLlavaOnevisionProcessor, config)
    lengths = range(1, 129)
    counts = processor._get_num_multimodal_tokens(video_sizes=[(length, 40, 60) for length in lengths])
    planned = [plan_token_budget(config, length).num_video_tokens + 1 for length in lengths]
    assert counts.num_video_tokens == planned


def test_the_papers_operating_points():
    for ratio, count in {0.1: 627, 0.15: 941, 0.2: 1254, 0.25: 1568, 1: 6272}.items():
        sizes = {"video_sizes": [(32, 384, 384)], "retention_ratio": ratio}
        assert REAL_PROCESSOR._get_num_multimodal_tokens(**sizes).num_video_tokens == [count + 1]


def test_num_multimodal_tokens_of_images_are_the_stock_ones(processor):
    sizes = [(40, 60), (300, 200), (56, 56), (1000, 30)]
    for options in ({}, {"size": {"height": 28, "width": 28}}):
        counts = processor._get_num_multimodal_tokens(image_sizes=sizes, **options)
        expected = STOCK._get_num_multimodal_tokens(image_sizes=sizes, **options)
        assert (counts.num_image_tokens, counts.num_image_patches) == (
            expected.num_image_tokens,
            expected.num_image_patches,
        )
        assert counts.num_video_tokens is None
    both = processor._get_num_multimodal_tokens(image_sizes=sizes, video_sizes=[(8, 40, 60)], retention_ratio=0.5)
    assert both.num_image_tokens == STOCK._get_num_multimodal_tokens(image_sizes=sizes).num_image_tokens
    assert both.num_video_tokens == [65]


def test_num_multimodal_tokens_are_those_of_the_call(processor):
    image = Image.fromarray(frames()[0])
    inputs = processor(text="<image><video>", images=[image], videos=[frames()], return_tensors="pt")
    counts = processor._get_num_multimodal_tokens(image_sizes=[(40, 60)], video_sizes=[(8, 40, 60)])
    assert counts.num_image_tokens == [int((inputs["input_ids"] == processor.image_token_id).sum())]
    assert counts.num_video_tokens == placeholders(processor, inputs)


def test_multimodal_token_types_mark_the_placeholders(processor):
    inputs = processor(text="a<video>b", videos=[frames()], return_mm_token_type_ids=True, return_tensors="pt")
    is_video = inputs["input_ids"] == processor.video_token_id
    assert torch.equal(inputs["mm_token_type_ids"] == 2, is_video)
    assert is_video.sum() == 13 + 1


# --- The ratio ------------------------------------------------------------------------------------


CONVERSATION = [{"role": "user", "content": [{"type": "video", "video": frames()}, {"type": "text", "text": "What?"}]}]
WAYS_TO_GIVE_A_RATIO = {
    "flat": lambda processor, ratio: processor(text="<video>", videos=[frames()], retention_ratio=ratio),
    "videos_kwargs": lambda processor, ratio: processor(
        text="<video>", videos=[frames()], videos_kwargs={"retention_ratio": ratio}
    ),
    "chat template": lambda processor, ratio: processor.apply_chat_template(
        CONVERSATION, tokenize=True, return_dict=True, processor_kwargs={"retention_ratio": ratio}
    ),
    "chat template, videos_kwargs": lambda processor, ratio: processor.apply_chat_template(
        CONVERSATION,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"videos_kwargs": {"retention_ratio": ratio}},
    ),
}


@pytest.mark.parametrize("way", WAYS_TO_GIVE_A_RATIO)
def test_a_ratio_for_one_call(processor, way):
    give = WAYS_TO_GIVE_A_RATIO[way]
    counts = [placeholders(processor, give(processor, ratio)) for ratio in (0.1, 0.2, 0.5, 1.0, 7, None)]
    assert counts == [[13 + 1], [26 + 1], [64 + 1], [128 + 1], [128 + 1], [13 + 1]]


@pytest.mark.parametrize("way", WAYS_TO_GIVE_A_RATIO)
@pytest.mark.parametrize("ratio", WRONG_RATIOS, ids=repr)
def test_a_wrong_ratio_for_one_call_is_refused(processor, way, ratio):
    with pytest.raises(ValueError, match=r"`retention_ratio` is .* above 0") as error:
        WAYS_TO_GIVE_A_RATIO[way](processor, ratio)
    assert repr(ratio) in str(error.value)


@pytest.mark.parametrize("ratio", [*WRONG_RATIOS, None], ids=repr)
def test_a_wrong_ratio_of_the_processor_is_refused_before_it_does_harm(ratio):
    def make_and_use():
        processor = random_processor(AOTLlavaOnevisionProcessor, CONFIG)
        processor.retention_ratio = ratio
        processor(text="<video>", videos=[frames()])

    with pytest.raises(ValueError, match=r"`retention_ratio` is .* above 0"):
        make_and_use()


@pytest.mark.parametrize("num_clips", [0, -1, 2.5, "8", None, True], ids=repr)
def test_a_wrong_number_of_clips_is_refused_as_in_the_config(num_clips):
    def make_and_use():
        processor = random_processor(AOTLlavaOnevisionProcessor, CONFIG)
        processor.num_clips = num_clips
        processor(text="<video>", videos=[frames()])

    with pytest.raises(ValueError, match="num_clips"):
        make_and_use()


def test_the_number_of_clips_is_the_least_number_of_tokens():
    processor = random_processor(AOTLlavaOnevisionProcessor, CONFIG)
    counts = []
    for num_clips in (8, 3, 1):
        processor.num_clips = num_clips
        counts += placeholders(processor, processor(text="<video>", videos=[frames()], retention_ratio=1e-6))
    assert counts == [4 + 1, 3 + 1, 1 + 1]


def test_a_ratio_set_on_the_processor_counts_from_then_on():
    processor = random_processor(AOTLlavaOnevisionProcessor, CONFIG)
    processor.retention_ratio = 0.5
    assert placeholders(processor, processor(text="<video>", videos=[frames()])) == [64 + 1]


# --- Otherwise the stock processor ----------------------------------------------------------------


MIXED_INPUTS = {
    "text": {"text": ["Hello", "Good bye"], "padding": True},
    "image": {"text": "<image>What?", "images": [Image.fromarray(frames()[0])]},
    "images": {"text": ["<image><image>a", "<image>"], "images": [list(frames(2)), [frames()[1]]], "padding": True},
    "image without text": {"images": [Image.fromarray(frames()[0])]},
}


@pytest.mark.parametrize("kind", MIXED_INPUTS)
@pytest.mark.parametrize("options", [{}, {"retention_ratio": 0.2}], ids=["", "with a ratio"])
def test_text_and_images_are_processed_as_by_stock(processor, kind, options):
    inputs = {**MIXED_INPUTS[kind], "return_tensors": "pt"}
    assert_same_inputs(processor(**inputs, **options), STOCK(**inputs))


@pytest.mark.parametrize("ratio", [1, 1.0, 1.5])
@pytest.mark.parametrize("return_tensors", ["pt", "np", None])
def test_a_ratio_of_one_or_more_gives_the_stock_output(processor, ratio, return_tensors):
    inputs = {
        "text": ["<video>What <image> is this?", "<video>\n<video>"],
        "images": [Image.fromarray(frames()[0])],
        "videos": [frames(seed=seed) for seed in range(3)],
        "padding": True,
        "return_mm_token_type_ids": True,
        "return_tensors": return_tensors,
    }
    ours = processor(**inputs, retention_ratio=ratio)
    # What tells the model that all tokens are asked for; the stock one takes it, too.
    assert np.array_equal(ours.pop("image_sizes_videos"), np.full((3, 8, 2), 56))
    assert_same_inputs(ours, STOCK(**inputs))


def test_compression_changes_the_number_of_placeholders_and_nothing_else(processor):
    inputs = {
        "text": "Say: <video> or <image>?",
        "images": [Image.fromarray(frames()[0])],
        "videos": [frames()],
        "return_tensors": "pt",
    }
    compressed, full = processor(**inputs), STOCK(**inputs)
    others = [one["input_ids"][one["input_ids"] != processor.video_token_id] for one in (compressed, full)]
    assert torch.equal(*others)
    assert runs_of_placeholders(processor, compressed["input_ids"][0]) == [14]
    assert compressed["attention_mask"].shape == compressed["input_ids"].shape
    for name in ("pixel_values_videos", "pixel_values", "image_sizes", "batch_num_images"):
        assert torch.equal(compressed[name], full[name])


# --- Forms of a video -----------------------------------------------------------------------------


def pictures(video):
    return [Image.fromarray(frame) for frame in video]


def tensor(video):
    return torch.from_numpy(video).permute(0, 3, 1, 2)


# Each with the number of frames of its videos.
FORMS = {
    "an array": (lambda: frames(), [8]),
    "a list of an array": (lambda: [frames()], [8]),
    "a tensor, channels first": (lambda: tensor(frames()), [8]),
    "a list of tensors": (lambda: [tensor(frames()), tensor(frames(seed=1))], [8, 8]),
    "a list of pictures": (lambda: pictures(frames()), [8]),
    "a tuple of pictures": (lambda: tuple(pictures(frames())), [8]),
    "lists of pictures": (lambda: [pictures(frames()), pictures(frames(seed=1))], [8, 8]),
    "a list of frames": (lambda: list(frames()), [8]),
    "an array of videos": (lambda: np.stack([frames(), frames(seed=1)]), [8, 8]),
    "videos of each prompt": (lambda: [[frames()], [frames(seed=1)]], [8, 8]),
    "one frame": (lambda: frames()[0], [1]),
    "a video of one frame": (lambda: [frames(1)], [1]),
    "grey frames": (lambda: [frames()[..., :1]], [8]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_decoded_video_is_taken_as_by_stock(processor, form):
    make, lengths = FORMS[form]
    text = "<video>" * len(lengths)
    inputs = processor(text=text, videos=make(), return_tensors="pt", retention_ratio=0.3)
    expected = STOCK(text=text, videos=make(), return_tensors="pt")
    assert torch.equal(inputs["pixel_values_videos"], expected["pixel_values_videos"])
    assert placeholders(processor, inputs) == [sum(expected_count(length, 0.3) + 1 for length in lengths)]


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")  # transformers' way to open pictures
@pytest.mark.parametrize("nested", [True, False], ids=["processor", "chat template"])
def test_a_video_may_be_a_list_of_picture_files(processor, picture_files, nested):
    def call(of, **options):
        if nested:
            return of(text="<video>a", videos=[[picture_files]], return_tensors="pt", **options)
        content = [{"type": "video", "video": picture_files}, {"type": "text", "text": "a"}]
        return of.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=options,
        )

    inputs, expected = call(processor, retention_ratio=0.5), call(STOCK)
    assert expected["pixel_values_videos"].shape[:2] == (1, 3)
    assert torch.equal(inputs["pixel_values_videos"], expected["pixel_values_videos"])
    assert placeholders(processor, inputs) == [24 + 1]


SAMPLINGS = {
    "num_frames alone": {"num_frames": 4},
    "num_frames": {"num_frames": 4, "do_sample_frames": True},
    "num_frames of a longer video": {"num_frames": 40, "do_sample_frames": True},
    "fps without metadata": {"fps": 2, "do_sample_frames": True},
    "fps": {
        "fps": 2,
        "do_sample_frames": True,
        "video_metadata": [{"total_num_frames": 8, "fps": 4.0}],
        "return_metadata": True,
    },
    "fps and num_frames": {"fps": 2, "num_frames": 4, "do_sample_frames": True},
    "every frame": {"do_sample_frames": True},
    "none sampled": {"do_sample_frames": False, "num_frames": 4},
    "metadata": {
        "video_metadata": [VideoMetadata(total_num_frames=8, fps=4.0, frames_indices=list(range(8)))],
        "return_metadata": True,
    },
}


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(
    "make", [frames, lambda: tensor(frames()), lambda: pictures(frames())], ids=["array", "tensor", "pictures"]
)
def test_decoded_frames_are_sampled_as_by_stock(processor, sampling, make):
    def call(of, **options):
        options |= copy.deepcopy(SAMPLINGS[sampling])
        return of(text="<video>", videos=[make()], return_tensors="pt", **options)

    inputs, error = outcome(lambda: call(processor, retention_ratio=0.5))
    expected, expected_error = outcome(lambda: call(STOCK))
    assert error == expected_error
    if expected is not None:
        assert torch.equal(inputs["pixel_values_videos"], expected["pixel_values_videos"])
        num_frames = expected["pixel_values_videos"].shape[1]
        assert placeholders(processor, inputs) == [expected_count(num_frames, 0.5) + 1]
        assert str(inputs.get("video_metadata")) == str(expected.get("video_metadata"))


def test_decoded_frames_in_a_conversation_are_sampled_as_by_stock(processor):
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    sampled = processor.apply_chat_template(CONVERSATION, **options, processor_kwargs={"num_frames": 4})
    expected = STOCK.apply_chat_template(CONVERSATION, **options, processor_kwargs={"num_frames": 4})
    assert torch.equal(sampled["pixel_values_videos"], expected["pixel_values_videos"])
    assert placeholders(processor, sampled) == [expected_count(4, 0.1) + 1]


# --- Several videos -------------------------------------------------------------------------------


def test_videos_of_one_prompt_each_have_their_own_run(processor):
    videos = [frames(8), frames(3), frames(40)]
    inputs = processor(text="<video>a<video>b<video>", videos=videos, retention_ratio=0.5)
    row = torch.tensor(inputs["input_ids"][0])
    assert runs_of_placeholders(processor, row) == [64 + 1, 24 + 1, 320 + 1]
    assert [len(video) for video in inputs["pixel_values_videos"]] == [8, 3, 40]


def test_videos_back_to_back_have_the_sum_of_their_placeholders(processor):
    inputs = processor(text="<video><video>", videos=[frames(8), frames(3)], retention_ratio=0.5)
    assert runs_of_placeholders(processor, torch.tensor(inputs["input_ids"][0])) == [64 + 1 + 24 + 1]


def test_a_batch_of_prompts(processor):
    inputs = processor(
        text=["<video>a", "text alone", "<video><video>bc"],
        videos=[frames(seed=seed) for seed in range(3)],
        padding=True,
        return_tensors="pt",
    )
    assert placeholders(processor, inputs) == [14, 0, 28]
    assert inputs["pixel_values_videos"].shape == (3, 8, 3, 56, 56)
    assert inputs["attention_mask"].sum(1).tolist() == [14 + 1, len("text alone"), 28 + 2]
    assert inputs["attention_mask"][:, -1].tolist() == [1, 1, 1]


def test_the_order_of_videos_is_that_of_the_prompts(processor):
    lengths = [5, 9, 2, 12]
    texts = ["<video>a<video>", "<video>", "b<video>"]
    inputs = processor(text=texts, videos=[frames(length) for length in lengths], retention_ratio=0.25)
    counts = [expected_count(length, 0.25) + 1 for length in lengths]
    runs = [runs_of_placeholders(processor, torch.tensor(row)) for row in inputs["input_ids"]]
    assert runs == [counts[:2], counts[2:3], counts[3:]]


# --- Saving and loading ---------------------------------------------------------------------------


def test_a_saved_processor_loads_again(tmp_path):
    processor = random_processor(AOTLlavaOnevisionProcessor, CONFIG)
    processor.retention_ratio, processor.num_clips, processor.num_frames = 0.2, 4, 16
    processor.save_pretrained(tmp_path)
    loaded = AOTLlavaOnevisionProcessor.from_pretrained(tmp_path)
    assert (loaded.retention_ratio, loaded.num_clips, loaded.num_frames) == (0.2, 4, 16)
    assert loaded.chat_template == processor.chat_template
    inputs = {"text": "<video>a", "videos": [frames()], "return_tensors": "pt"}
    assert_same_inputs(loaded(**inputs), processor(**inputs))

    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/processor_config.json").read_text() == (tmp_path / "processor_config.json").read_text()


def test_from_pretrained_takes_the_settings_as_keywords(tmp_path):
    random_processor(AOTLlavaOnevisionProcessor, CONFIG).save_pretrained(tmp_path)
    loaded = AOTLlavaOnevisionProcessor.from_pretrained(tmp_path, retention_ratio=0.2, num_clips=4, num_frames=16)
    assert (loaded.retention_ratio, loaded.num_clips, loaded.num_frames) == (0.2, 4, 16)
    assert AOTLlavaOnevisionProcessor.from_pretrained(tmp_path).retention_ratio == 0.1


SETTINGS = {"retention_ratio": 0.2, "num_clips": 4, "num_frames": 16}


@pytest.mark.parametrize("load", [AOTLlavaOnevisionProcessor.from_pretrained, None], ids=["class", "AutoProcessor"])
def test_the_settings_reach_the_processor_alone(load, tmp_path):
    random_processor(AOTLlavaOnevisionProcessor, CONFIG).save_pretrained(tmp_path / "saved")
    load = load or functools.partial(AutoProcessor.from_pretrained, trust_remote_code=True)
    loaded, plain = load(tmp_path / "saved", **SETTINGS), load(tmp_path / "saved")
    assert {name: getattr(loaded, name) for name in SETTINGS} == SETTINGS
    assert not SETTINGS.keys() & loaded.tokenizer.init_kwargs.keys()
    assert loaded.video_processor.to_dict() == plain.video_processor.to_dict()
    loaded.save_pretrained(tmp_path / "again")
    for name in ("saved", "again"):
        assert not SETTINGS.keys() & json.loads((tmp_path / name / "tokenizer_config.json").read_text()).keys()
    loaded.retention_ratio = 0.5
    assert placeholders(loaded, loaded(text="<video>", videos=[frames()])) == [64 + 1]


def test_a_folder_with_settings_among_the_tokenizers_loads_right(tmp_path):
    """Earlier versions wrote them there, and obeyed them rather than the processor's own."""
    random_processor(AOTLlavaOnevisionProcessor, CONFIG).save_pretrained(tmp_path)
    tokenizer_file, processor_file = tmp_path / "tokenizer_config.json", tmp_path / "processor_config.json"
    tokenizer_file.write_text(json.dumps({**json.loads(tokenizer_file.read_text()), **SETTINGS}))
    processor_file.write_text(json.dumps({**json.loads(processor_file.read_text()), "retention_ratio": 0.5}))
    loaded = AOTLlavaOnevisionProcessor.from_pretrained(tmp_path)
    assert (loaded.retention_ratio, loaded.num_clips, loaded.num_frames) == (0.5, 8, 32)
    assert placeholders(loaded, loaded(text="<video>", videos=[frames()])) == [64 + 1]
    loaded.save_pretrained(tmp_path)
    assert not SETTINGS.keys() & json.loads(tokenizer_file.read_text()).keys()


def test_numpys_numbers_are_settings(tmp_path):
    processor = random_processor(AOTLlavaOnevisionProcessor, CONFIG)
    processor.retention_ratio, processor.num_clips, processor.num_frames = np.float64(0.5), np.int64(4), np.int32(16)
    assert placeholders(processor, processor(text="<video>", videos=[frames()])) == [64 + 1]
    processor.save_pretrained(tmp_path)
    loaded = AOTLlavaOnevisionProcessor.from_pretrained(tmp_path)
    assert (loaded.retention_ratio, loaded.num_clips, loaded.num_frames) == (0.5, 4, 16)


def test_a_wrong_value_is_shown_in_one_line(processor):
    with pytest.raises(ValueError, match="`retention_ratio` is") as error:
        processor(text="<video>", videos=[frames()], retention_ratio=np.zeros((100, 100)))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def in_files_of_2024(folder):
    """Splits a processor's files as published checkpoints have them."""
    saved = json.loads((folder / "processor_config.json").read_text())
    parts = {name: saved.pop(name) for name in ("image_processor", "video_processor")}
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    contents = {
        "processor_config.json": saved,
        "preprocessor_config.json": parts["image_processor"],
        "video_preprocessor_config.json": parts["video_processor"],
        "chat_template.json": {"chat_template": template},
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize("split", [lambda folder: None, in_files_of_2024], ids=["one file", "files of 2024"])
def test_a_stock_folder_loads(stock_folder, split):
    split(stock_folder)
    stock = LlavaOnevisionProcessor.from_pretrained(stock_folder)
    processor = AOTLlavaOnevisionProcessor.from_pretrained(stock_folder, retention_ratio=0.2)
    assert (processor.retention_ratio, processor.num_clips, processor.num_frames) == (0.2, 8, 32)
    inputs = {"videos": [frames()], "images": [Image.fromarray(frames()[0])], "return_tensors": "pt"}
    inputs["text"] = "<video>a<image>"
    ours = processor(**inputs, retention_ratio=1)
    del ours["image_sizes_videos"]
    assert_same_inputs(ours, stock(**inputs))
    assert placeholders(processor, processor(**inputs)) == [26 + 1]
    assert processor.apply_chat_template(CONVERSATION) == stock.apply_chat_template(CONVERSATION)


def test_the_stock_class_loads_a_saved_processor(tmp_path):
    random_processor(AOTLlavaOnevisionProcessor, CONFIG).save_pretrained(tmp_path)
    stock = LlavaOnevisionProcessor.from_pretrained(tmp_path)
    inputs = {"text": "<video>", "videos": [frames()], "return_tensors": "pt"}
    assert_same_inputs(stock(**inputs), STOCK(**inputs))


# --- Nothing is left behind -----------------------------------------------------------------------


def test_a_call_leaves_its_arguments_alone(processor):
    video = frames()
    conversation = [{"role": "user", "content": [{"type": "video", "video": video}, {"type": "text", "text": "a"}]}]
    arguments = {
        "text": ["<video>a"],
        "videos": [video],
        "videos_kwargs": {"retention_ratio": 0.2, "num_frames": 4, "do_sample_frames": True},
        "text_kwargs": {"padding": True},
    }
    before = copy.deepcopy([arguments, conversation])
    processor(**arguments)
    processor.apply_chat_template(conversation, tokenize=True, return_dict=True)
    assert str([arguments, conversation]) == str(before)
    assert np.array_equal(video, frames())


def test_a_ratio_for_one_call_is_forgotten_after_it(processor):
    inputs = {"text": "<video><image>", "videos": [frames()], "images": [frames()[0]], "return_tensors": "pt"}
    before, stock_before = processor(**inputs), STOCK(**inputs)
    processor(**inputs, retention_ratio=0.7)
    processor(**inputs, videos_kwargs={"retention_ratio": 0.8})
    outcome(lambda: processor(**inputs, retention_ratio=-1))
    assert_same_inputs(processor(**inputs), before)
    assert_same_inputs(STOCK(**inputs), stock_before)


@pytest.mark.parametrize("ratio", [0.1, 0.25, 1.0])
def test_vllm_is_told_how_many_tokens_to_keep(processor, ratio):
    ask = {"text": "<video> or <video>?", "videos": [frames(6), frames(6)], "return_tensors": "pt"}
    inputs = processor(**ask, retention_ratio=ratio, return_text_replacement_offsets=True)
    assert inputs["kept_video_tokens"].tolist() == [expected_count(6, ratio)] * 2
    assert "kept_video_tokens" in processor.video_processor.model_input_names
    assert "kept_video_tokens" not in processor(**ask, retention_ratio=ratio)
    with_offsets = processor(**ask, return_text_replacement_offsets=True, return_offsets_mapping=True)
    assert "kept_video_tokens" not in with_offsets  # as for assistant masks, whose inputs go to `forward`


@pytest.mark.parametrize("ratio", [0.1, 1.0])
def test_videos_of_different_lengths(processor, ratio):
    """vLLM takes a list of them; for `generate` they are padded, and their lengths told."""
    ask = {"text": "<video> or <video>?", "videos": [frames(6), frames(9)], "return_tensors": "pt"}
    listed = processor(**ask, retention_ratio=ratio, return_text_replacement_offsets=True)
    assert [len(video) for video in listed["pixel_values_videos"]] == [6, 9]
    assert listed["kept_video_tokens"].tolist() == [expected_count(6, ratio), expected_count(9, ratio)]
    padded = processor(**ask, retention_ratio=ratio)
    assert padded["num_video_frames"].tolist() == [6, 9]
    for alone, video in zip(listed["pixel_values_videos"], padded["pixel_values_videos"]):
        assert torch.equal(video[: len(alone)], alone)
    assert padded["image_sizes_videos"].shape == (2, 9, 2)
    assert "num_video_frames" not in processor(**{**ask, "videos": [frames(6), frames(6)]})
