"""From a task's texts and visuals to a prompt; needs no lmms-eval."""

import pytest
from PIL import Image
from transformers import AutoProcessor

from aot_llava_cli.mini import MINI_CHECKPOINT
from aot_llava_lmms_eval.conversations import as_checkpoint, as_qwen_1_5, of_context, of_messages

PICTURE = Image.new("RGB", (8, 8))
VIDEO, IMAGE = {"type": "video"}, {"type": "image"}


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(MINI_CHECKPOINT)


def text(words):
    return {"type": "text", "text": words}


def content_of(context, visuals):
    conversation = of_context(context, visuals)
    (message,) = conversation.messages
    assert message["role"] == "user"
    return message["content"], conversation.images, conversation.videos


@pytest.mark.parametrize("visuals", ["clips/1.webm", ["clips/1.webm"], ("clips/1.webm",), [{"url": "clips/1.webm"}]])
def test_one_video_however_a_task_gives_it(visuals):
    assert content_of("What?", visuals) == ([VIDEO, text("What?")], [], ["clips/1.webm"])


@pytest.mark.parametrize("visuals", [None, []])
def test_text_alone(visuals):
    assert content_of("Is this <image> a word?", visuals) == ([text("Is this <image> a word?")], [], [])


@pytest.mark.parametrize("picture", [PICTURE, "a/Picture.JPG"])
def test_picture(picture):
    assert content_of("What?", [picture]) == ([IMAGE, text("What?")], [picture], [])


def test_visuals_stand_where_the_text_says_so():
    content, images, videos = content_of("In <image> or\n<image>?", [PICTURE, "b.mp4"])
    assert content == [text("In "), IMAGE, text(" or\n"), VIDEO, text("?")]
    assert (images, videos) == ([PICTURE], ["b.mp4"])


def test_messages():
    conversation = of_messages(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "video", "url": "a.mp4", "start_time": None}, text("What?")]},
        ]
    )
    assert conversation.videos == ["a.mp4"]
    assert [message["content"] for message in conversation.messages] == [[text("Be brief.")], [VIDEO, text("What?")]]


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ({"type": "audio", "url": "a.wav"}, "a message with audio, but the model reads text, pictures and videos"),
        ({"type": "video", "url": "a.mp4", "start_time": 3.0}, r"a part of a\.mp4 \(\{'start_time': 3\.0\}\)"),
    ],
)
def test_what_the_model_does_not_read(part, complaint):
    with pytest.raises(ValueError, match=complaint):
        of_messages([{"role": "user", "content": [part]}])


def test_other_number_of_placeholders_than_visuals():
    with pytest.raises(ValueError, match="says <image> 2 times, but the task gives 1 pictures and videos"):
        of_context("<image> and <image>", ["a.mp4"])


def test_checkpoints_own_template(processor):
    expected = processor.apply_chat_template(
        [{"role": "user", "content": [VIDEO, text("What?")]}], add_generation_prompt=True
    )
    assert as_checkpoint(processor, of_context("What?", "a.mp4")) == expected
    assert "<video>" in expected


# Written out by hand from LLaVA-NeXT's conversation.py, `conv_qwen`, and lmms-eval's way to put visuals before a text.
@pytest.mark.parametrize(
    ("visuals", "question", "expected"),
    [
        ("a.mp4", "What?", "<video>\nWhat?"),
        (None, "What?", "What?"),
        ([PICTURE, PICTURE], "What?", "<image> <image>\nWhat?"),
        ([PICTURE], "In <image>?", "In <image>?"),
    ],
)
def test_qwen_1_5(visuals, question, expected, processor):
    assert as_qwen_1_5(processor, of_context(question, visuals)) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{expected}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_qwen_1_5_with_turns_and_a_system_message_of_its_own(processor):
    messages = [("system", "Be brief."), ("user", "One?"), ("assistant", "Yes."), ("user", "Two?")]
    conversation = of_messages([{"role": role, "content": [text(words)]} for role, words in messages])
    assert as_qwen_1_5(processor, conversation) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n"
        "<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\n"
    )
