"""A video that is encoded once and asked often: its answers are those of the video itself, bit for bit."""

import copy
import json

import pytest
import torch
from random_checkpoint import random_processor
from safetensors import safe_open
from safetensors.torch import save_file
from small_model import VARYING
from test_generate import MODES, NEW_TOKENS, TEXT, new_text
from transformers import pipeline
from transformers.video_utils import VideoMetadata

from modeling_aot_llava import AOTLlavaOnevisionProcessor
from modeling_aot_llava.encoded_video import EncodedVideo
from modeling_aot_llava.qwen_vl_encoded_video import QwenVLEncodedVideo
from modeling_aot_llava.weights_fingerprint import fingerprint

LLAVA_VIDEO = {"mm_spatial_pool_mode": "average", "mm_newline_position": "grid"}


@pytest.fixture(scope="module")
def video_model(build_model):
    return build_model(**LLAVA_VIDEO)


@pytest.fixture
def one_and_its_processor(request, model, processor, video_model):
    if request.param == "LLaVA-OneVision":
        return model, processor
    return video_model, random_processor(AOTLlavaOnevisionProcessor, video_model.config)


BOTH = pytest.mark.parametrize("one_and_its_processor", ["LLaVA-OneVision", "LLaVA-Video"], indirect=True)


def ask(processor, *texts, videos, **options):
    return processor(text=list(texts), videos=videos, padding=True, return_tensors="pt", **options)


def encode(model, processor, video, source=None, **options):
    return model.encode_video(**ask(processor, "<video>", videos=[video], **options), source=source)


@pytest.fixture
def encoded(model, processor, make_video):
    return encode(model, processor, make_video())


@pytest.fixture
def file(encoded, tmp_path):
    encoded.save(tmp_path / "clip.aot.safetensors")
    return tmp_path / "clip.aot.safetensors"


# --- the same answers


@BOTH
@pytest.mark.parametrize("options", MODES)
def test_every_generation_mode_answers_as_from_the_video_itself(one_and_its_processor, make_video, options):
    model, processor = one_and_its_processor
    video = make_video()
    encoded = encode(model, processor, video)
    expected = new_text(model, ask(processor, TEXT, videos=[video]), **options)
    assert expected.shape[1] == NEW_TOKENS
    assert torch.equal(new_text(model, ask(processor, TEXT, videos=[encoded]), **options), expected)


@BOTH
@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0])
def test_logits_are_those_of_the_video_at_every_ratio(one_and_its_processor, make_video, tmp_path, ratio):
    model, processor = one_and_its_processor
    video, path = make_video(), tmp_path / "clip.aot.safetensors"
    encode(model, processor, video, retention_ratio=ratio).save(path)
    with torch.no_grad():
        expected = model(**ask(processor, TEXT, videos=[video], retention_ratio=ratio)).logits
        assert torch.equal(model(**ask(processor, TEXT, videos=[str(path)])).logits, expected)
        inputs = ask(processor, TEXT, videos=[path])
        states = model.model(**inputs).last_hidden_state  # without the head, too
    assert torch.equal(model.lm_head(states), expected)


@pytest.mark.parametrize("fields", VARYING.values(), ids=VARYING)
def test_a_count_that_depends_on_the_video_is_exact_in_the_prompt(model, processor, configure, make_video, fields):
    configure(**fields)
    encoded = encode(model, processor, make_video())
    inputs = ask(processor, TEXT, videos=[encoded])
    assert int((inputs["input_ids"] == processor.video_token_id).sum()) == len(encoded.tokens)
    assert torch.equal(new_text(model, inputs), new_text(model, ask(processor, TEXT, videos=[make_video()])))


def test_a_batch_mixed_with_videos_that_are_not_encoded(model, processor, make_video, make_image, vision_tower_calls):
    videos = [make_video(4, 0), make_video(4, 1), make_video(4, 2), make_video(4, 3)]
    texts = ("See <video>, what?", "<image>And <video>?", "only text", "<video><video>")
    images = [make_image()]
    expected = new_text(model, ask(processor, *texts, videos=videos, images=images))
    for places in ((0,), (1, 2), (0, 3), (0, 1, 2, 3)):
        some = [encode(model, processor, v) if place in places else v for place, v in enumerate(videos)]
        inputs = ask(processor, *texts, videos=some, images=images)
        assert ("pixel_values_videos" in inputs) == (len(places) < 4)
        assert torch.equal(new_text(model, inputs), expected)


def test_the_vision_tower_rests(model, processor, encoded, vision_tower_calls):
    before = len(vision_tower_calls)
    new_text(model, ask(processor, TEXT, "<video>Why?", videos=[encoded, encoded]))
    assert len(vision_tower_calls) == before


def test_the_loss_is_the_videos(model, processor, encoded, make_video):
    losses = []
    for video in (make_video(), encoded):
        inputs = ask(processor, TEXT, videos=[video])
        labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == processor.video_token_id, -100)
        losses.append(model(**inputs, labels=labels).loss)
    assert torch.equal(*losses)


# --- how it is handed over


@pytest.mark.parametrize("key", ["video", "path"])
def test_in_a_conversation_and_the_pipeline(model, processor, encoded, file, make_video, key):
    def conversation(video, key="video"):
        return [
            {"role": "user", "content": [{"type": "video", key: video}, {"type": "text", "text": "What?"}]},
        ]

    def read(talk):
        return processor.apply_chat_template(
            talk, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )

    talk = conversation(encoded if key == "video" else str(file), key)
    expected = new_text(model, read(conversation(make_video())))
    assert torch.equal(new_text(model, read(talk)), expected)
    answer = pipeline("any-to-any", model=model, processor=processor)(
        talk, max_new_tokens=NEW_TOKENS, return_full_text=False
    )
    assert answer[0]["generated_text"] == processor.batch_decode(expected, skip_special_tokens=True)[0]


def test_moved_pinned_loaded_and_collated(model, processor, encoded, make_video):
    inputs = ask(processor, TEXT, videos=[encoded])
    moved = copy.deepcopy(inputs).to("cpu", torch.float64)
    assert moved["encoded_video_tokens"].dtype == torch.float64
    assert moved["encoded_video_lengths"].dtype == torch.int64
    assert all(isinstance(value, torch.Tensor) for value in inputs.values())
    expected = new_text(model, ask(processor, TEXT, videos=[make_video()]))

    def collate(examples):
        return {name: torch.cat([example[name] for example in examples]) for name in examples[0]}

    loader = torch.utils.data.DataLoader([dict(inputs)] * 2, batch_size=2, collate_fn=collate)
    (batch,) = loader
    assert torch.equal(new_text(model, batch), expected.repeat(2, 1))


def test_another_dtype(encoded):
    half = encoded.to(torch.bfloat16)
    assert half.tokens.dtype == torch.bfloat16
    assert torch.equal(half.tokens, encoded.tokens.bfloat16())
    assert (half.num_frames, half.fingerprint) == (encoded.num_frames, encoded.fingerprint)
    with pytest.raises(ValueError, match="int64"):
        encoded.to(torch.int64)


# --- what it knows, and its file


def test_it_knows_frames_times_and_source(model, processor, make_video):
    metadata = VideoMetadata(total_num_frames=20, fps=10.0, frames_indices=[0, 6, 12, 19])
    inputs = ask(processor, "<video>", videos=[make_video()], video_metadata=[metadata], return_metadata=True)
    encoded = model.encode_video(**inputs, source="clip.mp4")
    assert (encoded.num_frames, encoded.frame_indices) == (4, (0, 6, 12, 19))
    assert encoded.frame_times == (0.0, 0.6, 1.2, 1.9)
    assert (encoded.source, encoded.retention_ratio) == ("clip.mp4", 0.25)
    assert encoded.fingerprint == fingerprint(model.model)
    assert encoded.config["local_window_size"] == 3
    timed = [
        ask(processor, TEXT, videos=[one], add_time_instruction=True, **more)["input_ids"]
        for one, more in ((encoded, {}), (make_video(), {"video_metadata": [metadata]}))
    ]
    assert torch.equal(*timed)


def test_without_a_prompt_the_processors_ratio_counts(model, processor, make_video, encoded):
    alone = model.encode_video(**processor(videos=[make_video()], return_tensors="pt"))
    assert torch.equal(alone.tokens, encoded.tokens)
    half = model.encode_video(**processor(videos=[make_video()], return_tensors="pt", retention_ratio=0.5))
    assert (len(half.tokens), half.retention_ratio) == (33, 0.5)


def test_the_file_holds_all_of_it_in_its_header(encoded, file):
    with safe_open(file, "pt") as opened:
        facts = json.loads(opened.metadata()["video"])
        assert list(opened.keys()) == ["tokens"]
        assert torch.equal(opened.get_tensor("tokens"), encoded.tokens)
    assert facts["fingerprint"] == encoded.fingerprint
    assert facts["config"] == encoded.config
    loaded = EncodedVideo.load(file)
    assert torch.equal(loaded.tokens, encoded.tokens)
    assert (loaded.config, loaded.num_frames, loaded.source) == (encoded.config, encoded.num_frames, encoded.source)
    encoded.save(file)  # over its like
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


def test_the_file_is_that_of_the_releases_before(encoded, file, tmp_path):
    """There was one kind of it, with these names in this order."""
    names = ("num_frames", "retention_ratio", "config", "fingerprint", "frame_indices", "fps", "total_num_frames")
    facts = {name: getattr(encoded, name) for name in (*names, "source")}
    metadata = {"format": "aot-encoded-video-1", "video": json.dumps(facts)}
    save_file({"tokens": encoded.tokens}, tmp_path / "as_before.safetensors", metadata)
    with safe_open(file, "pt") as opened:  # safetensors writes the two names in any order
        assert opened.metadata() == metadata
    assert file.stat().st_size == (tmp_path / "as_before.safetensors").stat().st_size
    assert repr(EncodedVideo.load(tmp_path / "as_before.safetensors")) == repr(encoded)


def test_the_file_of_a_qwen_model_is_of_another_kind(processor, tmp_path):
    facts = {"places": torch.arange(2), "grid": (1, 2, 4), "merge_size": 2, "num_frames": 1, "retention_ratio": 1}
    made_with = {"config": {}, "fingerprint": "", "total_num_frames": 2}
    other = QwenVLEncodedVideo(tokens=torch.ones(2, 4), **facts, **made_with)
    other.save(tmp_path / "clip.safetensors")
    for video in (other, tmp_path / "clip.safetensors"):
        with pytest.raises(
            ValueError, match=r"an encoded video of the Qwen-VL family, but here one of LLaVA-OneVision"
        ):
            ask(processor, TEXT, videos=[video])


@pytest.mark.parametrize("content", [b"my notes", b"", None], ids=["text", "empty", "other safetensors"])
def test_nothing_else_is_written_over(encoded, tmp_path, content):
    path = tmp_path / "mine.safetensors"
    if content is None:
        save_file({"weight": torch.ones(2)}, path)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"mine.safetensors is there already and is no encoded video"):
        encoded.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.safetensors"]


def test_where_it_cannot_be_saved(encoded, tmp_path):
    with pytest.raises(ValueError, match=r"clip.mp4 does not end in .safetensors"):
        encoded.save(tmp_path / "clip.mp4")
    with pytest.raises(FileNotFoundError, match=r"The folder .*nowhere does not exist"):
        encoded.save(tmp_path / "nowhere" / "clip.aot.safetensors")
    assert not list(tmp_path.iterdir())


# --- what is refused


def test_cut_and_foreign_files(processor, file, tmp_path):
    whole = file.read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"clip.aot.safetensors is cut short, damaged or no safetensors file"):
            ask(processor, TEXT, videos=[file])
    save_file({"tokens": torch.ones(2, 2)}, file)
    with pytest.raises(ValueError, match="not one of an encoded video"):
        ask(processor, TEXT, videos=[file])
    with pytest.raises(FileNotFoundError, match=r"gone.aot.safetensors does not exist"):
        ask(processor, TEXT, videos=[tmp_path / "gone.aot.safetensors"])


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"num_frames": 0}, "number of frames is 0"),
        ({"retention_ratio": "all"}, "retention ratio is 'all'"),
        ({"config": None}, "which model made it"),
        ({"frame_indices": [1]}, r"frame indices are \(1,\), but it has 4 frames"),
        ({"fps": -1}, "frame rate is -1"),
        ({"source": 3}, "source is 3"),
        ({"more": 1}, "other things"),
    ],
)
def test_headers_that_a_stranger_has_written(processor, file, changed, named):
    with safe_open(file, "pt") as opened:
        metadata, tokens = opened.metadata(), opened.get_tensor("tokens").clone()
    metadata["video"] = json.dumps({**json.loads(metadata["video"]), **changed})
    save_file({"tokens": tokens}, file, metadata)
    with pytest.raises(ValueError, match=named):
        ask(processor, TEXT, videos=[file])


def test_a_video_of_another_model(build_model, processor, encoded, file):
    for part in ("vision_tower", "multi_modal_projector", "image_newline"):
        other = build_model()
        with torch.no_grad():
            weight = next(p for name, p in other.model.named_parameters() if name.startswith(part))
            weight.view(-1)[-1] += 1e-6
        with pytest.raises(ValueError, match="Encoded video 0 of the call was made by another model"):
            other.generate(**ask(processor, TEXT, videos=[file]))
    other = build_model()
    with torch.no_grad():
        other.lm_head.weight += 1
    other.generate(**ask(processor, TEXT, videos=[file]), max_new_tokens=1)


def test_a_video_of_another_config(model, processor, configure, encoded):
    inputs = ask(processor, TEXT, videos=[encoded])
    configure(retention_ratio=0.9, frames_at_once=1)  # which change no token of it
    model.generate(**inputs, max_new_tokens=1)
    configure(local_window_size=4)
    with pytest.raises(ValueError, match=r"Encoded video 0 .* another `local_window_size` than .* 4"):
        model.generate(**inputs)


def test_a_processor_of_another_model(model, make_video, encoded, video_model):
    other = random_processor(AOTLlavaOnevisionProcessor, video_model.config)
    with pytest.raises(ValueError, match="mm_spatial_pool_mode='bilinear', but the processor has 'average'"):
        ask(other, TEXT, videos=[encoded])


def test_another_ratio_and_other_frames_than_were_encoded(processor, encoded):
    ask(processor, TEXT, videos=[encoded], retention_ratio=0.25, num_frames=4)
    with pytest.raises(ValueError, match=r"encoded at a retention_ratio of 0.25, but the call asks for 0.5"):
        ask(processor, TEXT, videos=[encoded], retention_ratio=0.5)
    with pytest.raises(ValueError, match=r"made of 4 frames, but the call asks for num_frames=8"):
        ask(processor, TEXT, videos=[encoded], num_frames=8)


def test_a_tensor_that_a_collator_has_lost(model, processor, encoded, make_video):
    for name in ("encoded_video_tokens", "encoded_video_lengths", "encoded_video_marks"):
        inputs = ask(processor, TEXT, videos=[encoded])
        del inputs[name]
        with pytest.raises(ValueError, match=f"`{name}` is None|pixel_values_videos"):
            model.generate(**inputs)
    inputs = ask(processor, "<video><video>", videos=[encoded, make_video()])
    del inputs["pixel_values_videos"]
    with pytest.raises(ValueError, match="2 videos, 1 of which are encoded, but `pixel_values_videos` brings 0"):
        model.generate(**inputs)


def test_one_video_at_a_time(model, processor, make_video):
    with pytest.raises(ValueError, match="holds 2 videos, but one is encoded at a time"):
        model.encode_video(**ask(processor, "<video><video>", videos=[make_video(), make_video()]))
