"""Video files on the Qwen-VL family: the project's reader, and the frames, sizes and times of the stock processor."""

import io

import numpy as np
import pytest
import torch
from numbered_clips import draw_frame, write_clip
from PIL import Image
from qwen_vl_hosts import QUESTION

from modeling_aot_llava.encoded_video import EncodedVideo

av = pytest.importorskip("av")

RATE, SIZE = 30, (48, 32)
SAMPLED = {"do_sample_frames": True}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", num_frames=37, rate=RATE, size=SIZE)


def decoded(clip):
    """All frames, (n, height, width, 3), as a loop over PyAV's has them."""
    with av.open(str(clip)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def stock_inputs(pair, frames, rate=RATE, **options):
    """What the stock processor makes of all frames, of which it takes those that it would take of the file."""
    metadata = [{"total_num_frames": len(frames), "fps": rate, "frames_indices": np.arange(len(frames))}]
    return call(pair.stock_processor, frames, video_metadata=metadata, **options)


def call(processor, video, **options):
    return processor(text=[QUESTION], videos=[video], return_tensors="pt", return_metadata=True, **options)


def assert_same(ours, stock):
    metadata = [inputs.pop("video_metadata")[0] for inputs in (ours, stock)]
    ours.pop("kept_video_tokens")
    assert ours.keys() == stock.keys()
    for name, value in stock.items():
        assert torch.equal(torch.as_tensor(ours[name]), torch.as_tensor(value)), name
    assert metadata[0].fps == metadata[1].fps
    assert metadata[0].total_num_frames == metadata[1].total_num_frames
    assert list(metadata[0].frames_indices) == list(metadata[1].frames_indices)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {**SAMPLED, "fps": 5.0},
        {**SAMPLED, "num_frames": 8, "fps": None},
        {**SAMPLED, "fps": 8, "size": {"shortest_edge": 64, "longest_edge": 3000}},
    ],
)
def test_a_file_gives_what_the_stock_processor_makes_of_its_frames(pair, clip, options):
    assert_same(call(pair.processor, clip, retention_ratio=1, **options), stock_inputs(pair, decoded(clip), **options))


def test_a_host_samples_at_its_own_rate_or_asks_for_one(pair, clip):
    if pair.stock_processor.video_processor.fps is None:
        with pytest.raises(ValueError, match="pass `num_frames` or `fps`"):
            call(pair.processor, clip, **SAMPLED)
    else:
        stock = stock_inputs(pair, decoded(clip), **SAMPLED)
        assert_same(call(pair.processor, clip, retention_ratio=1, **SAMPLED), stock)


@pytest.mark.parametrize("form", [str, lambda path: path, lambda path: path.read_bytes(), lambda path: path.as_uri()])
def test_every_form_of_a_video_is_the_same_video(pair, clip, form):
    options = {**SAMPLED, "fps": 5.0, "retention_ratio": 0.5}
    frames = decoded(clip)
    stock, ours = stock_inputs(pair, frames, **SAMPLED, fps=5.0), call(pair.processor, form(clip), **options)
    assert torch.equal(ours["pixel_values_videos"], stock["pixel_values_videos"])
    assert ours["input_ids"].shape[1] < stock["input_ids"].shape[1]


def test_a_conversation_names_files_and_the_model_answers(pair, clip):
    content = [{"type": "video", "path": str(clip)}, {"type": "text", "text": "What?"}]
    inputs = pair.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"fps": 5.0},
    )
    expected = call(pair.processor, io.BytesIO(clip.read_bytes()), **SAMPLED, fps=5.0)
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    assert pair.ours.generate(**inputs, max_new_tokens=2).shape[1] == inputs["input_ids"].shape[1] + 2


def test_pictures_in_a_folder_have_the_times_that_the_host_takes_for_granted(pair, tmp_path):
    frames = np.stack([draw_frame(number, *SIZE) for number in range(5)])
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    assert_same(call(pair.processor, tmp_path, retention_ratio=1), stock_inputs(pair, frames, rate=None))


def test_more_frames_than_there_are_come_as_often_as_the_host_says(pair, clip):
    options = {**SAMPLED, "num_frames": 60, "fps": None}
    try:
        stock = stock_inputs(pair, decoded(clip), **options)
    except ValueError as error:
        with pytest.raises(ValueError, match=str(error)[:40]):
            call(pair.processor, clip, **options)
        return
    assert_same(call(pair.processor, clip, retention_ratio=1, **options), stock)


def test_limits_of_the_processor_and_of_the_call_are_kept(pair, clip):
    with pytest.raises(ValueError, match="max_pixels_per_frame"):
        call(pair.processor, clip, video_limits={"max_pixels_per_frame": 100})
    with pytest.raises(ValueError, match="video_limits has no 'max_size'"):
        call(pair.processor, clip, video_limits={"max_size": 100})
    with pytest.raises(ValueError, match="which is max_pixels"):
        call(pair.processor, clip, video_limits={"max_pixels": 10 * SIZE[0] * SIZE[1]})


def test_what_cannot_be_read_is_refused_in_one_sentence(pair, clip, tmp_path):
    frames = decoded(clip)
    with pytest.raises(ValueError, match="Some videos of the call are files"):
        pair.processor(text=[QUESTION] * 2, videos=[str(clip), frames], return_tensors="pt")
    (tmp_path / "words.mp4").write_text("words")
    with pytest.raises(ValueError, match="it is text"):
        call(pair.processor, tmp_path / "words.mp4")
    encoded = EncodedVideo(torch.zeros(4, 32), 2, 0.5, {}, "")
    encoded.save(tmp_path / "clip.aot.safetensors")
    for video in (encoded, tmp_path / "clip.aot.safetensors"):
        with pytest.raises(
            ValueError, match="encoded video of LLaVA-OneVision or LLaVA-Video, but here one of the Qwen"
        ):
            call(pair.processor, video)
