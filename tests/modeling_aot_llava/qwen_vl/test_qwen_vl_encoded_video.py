"""A video that is encoded once and asked often on Qwen-VL: its answers are those of the video itself, bit for bit."""

import copy
import json

import pytest
import torch
from numbered_clips import write_clip
from qwen_vl_hosts import QUESTION, image_of, inputs_of, our_model, processor_of, stock_model, video_of
from safetensors import safe_open
from safetensors.torch import save_file
from small_model import CACHE, TRANSFORMERS, cache_of
from test_qwen_vl_model import CLIPS, MODES, NEW, answer, run
from transformers import pipeline

from modeling_aot_llava.encoded_video import EncodedVideo
from modeling_aot_llava.mrope_positions import modality_types
from modeling_aot_llava.qwen_vl_encoded_video import QwenVLEncodedVideo
from modeling_aot_llava.weights_fingerprint import fingerprint

BOTH = pytest.mark.parametrize("name", ["ours", "dynamic"])
RATIOS = pytest.mark.parametrize("ratio", [0.1, 0.25, 1])
CLIP = CLIPS[0]  # 7 pictures, which are 4 frames of 2 x 3 tokens
INPUTS = ("encoded_video_tokens", "encoded_video_places", "encoded_video_lengths", "encoded_video_marks")


def encode(pair, model, video=CLIP, source=None, **options):
    inputs = inputs_of(pair.processor, [video], "<|video_pad|>", return_metadata=True, **options)
    return model.encode_video(**inputs, source=source)


def ask(pair, encoded, *texts, **options):
    """The inputs of encoded videos, or of both kinds, whose metadata stand beside those of the decoded ones."""
    texts = list(texts) or [QUESTION] * len(encoded)
    metadata = [
        {"fps": 2.0, "total_num_frames": len(video), "frames_indices": list(range(len(video)))}
        if isinstance(video, type(CLIP))
        else {"total_num_frames": 1}
        for video in encoded
    ]
    return pair.processor(
        text=texts, videos=list(encoded), video_metadata=metadata, padding=True, return_tensors="pt", **options
    )


@pytest.fixture
def encoded(pair):
    return encode(pair, pair.ours, source="clip.mp4")


@pytest.fixture
def file(encoded, tmp_path):
    encoded.save(tmp_path / "clip.aot.safetensors")
    return tmp_path / "clip.aot.safetensors"


@pytest.fixture
def tower_calls(pair, monkeypatch):
    calls, real = [], type(pair.ours.model.visual).forward

    def count(self, *args, **kwargs):
        calls.append(1)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(type(pair.ours.model.visual), "forward", count)
    return calls


# --- the same answers


@BOTH
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_answers_as_from_the_video_itself(pair, name, mode):
    model, options = getattr(pair, name), dict(MODES[mode])
    if mode == "assistant":
        options["assistant_model"] = model
    if mode == "chunked prefill" and TRANSFORMERS < (5, 23):
        with pytest.raises(ValueError, match=r"needs transformers 5\.23"):
            answer(model, ask(pair, [encode(pair, model)]), **options)
        return
    text = "<|vision_start|><|video_pad|><|vision_end|>abcabcab"
    answers = []
    for inputs in (inputs_of(pair.processor, [CLIP], text), ask(pair, [encode(pair, model)], text)):
        torch.manual_seed(0)
        answers.append(answer(model, inputs, **options))
    assert answers[0].shape[1] == NEW
    assert torch.equal(*answers)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_with_all_tokens_the_answers_are_the_stock_models(pair, options):
    inputs = ask(pair, [encode(pair, pair.ours, retention_ratio=1)])
    answers = []
    for model, given in ((pair.stock, inputs_of(pair.stock_processor, [CLIP])), (pair.ours, inputs)):
        torch.manual_seed(0)
        answers.append(answer(model, given, **options))
    assert torch.equal(*answers)


@BOTH
@RATIOS
@pytest.mark.parametrize("fps", [4.0, None])
def test_logits_positions_and_deltas_are_those_of_the_video(pair, name, ratio, fps, tmp_path):
    model, path = getattr(pair, name), tmp_path / "clip.aot.safetensors"
    encode(pair, model, retention_ratio=ratio, fps=fps).save(path)
    expected = run(pair, model, inputs_of(pair.processor, [CLIP], fps=fps, retention_ratio=ratio))
    deltas = model.model.rope_deltas
    model.model.rope_deltas = None
    inputs = pair.processor(text=[QUESTION], videos=[str(path)], return_tensors="pt")
    found = run(pair, model, inputs)
    assert torch.equal(found[0], expected[0])
    # Where all tokens are kept, the stock model numbers the columns itself.
    assert torch.equal(found[1][-3:], expected[1][-3:])
    assert torch.equal(model.model.rope_deltas, deltas)
    states = model.model(**inputs).last_hidden_state  # without the head, too
    assert torch.equal(model.lm_head(states), expected[0])


@BOTH
@pytest.mark.parametrize("frames", [2, 9])
def test_the_prompt_is_exact_and_all_else_is_as_for_the_video(pair, name, frames):
    model, video = getattr(pair, name), video_of(frames, 3, 2, seed=frames)
    kept = encode(pair, model, video, fps=4.0)
    inputs, of_video = ask(pair, [kept]), inputs_of(pair.processor, [video], fps=4.0)
    assert inputs["input_ids"].shape == of_video["input_ids"].shape
    texts = [pair.processor.decode(of["input_ids"][0]).replace("<|video_pad|>", "") for of in (inputs, of_video)]
    assert texts[0] == texts[1]
    for key in ("video_grid_thw", "second_per_grid_ts"):
        assert (key in inputs) == (key in of_video)
        if key in inputs:
            assert torch.equal(torch.as_tensor(inputs[key]), torch.as_tensor(of_video[key]))
    assert len(kept.tokens) == len(kept.places) == sum(kept.kept_per_frame)
    assert model(**inputs).logits.shape[1] == inputs["input_ids"].shape[1]  # nothing is fitted


def test_a_number_of_tokens_that_the_video_decides_is_exact_in_the_prompt(pair):
    model = our_model(pair.host, pair.stock, temporal_threshold=0.5)
    kept = encode(pair, model)
    inputs = ask(pair, [kept])
    assert int((inputs["input_ids"] == model.config.video_token_id).sum()) == len(kept.tokens)
    assert torch.equal(answer(model, inputs), answer(model, inputs_of(pair.processor, [CLIP])))


@pytest.mark.parametrize("places", [(0,), (1, 2), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("ratio", [None, 0.5, 1])
def test_a_batch_mixed_with_videos_that_are_not_encoded_and_a_picture(pair, places, ratio):
    videos = [*CLIPS, video_of(5, 2, 2, seed=7)]
    marks = "<|vision_start|><|{}_pad|><|vision_end|>"
    texts = [marks.format("video") + "?", marks.format("image") + "And " + marks.format("video") * 2, "only text"]
    options = {"images": [image_of(2, 3)], **({} if ratio is None else {"retention_ratio": ratio})}
    expected = answer(pair.ours, inputs_of(pair.processor, videos, texts, **options))
    of_encoding = {} if ratio is None else {"retention_ratio": ratio}
    some = [encode(pair, pair.ours, v, **of_encoding) if n in places else v for n, v in enumerate(videos)]
    inputs = ask(pair, some, *texts, **options)
    assert ("pixel_values_videos" in inputs) == (len(places) < 3)
    assert inputs["video_grid_thw"].shape == (3, 3)
    assert torch.equal(answer(pair.ours, inputs), expected)


@BOTH
def test_the_loss_is_the_videos(pair, name):
    model = getattr(pair, name)
    losses = []
    for inputs in (inputs_of(pair.processor, [CLIP]), ask(pair, [encode(pair, model)])):
        labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == model.config.video_token_id, -100)
        losses.append(model(**inputs, labels=labels).loss)
    assert torch.equal(*losses)
    losses[1].backward()
    assert model.lm_head.weight.grad.abs().sum() > 0
    model.zero_grad()


@BOTH
def test_a_second_turn_on_the_cache_is_the_whole_conversation_without_one(pair, name):
    """With dynamic clips, too, where the prompt of the video itself would be fitted, and could not be gone on from."""
    model = getattr(pair, name)
    first = ask(pair, [encode(pair, model)])
    out = model.generate(**first, max_new_tokens=NEW, return_dict_in_generate=True)
    more = pair.processor.tokenizer("<|im_end|>And then?", return_tensors="pt")["input_ids"]
    ids = torch.cat([out.sequences, more], 1)
    turn = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    on_cache = answer(model, {**turn, CACHE: cache_of(out)})
    whole = {**first, **turn, "mm_token_type_ids": modality_types(ids, model.config)}
    assert torch.equal(on_cache, answer(model, whole))
    with pytest.raises(ValueError, match="video in a later turn"):
        model.generate(**whole, **{CACHE: cache_of(out)}, max_new_tokens=1)


def test_the_vision_tower_rests(pair, encoded, tower_calls):
    before = len(tower_calls)
    answer(pair.ours, ask(pair, [encoded, encoded]))
    assert len(tower_calls) == before


def test_files_and_encoded_files_in_one_call(pair, file, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", num_frames=12, rate=4, size=(48, 32))
    options = {"fps": 2.0, "do_sample_frames": True, "padding": True, "return_tensors": "pt"}
    read = pair.processor(text=["<|video_pad|>"], videos=[str(clip)], return_metadata=True, **options)
    pair.ours.encode_video(**read).save(tmp_path / "other.safetensors")
    expected = pair.ours(**pair.processor(text=[QUESTION] * 2, videos=[str(clip)] * 2, **options)).logits
    for videos in ([clip, tmp_path / "other.safetensors"], [tmp_path / "other.safetensors", clip]):
        inputs = pair.processor(text=[QUESTION] * 2, videos=videos, return_metadata=True, **options)
        indices = [list(of.frames_indices) for of in inputs.pop("video_metadata")]
        assert indices == [list(read["video_metadata"][0].frames_indices)] * 2
        assert torch.equal(pair.ours(**inputs).logits, expected)


# --- how it is handed over


@pytest.mark.parametrize("key", ["video", "path"])
def test_in_a_conversation_and_the_pipeline(pair, encoded, file, key):
    content = {"type": "video", key: encoded if key == "video" else str(file)}
    talk = [{"role": "user", "content": [content, {"type": "text", "text": "What?"}]}]
    inputs = pair.processor.apply_chat_template(
        talk, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    expected = answer(pair.ours, inputs_of(pair.processor, [CLIP]))
    assert torch.equal(answer(pair.ours, inputs), expected)
    said = pipeline("any-to-any", model=pair.ours, processor=pair.processor)(
        talk, max_new_tokens=NEW, return_full_text=False
    )
    assert said[0]["generated_text"] == pair.processor.batch_decode(expected, skip_special_tokens=True)[0]


def test_moved_loaded_and_collated(pair, encoded):
    inputs = ask(pair, [encoded])
    moved = copy.deepcopy(inputs).to("cpu", torch.float64)
    assert moved["encoded_video_tokens"].dtype == torch.float64
    assert all(moved[name].dtype == torch.int64 for name in INPUTS[1:])
    assert torch.equal(pair.ours(**moved).logits, pair.ours(**inputs).logits)
    assert all(isinstance(value, torch.Tensor) for value in inputs.values())

    def collate(examples):
        return {name: torch.cat([example[name] for example in examples]) for name in examples[0]}

    (batch,) = torch.utils.data.DataLoader([dict(inputs)] * 2, batch_size=2, collate_fn=collate)
    assert torch.equal(answer(pair.ours, batch), answer(pair.ours, inputs).repeat(2, 1))


@pytest.mark.parametrize("kind", ["np", None])
def test_it_stays_a_tensor_whatever_the_call_wants(pair, encoded, kind):
    for videos in ([encoded.to(torch.bfloat16)], [encoded.to(torch.bfloat16), CLIPS[1]]):
        inputs = pair.processor(
            text=[QUESTION] * len(videos),
            videos=videos,
            video_metadata=[{"fps": 2.0, "total_num_frames": 10, "frames_indices": list(range(10))}] * len(videos),
            padding=True,
            return_tensors=kind,
        )
        assert all(isinstance(inputs[name], torch.Tensor) for name in INPUTS)
        assert torch.as_tensor(inputs["video_grid_thw"]).shape == (len(videos), 3)


def test_the_signatures_name_the_inputs_so_that_a_trainer_keeps_them(pair):
    import inspect

    for call in (pair.ours.forward, pair.ours.generate, pair.ours.model.forward):
        assert {*INPUTS, "kept_video_tokens"} <= inspect.signature(call).parameters.keys()


# --- what it knows, and its file


def test_it_knows_what_made_it_and_the_file_holds_all_of_it(pair, encoded, file):
    assert encoded.grid == (4, 4, 6)
    assert (encoded.num_frames, encoded.tokens_of_frame, encoded.retention_ratio) == (4, 6, 0.25)
    assert encoded.frame_indices[:7] == tuple(range(7))
    assert (encoded.fps, encoded.total_num_frames, encoded.source) == (2.0, 7, "clip.mp4")
    assert encoded.fingerprint == fingerprint(pair.ours.model, ["visual"])
    assert encoded.config["model_type"] == pair.ours.config.model_type
    loaded = QwenVLEncodedVideo.load(file)
    assert vars(loaded).keys() == vars(encoded).keys()
    for name, value in vars(encoded).items():
        other = getattr(loaded, name)
        assert torch.equal(other, value) if isinstance(value, torch.Tensor) else other == value
    with safe_open(file, "pt") as opened:
        assert set(opened.keys()) == {"tokens", "places"}
    encoded.save(file)  # over its like
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    half = encoded.to(torch.bfloat16)
    assert half.tokens.dtype == torch.bfloat16
    assert torch.equal(half.places, encoded.places)


def test_without_a_prompt_the_processors_ratio_counts(pair):
    metadata = [{"fps": 2.0, "total_num_frames": 7, "frames_indices": list(range(7))}]
    options = {"videos": [CLIP], "video_metadata": metadata, "return_tensors": "pt", "return_metadata": True}
    processor = processor_of(pair.host, retention_ratio=0.5)
    assert pair.ours.encode_video(**processor(**options)).retention_ratio == 0.5
    alone = pair.ours.encode_video(**pair.processor(**options, retention_ratio=1))
    assert len(alone.tokens) == 24
    assert processor(videos=[alone], return_tensors="pt")["kept_video_tokens"].tolist() == [24]


# --- what is refused


def changed(file, tensors=None, **facts):
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
        held = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    metadata["video"] = json.dumps({**json.loads(metadata["video"]), **facts})
    save_file({**held, **(tensors or {})}, file, metadata)


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"num_frames": 0}, "number of frames is 0"),
        ({"num_frames": 3}, "its grid is .4, 4, 6., but it has 3 frames"),
        ({"grid": [4, 4]}, "its grid is .4, 4."),
        ({"grid": [4, 0, 6]}, "its grid is .4, 0, 6."),
        ({"grid": [4, 3, 6]}, "not of squares of 2"),
        ({"grid": [4, 2, 4]}, "places are not ascending ones among 8"),
        ({"grid": [4, 10**6, 10**6]}, "more than any model reads"),
        ({"merge_size": 0}, "not of squares of 0"),
        ({"merge_size": "2"}, "not of squares of '2'"),
        ({"retention_ratio": 2}, "retention ratio is 2"),
        ({"retention_ratio": 0.01}, "has 6 tokens, but a retention_ratio of 0.01"),
        ({"config": None}, "which model made it"),
        ({"frame_indices": [1]}, "has 4 frames of 1 pictures"),
        ({"frame_indices": [0, 1, 2, 3, 4, 5, 7]}, "frame indices are .* of 7 pictures"),
        ({"frame_indices": [0, 1, 2, 3, 4, 5, -1]}, "frame indices are .* of 7 pictures"),
        ({"frame_indices": list(range(7)) * 2}, "is of 4 frames"),
        ({"total_num_frames": None}, "number of its source's pictures is None"),
        ({"source_size": [0, 1]}, "size of its source is"),
        ({"fps": -1}, "frame rate is -1"),
        ({"source": 3}, "source is 3"),
        ({"more": 1}, "other things"),
    ],
)
def test_headers_that_a_stranger_has_written(pair, file, facts, named):
    changed(file, **facts)
    with pytest.raises(ValueError, match=named):
        ask(pair, [str(file)])


@pytest.mark.parametrize(
    "places",
    [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 24], [-1, 1, 2, 3, 4, 5], [0, 0, 1, 2, 3, 4], [1, 0, 2, 3, 4, 5], [0.0] * 6],
)
def test_places_that_a_stranger_has_written(pair, file, places):
    changed(file, tensors={"places": torch.tensor(places)})
    with pytest.raises(ValueError, match="its places are"):
        ask(pair, [str(file)])


def test_cut_and_foreign_files(pair, file, tmp_path):
    whole = file.read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"clip.aot.safetensors is cut short, damaged or no safetensors file"):
            ask(pair, [str(file)])
    file.write_bytes(whole)
    with pytest.raises(ValueError, match="of the Qwen-VL family, but here one of LLaVA-OneVision or LLaVA-Video"):
        EncodedVideo.load(file)
    changed(file, tensors={"more": torch.ones(1)})
    with pytest.raises(ValueError, match="holds something else"):
        ask(pair, [str(file)])
    with pytest.raises(FileNotFoundError, match=r"gone.aot.safetensors does not exist"):
        ask(pair, [str(tmp_path / "gone.aot.safetensors")])


def test_a_video_of_another_model(pair, encoded, tower_calls):
    other = our_model(pair.host, stock_model(pair.host))
    inputs, calls_before = ask(pair, [encoded]), len(tower_calls)
    for call in (other, other.generate, other.model):
        call(**inputs, **({"max_new_tokens": 1} if call == other.generate else {}))
    for weight in other.model.visual.parameters():
        before = weight.detach().clone()
        with torch.no_grad():
            weight.view(-1)[-1] += 1e-3
        with pytest.raises(ValueError, match="Encoded video 0 of the call was made by another model"):
            other.generate(**inputs)
        with torch.no_grad():
            weight.copy_(before)
    other(**inputs)
    other.model.visual.merger.to(torch.bfloat16)
    for call in (other, other.model):
        with pytest.raises(ValueError, match="Encoded video 0 of the call was made by another model"):
            call(**inputs)
    assert not tower_calls[calls_before:]


def test_a_model_whose_tower_is_compiled_is_the_same_one(pair, encoded):
    model = our_model(pair.host, pair.stock)
    model.model.visual.merger = torch.compile(model.model.visual.merger)
    model.model.visual = torch.compile(model.model.visual)
    model(**ask(pair, [encoded]))


def test_a_video_of_another_config(pair, encoded):
    inputs = ask(pair, [encoded])
    # Neither changes a token of it.
    our_model(pair.host, pair.stock, retention_ratio=0.9, frames_at_once=1)(**inputs)
    with pytest.raises(ValueError, match=r"another `local_window_size` than .* 3"):
        our_model(pair.host, pair.stock, local_window_size=3)(**inputs)


def test_another_ratio_frames_or_size_than_were_encoded(pair):
    video = video_of(12, 2, 2)
    metadata = [{"fps": 4.0, "total_num_frames": 12, "frames_indices": list(range(12))}]
    sampled = {"num_frames": 6, "fps": None, "do_sample_frames": True}
    inputs = pair.processor(
        text=["<|video_pad|>"],
        videos=[video],
        video_metadata=metadata,
        return_metadata=True,
        return_tensors="pt",
        **sampled,
    )
    kept = pair.ours.encode_video(**inputs)
    size = dict(pair.processor.video_processor.size)

    def call(**options):
        return pair.processor(text=[QUESTION], videos=[kept], return_tensors="pt", **options)

    for matching in (sampled, {"retention_ratio": 0.25}, {"size": size}, {"do_sample_frames": False, "num_frames": 3}):
        call(**matching)
    with pytest.raises(ValueError, match=r"retention_ratio of 0\.25, but the call asks for 0.5"):
        call(retention_ratio=0.5)
    with pytest.raises(ValueError, match="made of 6 pictures, but the call asks for num_frames=8"):
        call(**{**sampled, "num_frames": 8})
    with pytest.raises(ValueError, match="made of 6 pictures, but the call asks for fps=4"):
        call(fps=4.0, do_sample_frames=True)
    with pytest.raises(ValueError, match="frames of 4 x 4 patches, but the call asks for size="):
        call(size={"shortest_edge": 4, "longest_edge": 600 if pair.processor.has_span_a_frame else 100})
    for setting, value in (("num_clips", 3), ("num_anchors", 2)):
        with pytest.raises(ValueError, match=f"was made with {setting}=.*, but the processor has {value}"):
            processor_of(pair.host, **{setting: value})(text=[QUESTION], videos=[kept], return_tensors="pt")


def test_a_tensor_that_a_collator_has_lost(pair, encoded):
    for name in (*INPUTS, "video_grid_thw"):
        inputs = ask(pair, [encoded])
        del inputs[name]
        for call in (pair.ours, pair.ours.generate):
            with pytest.raises(ValueError, match=f"`{name}` is None|pixel_values_videos"):
                call(**inputs)
    inputs = ask(pair, [encoded, CLIPS[1]])
    del inputs["pixel_values_videos"]
    with pytest.raises(ValueError, match="`video_grid_thw` tells of 180 patches of videos that are not encoded"):
        pair.ours(**inputs)


def test_tensors_that_do_not_belong_together(pair, encoded):
    inputs = ask(pair, [encoded])
    for name, value, named in (
        ("encoded_video_tokens", inputs["encoded_video_tokens"][..., :-1], "tokens of"),
        ("encoded_video_lengths", inputs["encoded_video_lengths"] + 1, "pass them as the processor gives them"),
        ("encoded_video_places", inputs["encoded_video_places"].flip(1), "not ascending places"),
        ("encoded_video_places", inputs["encoded_video_places"] + 24, "not ascending places"),
        ("encoded_video_marks", inputs["encoded_video_marks"][:, :-1], "int64 of"),
        ("input_ids", torch.cat([inputs["input_ids"]] * 2, 1), "one call of the processor"),
    ):
        more = {"attention_mask": torch.ones_like(value)} if name == "input_ids" else {}
        with pytest.raises(ValueError, match=named):
            pair.ours(**{**inputs, name: value, **more})
    other = ask(pair, [encode(pair, pair.ours, retention_ratio=0.5)])
    with pytest.raises(ValueError, match="or not as many in each frame"):
        pair.ours(**{**inputs, **{name: other[name] for name in INPUTS}})
    with pytest.raises(ValueError, match="both bring tokens of videos"):
        pair.ours(**inputs, mm_encoder_outputs={"video": object()})


def test_videos_of_different_models_in_one_call(pair, encoded):
    wider = encoded.to("cpu")
    wider.tokens = torch.cat([wider.tokens] * 2, 1)
    with pytest.raises(ValueError, match="are of different models"):
        ask(pair, [encoded, wider])


def test_what_cannot_be_encoded(pair, encoded):
    inputs = inputs_of(pair.processor, [CLIP])
    with pytest.raises(ValueError, match="call the processor with `return_metadata=True`"):
        pair.ours.encode_video(**inputs)
    two = inputs_of(pair.processor, CLIPS, return_metadata=True)
    with pytest.raises(ValueError, match="tells of 2 videos, but one is encoded at a time"):
        pair.ours.encode_video(**two)
    with pytest.raises(ValueError, match="is encoded already"):
        pair.ours.encode_video(**ask(pair, [encoded]))
    with pytest.raises(ValueError, match=r"`retention_ratio=0\.5` is an argument of the model's call"):
        pair.ours.encode_video(**inputs, retention_ratio=0.5)
