"""The methods on LLaVA-Video's path: average pooling, and a newline after each row of each frame.

FlashVID's program runs it with a newline after each frame.
"""

import math

import pytest
import torch
from greedy_by_hand import NEW_TOKENS, greedy_by_hand
from random_checkpoint import random_processor

from aot_llava_baselines import BASELINES, BaselineGenerator, build_baseline
from aot_llava_baselines.encoding import encode_video
from aot_llava_baselines.fastvid import fastvid_llava_video, segment_lengths
from aot_llava_baselines.flashvid import flashvid
from aot_llava_baselines.flashvid import segment_lengths as segments_of_flashvid
from modeling_aot_llava import AOTLlavaOnevisionProcessor

LLAVA_VIDEO = {"mm_spatial_pool_mode": "average", "mm_newline_position": "grid"}
# 7 x 7 patches are pooled to 3 x 3: a frame has 9 tokens and 3 newlines.
NUM_FRAMES, SIDE = 8, 3
ALL = NUM_FRAMES * SIDE * (SIDE + 1)
METHODS = {
    "fastv": {"layer": 1, "retention_ratio": 0.2},
    "pdrop": {"layers": (1, 2, 3), "retention_ratio": 0.125},
    "visionzip": {"tokens_per_frame": 4},
    "fastvid": {"retention_ratio": 0.4, "num_segments": 3},
    "framefusion": {"retention_ratio": 0.5},
    "vidcom2": {"retention_ratio": 0.4, "exact_count": True},
}
KEEPING_ALL = {
    "fastv": {"layer": 1, "retention_ratio": 1.0},
    "pdrop": {"layers": (1, 3), "retention_ratio": 1.0},
    "framefusion": {"retention_ratio": 1.0},
}


@pytest.fixture(scope="module")
def video_model(build_model):
    return build_model(**LLAVA_VIDEO, retention_ratio=1.0, text_config={"num_hidden_layers": 4})


@pytest.fixture(scope="module")
def inputs(video_model, make_video):
    processor = random_processor(AOTLlavaOnevisionProcessor, video_model.config)

    def make(*texts, seeds=(0,)):
        videos = [make_video(NUM_FRAMES, seed) for seed in seeds]
        return processor(text=list(texts), videos=videos, padding=True, return_tensors="pt")

    return make


def answers(model, baseline, batch):
    output = BaselineGenerator(model, baseline).generate(
        **batch, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None
    )
    return output[:, batch["input_ids"].shape[1] :]


def layout_by_hand(frames, newline):
    rows = []
    for frame in frames:
        for place, token in enumerate(frame):
            rows.append(token)
            if place % SIDE == SIDE - 1:
                rows.append(newline)
    return torch.stack(rows)


@torch.inference_mode()
def test_the_encoded_video_is_what_the_model_reads(video_model, inputs):
    pixels = inputs("<video>")["pixel_values_videos"]
    video = encode_video(video_model, pixels)
    assert video.tokens.shape == (NUM_FRAMES, SIDE**2, video.newline.shape[0])
    (read,) = video_model.get_video_features(pixels, return_dict=True).pooler_output
    assert torch.equal(layout_by_hand(video.tokens, video.newline), read)
    assert torch.equal(torch.cat([video.with_newlines(), video.newline[None]]), read)
    assert video.num_placeholders == len(read) == ALL
    assert video.attention.shape == video.frame_attention.shape == (NUM_FRAMES, SIDE**2)
    assert video.keys.shape[:2] == (NUM_FRAMES, SIDE**2)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["visionzip", "fastvid", "vidcom2"])
def test_methods_before_the_model_are_their_tokens_in_the_prompt(name, video_model, inputs):
    batch = inputs("Tell: <video> What moves?")
    ids = batch["input_ids"]
    video = encode_video(video_model, batch["pixel_values_videos"])
    where = (ids[0] == video_model.config.video_token_id).nonzero().flatten()
    first, after = int(where[0]), int(where[-1]) + 1
    assert after - first == ALL
    if name == "fastvid":
        segments = segment_lengths(video.frame_features, 3, 0.9)
        rows, places = fastvid_llava_video(
            video.tokens, video.frame_attention, segments, video.newline, retention_ratio=0.4
        )
        # Original position ids: the text goes on where it would after all tokens.
        positions = torch.cat([torch.arange(first), first + places, torch.arange(after, ids.shape[1])])[None]
        assert 0 < (places % (SIDE + 1) == SIDE).sum() <= NUM_FRAMES * SIDE
    else:
        reduced = build_baseline(name, **METHODS[name]).reduce(video)
        rows = torch.cat([reduced.tokens, video.newline[None]])
        # All newlines of all frames; four tokens of each, or four tenths of all.
        kept = {"visionzip": NUM_FRAMES * 4, "vidcom2": int(NUM_FRAMES * SIDE**2 * 0.4)}[name]
        assert len(rows) == kept + NUM_FRAMES * SIDE
        assert int((rows == video.newline).all(1).sum()) == NUM_FRAMES * SIDE
        positions = torch.arange(first + len(rows) + ids.shape[1] - after)[None]
    text = video_model.get_input_embeddings()(ids)
    embeds = torch.cat([text[0, :first], rows, text[0, after:]])[None]
    expected = greedy_by_hand(video_model, embeds, positions)
    assert answers(video_model, build_baseline(name, **METHODS[name]), batch)[0].tolist() == expected


@pytest.mark.parametrize("name", KEEPING_ALL)
def test_a_method_that_keeps_everything_is_the_model_itself(name, video_model, inputs):
    batch = inputs("Tell: <video> What moves?")
    expected = video_model.generate(**batch, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None)
    kept = answers(video_model, build_baseline(name, **KEEPING_ALL[name]), batch)
    assert torch.equal(kept[0], expected[0, -NEW_TOKENS:])


@pytest.mark.parametrize("name", METHODS)
def test_rows_are_answered_as_alone(name, video_model, inputs):
    texts = ("<video> A much longer question?", "Hm <video> Short?")
    both = answers(video_model, build_baseline(name, **METHODS[name]), inputs(*texts, seeds=(0, 1)))
    alone = [
        answers(video_model, build_baseline(name, **METHODS[name]), inputs(text, seeds=(seed,)))[0]
        for seed, text in enumerate(texts)
    ]
    assert torch.equal(both, torch.stack(alone))


@pytest.mark.parametrize(("name", "first_layer", "last_layer"), [("fastv", ALL - 1, 19), ("pdrop", ALL, 12)])
def test_methods_in_the_model_choose_among_newlines_too(name, first_layer, last_layer, video_model, inputs):
    """FastV leaves the newline alone that ends the video, PDrop does not: 0.2 * 95 and 96 / 8."""
    batch = inputs("<video>")
    lengths = {}

    def note_length(layer, given):
        lengths.setdefault(layer, given[0].shape[1])

    layers = video_model.model.language_model.layers
    hooks = [layer.register_forward_pre_hook(note_length) for layer in layers]
    answers(video_model, build_baseline(name, **METHODS[name]), batch)
    for hook in hooks:
        hook.remove()
    text = batch["input_ids"].shape[1] - first_layer
    assert lengths[layers[0]] == first_layer + text
    assert lengths[layers[-1]] == last_layer + text


@pytest.fixture(scope="module")
def frame_newlines(build_model, make_video):
    """A model with a newline after each frame, and its inputs for one question."""
    fields = {"mm_spatial_pool_mode": "average", "mm_newline_position": "frame"}
    model = build_model(**fields, retention_ratio=1.0, text_config={"num_hidden_layers": 4})
    processor = random_processor(AOTLlavaOnevisionProcessor, model.config)
    return model, processor(text="Tell: <video> What?", videos=[make_video(NUM_FRAMES)], return_tensors="pt")


@torch.inference_mode()
def test_flashvid_with_a_newline_after_each_frame(frame_newlines):
    model, batch = frame_newlines
    ids = batch["input_ids"]
    where = (ids[0] == model.config.video_token_id).nonzero().flatten()
    first, after = int(where[0]), int(where[-1]) + 1
    assert after - first == NUM_FRAMES * (SIDE**2 + 1)
    video = encode_video(model, batch["pixel_values_videos"])
    method = build_baseline("flashvid", retention_ratio=0.4, inner_ratio=1.0)
    budget = method.budget(SIDE**2)
    tokens, places = flashvid(
        video.tokens, video.attention, segments_of_flashvid(video.tokens, 0.9, 8), budget=budget, num_chosen=4
    )
    rows = []
    for frame in range(NUM_FRAMES):
        rows += [*tokens[places // SIDE**2 == frame], video.newline]
    text = model.get_input_embeddings()(ids)
    embeds = torch.cat([text[0, :first], torch.stack(rows), text[0, after:]])[None]
    positions = torch.arange(embeds.shape[1])[None]
    assert answers(model, method, batch)[0].tolist() == greedy_by_hand(model, embeds, positions)


@pytest.mark.parametrize("inner_ratio", [0.3, 1.0])
def test_flashvid_may_drop_the_newlines_of_frames_inside_the_model(frame_newlines, inner_ratio):
    """All of them, that which ends the video too: n counts them in its cut before layer K."""
    model, batch = frame_newlines
    lengths = {}

    def note_length(layer, given):
        lengths.setdefault(layer, given[0].shape[1])

    layers = model.model.language_model.layers
    hooks = [layer.register_forward_pre_hook(note_length) for layer in layers]
    answers(model, build_baseline("flashvid", retention_ratio=0.4, layer=2, inner_ratio=inner_ratio), batch)
    for hook in hooks:
        hook.remove()
    text = batch["input_ids"].shape[1] - NUM_FRAMES * (SIDE**2 + 1)
    num_tokens = lengths[layers[0]] - text
    assert num_tokens == NUM_FRAMES * (5 + 1)  # of single frames each has ⌈9 * 0.4 * 1.25⌉ tokens
    assert lengths[layers[-1]] - text == math.ceil(num_tokens * inner_ratio)


def test_other_methods_are_refused_before_any_work(video_model):
    defined = {name for name, kind in BASELINES.items() if "grid" in kind.newline_positions}
    assert defined == set(METHODS)
    for name in set(BASELINES) - defined:
        with pytest.raises(ValueError, match=f"{name} is not defined for a model with 'grid' newlines"):
            BaselineGenerator(video_model, build_baseline(name))


def test_tokens_that_aot_has_taken_away_are_refused(model):
    with pytest.raises(ValueError, match=r"retention_ratio is 0\.25, so AOT leaves .* retention_ratio=1\.0"):
        BaselineGenerator(model, build_baseline("visionzip"))
