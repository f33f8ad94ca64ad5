"""From a video file to the model's inputs by `apply_chat_template`, with nothing installed but pip packages.

Each frame of a clip shows its index in binary, as bars of black and white: the pixels tell which frames were read.
"""

import copy
import logging
import re
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import transformers
from random_checkpoint import random_model, random_processor

from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor

SMALL = {"vision_config": {"image_size": 56, "patch_size": 8}, "local_window_size": 3}
FRAMES_PER_SECOND = 10
NUM_BITS = 6


@pytest.fixture(scope="module")
def model():
    return random_model(AOTLlavaOnevisionForConditionalGeneration, **SMALL)


@pytest.fixture(scope="module")
def processor(model):
    return random_processor(AOTLlavaOnevisionProcessor, model.config)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return {
        "long": draw_clip(folder / "long.mp4", 50),
        "tall": draw_clip(folder / "tall.mp4", 40, width=48, height=64),
        "short": draw_clip(folder / "short.mp4", 5),
        "one frame": draw_clip(folder / "one.mp4", 1),
        "matroska": draw_clip(folder / "a name with spaces, größer.mkv", 50),
    }


def draw_clip(path, num_frames, width=96, height=48):
    bar = np.ones((height, width // NUM_BITS, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FRAMES_PER_SECOND)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", 12
        for index in range(num_frames):
            picture = np.concatenate([bar * (255 if index >> bit & 1 else 0) for bit in range(NUM_BITS)], axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def frames_read(video):
    """Which frames of a clip these pixels (F, 3, height, width) are."""
    brightness = video.mean((1, 2))
    centers = [int((bit + 0.5) * video.shape[-1] / NUM_BITS) for bit in range(NUM_BITS)]
    return [sum((bar > 0).item() << bit for bit, bar in enumerate(frame)) for frame in brightness[:, centers]]


def uniform(total, num_frames):
    return np.linspace(0, total - 1, num_frames, dtype=int).tolist()


def ask(*paths, key="path", text="What?"):
    videos = [{"type": "video", key: path} for path in paths]
    return [{"role": "user", "content": [*videos, {"type": "text", "text": text}]}]


def read(processor, conversation, return_tensors="pt", **options):
    return processor.apply_chat_template(
        conversation,
        tokenize=True,
        return_dict=True,
        return_tensors=return_tensors,
        add_generation_prompt=True,
        processor_kwargs=options,
    )


def num_placeholders(processor, inputs):
    return [int((torch.as_tensor(row) == processor.video_token_id).sum()) for row in inputs["input_ids"]]


# --- Which frames ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clip", "options", "expected"),
    [
        ("long", {}, uniform(50, 32)),
        ("tall", {}, uniform(40, 32)),
        ("matroska", {}, uniform(50, 32)),
        ("short", {}, [0, 1, 2, 3, 4]),
        ("one frame", {}, [0]),
        ("long", {"num_frames": 8}, uniform(50, 8)),
        ("long", {"num_frames": 8, "do_sample_frames": True}, uniform(50, 8)),
        ("long", {"num_frames": 2}, [0, 49]),
        ("long", {"num_frames": 1}, [0]),
        ("long", {"num_frames": 50}, list(range(50))),
        ("short", {"num_frames": 8}, [0, 1, 2, 3, 4]),
        ("long", {"videos_kwargs": {"num_frames": 8}}, uniform(50, 8)),
        ("long", {"fps": 2}, uniform(50, 10)),
        ("long", {"fps": 0.01}, [0]),
        ("short", {"fps": 100}, [0, 1, 2, 3, 4]),
        ("long", {"do_sample_frames": False}, list(range(50))),
    ],
    ids=lambda value: str(value) if isinstance(value, (str, dict)) else "",
)
def test_the_frames_that_are_read(processor, clips, clip, options, expected):
    inputs = read(processor, ask(clips[clip]), **options)
    assert inputs.keys() == {"input_ids", "attention_mask", "pixel_values_videos"}
    assert inputs["pixel_values_videos"].shape == (1, len(expected), 3, 56, 56)
    assert frames_read(inputs["pixel_values_videos"][0]) == expected
    num_tokens = max(min(8, max(1, len(expected) // 2)), int(0.1 * len(expected) * 16 + 0.5))
    assert num_placeholders(processor, inputs) == [num_tokens + 1]


def test_the_number_of_frames_is_the_processors(clips, model, tmp_path):
    random_processor(AOTLlavaOnevisionProcessor, model.config).save_pretrained(tmp_path)
    processor = AOTLlavaOnevisionProcessor.from_pretrained(tmp_path, num_frames=6)
    assert frames_read(read(processor, ask(clips["long"]))["pixel_values_videos"][0]) == uniform(50, 6)


@pytest.mark.parametrize("key", ["path", "url", "video"])
def test_a_file_may_be_given_under_each_of_the_templates_keys(processor, clips, key):
    inputs = read(processor, ask(clips["short"], key=key))
    assert frames_read(inputs["pixel_values_videos"][0]) == [0, 1, 2, 3, 4]


def test_files_can_be_given_to_the_processor_itself(processor, clips):
    expected = read(processor, ask(clips["long"]), num_frames=4)["pixel_values_videos"]
    for videos in (clips["long"], [clips["long"]], [[clips["long"]]]):
        inputs = processor(text="<video>", videos=videos, num_frames=4, return_tensors="pt")
        assert torch.equal(inputs["pixel_values_videos"], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 8, "fps": 2}, "(?s)num_frames.*fps"),
        ({"num_frames": 0}, "num_frames"),
        ({"num_frames": -1}, "num_frames"),
        ({"fps": 0}, "fps"),
        ({"fps": -2.0}, "fps"),
    ],
    ids=str,
)
def test_a_sampling_that_makes_no_sense_is_refused(processor, clips, options, message):
    with pytest.raises(ValueError, match=message):
        read(processor, ask(clips["long"]), **options)


# --- Prompts --------------------------------------------------------------------------------------


def test_the_prompt_is_the_templates_with_its_placeholders_expanded(processor, clips):
    inputs = read(processor, ask(clips["long"]), num_frames=8)
    text = processor.apply_chat_template(ask(clips["long"]), add_generation_prompt=True)
    assert text == "<|im_start|>user <video>\nWhat?<|im_end|><|im_start|>assistant\n"
    assert processor.decode(inputs["input_ids"][0]) == text.replace("<video>", "<video>" * (13 + 1))


@pytest.mark.parametrize("ratio", [0.05, 0.5, 1.0])
def test_the_ratio_of_the_call_counts_for_files_too(processor, clips, ratio):
    inputs = read(processor, ask(clips["long"]), num_frames=8, retention_ratio=ratio)
    assert num_placeholders(processor, inputs) == [int(ratio * 8 * 16 + 0.5) + 1]


def test_two_videos_in_one_conversation(processor, clips):
    inputs = read(processor, ask(clips["tall"], clips["long"]))
    assert [frames_read(video) for video in inputs["pixel_values_videos"]] == [uniform(40, 32), uniform(50, 32)]
    assert num_placeholders(processor, inputs) == [2 * (51 + 1)]


def test_videos_in_two_turns_of_one_conversation(processor, clips):
    answer = [{"role": "assistant", "content": [{"type": "text", "text": "Bars."}]}]
    conversation = ask(clips["long"]) + answer + ask(clips["tall"], text="And now?")
    inputs = read(processor, conversation, num_frames=4)
    assert [frames_read(video) for video in inputs["pixel_values_videos"]] == [uniform(50, 4), uniform(40, 4)]
    assert processor.decode(inputs["input_ids"][0]).count("<video>" * 7) == 2


def test_a_batch_of_conversations(processor, clips):
    text_alone = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    batch = [ask(clips["long"]), text_alone, ask(clips["tall"], clips["long"], text="A longer question?")]
    inputs = read(processor, batch, num_frames=4, padding=True)
    assert [frames_read(video) for video in inputs["pixel_values_videos"]] == [
        uniform(50, 4),
        uniform(40, 4),
        uniform(50, 4),
    ]
    assert num_placeholders(processor, inputs) == [7, 0, 14]
    for row, conversation in zip(range(3), batch, strict=True):
        alone = read(processor, conversation, num_frames=4)["input_ids"][0]
        kept = inputs["attention_mask"][row].bool()
        assert torch.equal(inputs["input_ids"][row][kept], alone)
        assert kept[-len(alone) :].all()


def test_clips_of_different_lengths_each_keep_their_share(processor, clips):
    batch = [ask(clips["long"]), ask(clips["short"])]
    inputs = read(processor, batch, return_tensors=None)
    assert [len(video) for video in inputs["pixel_values_videos"]] == [32, 5]
    assert num_placeholders(processor, inputs) == [51 + 1, 8 + 1]


def test_metadata_tells_what_was_read(processor, clips):
    conversation = ask(clips["long"], clips["tall"])
    inputs = read(processor, conversation, num_frames=4, return_metadata=True)
    long, tall = inputs["video_metadata"]
    assert list(long.frames_indices) == uniform(50, 4)
    assert (long.total_num_frames, long.fps, long.width, long.height) == (50, FRAMES_PER_SECOND, 96, 48)
    assert long.duration == pytest.approx(5.0)
    assert (tall.total_num_frames, tall.width, tall.height) == (40, 48, 64)
    assert "video_metadata" not in read(processor, conversation, num_frames=4)


def test_the_conversation_is_left_as_it_was(processor, clips):
    conversation = ask(clips["long"])
    before = copy.deepcopy(conversation)
    read(processor, conversation, num_frames=4)
    assert conversation == before


def test_the_text_alone_needs_no_file(processor):
    assert "<video>" in processor.apply_chat_template(ask("no such clip.mp4"), tokenize=False)


@torch.no_grad()
def test_the_model_answers_about_the_file(processor, model, clips):
    inputs = read(processor, ask(clips["long"]))
    sequences = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4)
    prompt_length = inputs["input_ids"].shape[1]
    assert sequences.shape == (1, prompt_length + 4)
    assert torch.equal(sequences[:, :prompt_length], inputs["input_ids"])


# --- Silence and errors ---------------------------------------------------------------------------


def test_reading_a_video_warns_of_nothing(processor, clips, caplog, monkeypatch):
    transformers.logging.get_verbosity()  # configures the logger, once
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    transformers.utils.logging.warning_once.cache_clear()
    caplog.set_level(logging.WARNING, "transformers")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read(processor, ask(clips["long"]))
        read(processor, [ask(clips["long"]), ask(clips["tall"])], fps=2, padding=True, return_tensors=None)
        read(processor, ask(clips["short"]), do_sample_frames=False, return_metadata=True)
    assert caplog.messages == []
    assert [str(warning.message) for warning in caught] == []


def spoilt(kind, folder, clip):
    path = folder / f"{kind}.mp4"
    whole = Path(clip).read_bytes()
    if kind == "directory":
        path.mkdir()
    elif kind != "missing":
        contents = {
            "empty": b"",
            "text": b"This is no video. " * 100,
            "noise": np.random.default_rng(0).bytes(5000),
            "truncated": whole[: len(whole) // 2],
            "picture": bytes.fromhex("89504e470d0a1a0a") + bytes(100),
        }
        path.write_bytes(contents[kind])
    return str(path)


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "noise", "truncated", "picture", "directory"])
@pytest.mark.parametrize("is_second", [False, True], ids=["alone", "behind a good one"])
def test_a_file_that_is_no_video_gives_an_error_that_names_it(processor, clips, tmp_path, kind, is_second):
    path = spoilt(kind, tmp_path, clips["long"])
    expected = FileNotFoundError if kind == "missing" else ValueError
    paths = [clips["long"], path] if is_second else [path]
    with pytest.raises(expected, match=re.escape(path)) as error:
        read(processor, ask(*paths))
    assert "torchcodec" not in str(error.value)


def test_files_and_decoded_frames_in_one_call_are_refused_clearly(processor, clips):
    conversation = ask(clips["long"])
    frames = np.zeros((4, 48, 64, 3), dtype=np.uint8)
    conversation[0]["content"].insert(0, {"type": "video", "video": frames})
    with pytest.raises(ValueError, match=r"files.*decoded frames"):
        read(processor, conversation)
