"""The model on LLaVA-Video's path: average pooling and newlines, uncompressed and compressed, however it generates."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_checkpoint import random_processor
from reference.naive_newlines import with_newlines_by_hand

from modeling_aot_llava import AOTLlavaOnevisionProcessor

POSITIONS = ("grid", "frame", "one_token", "no_token")
LLAVA_VIDEO = {"mm_spatial_pool_mode": "average", "mm_newline_position": "grid"}
# 7 x 7 patches are pooled to 3 x 3; 4 frames have 36 tokens and 12 newlines.
NUM_FRAMES, SIDE = 4, 3
MODES = {
    "greedy": {},
    "sampling": {"do_sample": True, "temperature": 2.0},
    "beams": {"num_beams": 3},
    "several sequences": {"do_sample": True, "num_return_sequences": 2},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "prompt lookup": {"prompt_lookup_num_tokens": 2},
}


@pytest.fixture(scope="module")
def video_model(build_model):
    return build_model(**LLAVA_VIDEO)


@pytest.fixture(scope="module")
def video_processor(video_model):
    return random_processor(AOTLlavaOnevisionProcessor, video_model.config)


def ask(processor, make_video, *texts, seeds=(0,), num_frames=NUM_FRAMES, **options):
    """The processor's inputs; with `retention_ratio=1.0` those of a processor that cannot ask for all tokens."""
    videos = [make_video(num_frames, seed) for seed in seeds]
    inputs = processor(text=list(texts), videos=videos, padding=True, return_tensors="pt", **options)
    inputs.pop("image_sizes_videos", None)
    return inputs


def generate(model, inputs, **options):
    torch.manual_seed(0)
    return model.generate(**inputs, **{"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4, **options})


def pooled_by_hand(stock, pixels, mode):
    """(F, P, D): each pooled token from its patches, one after the other."""
    hidden = stock.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
    patches = stock.model.multi_modal_projector(hidden).unflatten(1, (7, 7))
    if mode == "bilinear":
        return stock.model.apply_pooling(patches.flatten(1, 2))
    rows = [
        sum(patches[:, 2 * row + down, 2 * column + right] for down in (0, 1) for right in (0, 1)) / 4
        for row in range(SIDE)
        for column in range(SIDE)
    ]
    return torch.stack(rows, dim=1)


def with_all_newlines(pooled, newline, position):
    side = int(pooled.shape[1] ** 0.5)
    return with_newlines_by_hand([dict(enumerate(frame)) for frame in pooled], newline, position, side)


# --- Uncompressed: the base model -----------------------------------------------------------------


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("mode", ["bilinear", "average"])
def test_with_aot_off_it_is_llava_video(build_model, stock, make_video, mode, position):
    model = build_model(retention_ratio=1.0, mm_spatial_pool_mode=mode, mm_newline_position=position)
    processor = random_processor(AOTLlavaOnevisionProcessor, model.config)
    inputs = ask(processor, make_video, "<video>What?<video>", seeds=(0, 1))
    with torch.no_grad():
        expected = torch.stack(
            [
                with_all_newlines(pooled_by_hand(stock, pixels, mode), stock.model.image_newline, position)
                for pixels in inputs["pixel_values_videos"]
            ]
        )
        features = model.get_video_features(inputs["pixel_values_videos"]).pooler_output
        torch.testing.assert_close(features, expected)

        embeds = stock.get_input_embeddings()(inputs["input_ids"])
        embeds[inputs["input_ids"] == model.config.video_token_index] = expected.flatten(0, 1)
        expected_logits = stock(inputs_embeds=embeds, attention_mask=inputs["attention_mask"]).logits
        torch.testing.assert_close(model(**inputs).logits, expected_logits, atol=1e-4, rtol=1e-4)


def test_with_llava_onevisions_values_it_is_stock_bit_for_bit(build_model, stock, make_video):
    model = build_model(retention_ratio=1.0, mm_spatial_pool_mode="bilinear", mm_newline_position="one_token")
    inputs = ask(random_processor(AOTLlavaOnevisionProcessor, model.config), make_video, "<video>What?")
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, stock(**inputs).logits)


# --- Compressed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("aot_position", [None, "frame", "one_token", "no_token"])
def test_the_newlines_stand_between_the_tokens(build_model, video_tokens_by_hand, make_video, aot_position):
    model = build_model(**LLAVA_VIDEO, aot_newline_position=aot_position)
    processor = random_processor(AOTLlavaOnevisionProcessor, model.config)
    inputs = ask(processor, make_video, "<video>What?<video>", seeds=(0, 1))
    num_newlines = {None: NUM_FRAMES * SIDE, "frame": NUM_FRAMES, "one_token": 1, "no_token": 0}[aot_position]
    num_tokens = round(0.25 * NUM_FRAMES * SIDE**2)
    assert int((inputs["input_ids"] == processor.video_token_id).sum()) == 2 * (num_tokens + num_newlines)
    with torch.no_grad():
        features = model.get_video_features(inputs["pixel_values_videos"]).pooler_output
        expected = video_tokens_by_hand(inputs["pixel_values_videos"], model.config)
    assert features.shape[1] == num_tokens + num_newlines
    for video, tokens in zip(features, expected):
        is_newline = (video == model.model.image_newline).all(-1)
        assert int(is_newline.sum()) == num_newlines
        torch.testing.assert_close(video[~is_newline], tokens)


def test_the_full_prompt_is_cut_down(video_model, video_processor, make_video):
    exact = ask(video_processor, make_video, "<video>What?")
    full = ask(video_processor, make_video, "<video>What?", retention_ratio=1.0)
    assert int((full["input_ids"] == video_processor.video_token_id).sum()) == 36 + 12
    answer, from_full = generate(video_model, exact), generate(video_model, full)
    assert torch.equal(answer[:, -4:], from_full[:, -4:])
    assert torch.equal(from_full[:, :-4], full["input_ids"])


@pytest.mark.parametrize(("num_placeholders", "allowed"), [(12, "13 to 48"), (49, "13 to 48")])
def test_an_impossible_prompt_is_refused(video_model, video_processor, make_video, num_placeholders, allowed):
    inputs = ask(video_processor, make_video, "<video>")
    ids = torch.full((1, num_placeholders), video_processor.video_token_id)
    with pytest.raises(ValueError, match=f"{num_placeholders} placeholders .* from {allowed}"):
        video_model(input_ids=ids, pixel_values_videos=inputs["pixel_values_videos"])


def test_released_without_clips_leaves_the_count_to_the_video(build_model, make_video):
    fields = {"recipe": "released", "clip_segmentation": "none", "num_anchors": 16}
    model = build_model(**LLAVA_VIDEO, **fields)
    processor = random_processor(AOTLlavaOnevisionProcessor, model.config)
    inputs = ask(processor, make_video, "<video>What?")
    with torch.no_grad():
        (video,) = model.model.compress_videos(inputs["pixel_values_videos"])
        features = model.get_video_features(inputs["pixel_values_videos"]).pooler_output
    assert video.clip_lengths == (1,) * NUM_FRAMES
    assert features.shape[1] == int(video.pooled_kept.sum()) + NUM_FRAMES * SIDE
    answer = generate(model, inputs)
    assert torch.equal(answer[:, :-4], inputs["input_ids"])


# --- Generating -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_generation_modes(video_model, video_processor, make_video, mode):
    """The same as from a prompt with the full count, and as greedy where the mode only changes the way."""
    exact = ask(video_processor, make_video, "<video>What?")
    full = ask(video_processor, make_video, "<video>What?", retention_ratio=1.0)
    answer = generate(video_model, exact, **MODES[mode])
    assert torch.equal(answer[:, -4:], generate(video_model, full, **MODES[mode])[:, -4:])
    if mode in ("no cache", "static cache", "prompt lookup"):
        assert torch.equal(answer, generate(video_model, exact))


def test_rows_of_a_batch_are_as_alone(video_model, video_processor, make_video):
    texts = ["<video>What?", "<video>And now, after all of this?"]
    together = generate(video_model, ask(video_processor, make_video, *texts, seeds=(0, 1)))
    for row, text in enumerate(texts):
        alone = generate(video_model, ask(video_processor, make_video, text, seeds=(row,)))
        assert torch.equal(together[row, -4:], alone[0, -4:])


# --- Placeholders ---------------------------------------------------------------------------------


@settings(max_examples=300)
@given(
    num_frames=st.integers(1, 128),
    mode=st.sampled_from(["bilinear", "average"]),
    positions=st.sampled_from(
        [(base, fewer) for index, base in enumerate(POSITIONS) for fewer in (None, *POSITIONS[index + 1 :])]
    ),
    parts=st.integers(1, 80),
)
def test_placeholders_are_tokens_and_newlines(video_processor, num_frames, mode, positions, parts):
    """Exactly B + newlines, which the model reads back as B; `fewer` applies to compressed videos alone."""
    base, fewer = positions
    settings = {"mm_spatial_pool_mode": mode, "mm_newline_position": base, "aot_newline_position": fewer}
    for name, value in settings.items():
        setattr(video_processor, name, value)
    try:
        counted = video_processor._get_num_multimodal_tokens(
            video_sizes=[(num_frames, 56, 56)], retention_ratio=parts / 64
        ).num_video_tokens[0]
    finally:
        for name, value in {**LLAVA_VIDEO, "aot_newline_position": None}.items():
            setattr(video_processor, name, value)
    side = {"bilinear": 4, "average": 3}[mode]
    all_tokens = num_frames * side**2
    budget = (parts * all_tokens + 32) // 64  # rounded half up; 64ths are exact in binary
    budget = min(all_tokens, max(budget, 1, min(8, num_frames // 2))) if parts < 64 else all_tokens
    position = base if budget == all_tokens or fewer is None else fewer
    newlines = {"grid": num_frames * side, "frame": num_frames, "one_token": 1, "no_token": 0}[position]
    assert counted == budget + newlines
