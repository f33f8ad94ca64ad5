"""Videos of different lengths in one call: each is what it is alone, and no frame that pads one is looked at."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_checkpoint import random_processor
from test_generate import each_alone, new_text

from modeling_aot_llava import AOTLlavaOnevisionProcessor
from modeling_aot_llava.back_to_back_videos import counts_of_total

LLAVA_VIDEO = {"mm_spatial_pool_mode": "average", "mm_newline_position": "grid"}
NAMES = ["LLaVA-OneVision", "LLaVA-Video"]


@pytest.fixture(scope="module")
def models(build_model):
    built = [build_model(), build_model(**LLAVA_VIDEO)]
    return {
        name: (model, random_processor(AOTLlavaOnevisionProcessor, model.config)) for name, model in zip(NAMES, built)
    }


def ask(processor, texts, videos, **options):
    return processor(text=texts, videos=videos or None, padding=True, return_tensors="pt", **options)


def each_row_alone(processor, texts, videos, **options):
    """The inputs of each row with the videos that it names."""
    left = iter(videos)
    return [ask(processor, [text], [next(left) for _ in range(text.count("<video>"))], **options) for text in texts]


def rows_of(model, inputs):
    """What the language model says of each row where there is no padding."""
    with torch.no_grad():
        logits = model(**inputs).logits
    return [row[mask.bool()] for row, mask in zip(logits, inputs["attention_mask"])]


@pytest.mark.parametrize("name", NAMES)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    cuts=st.lists(st.sampled_from(["", " and ", "\n"]), min_size=5, max_size=5),
    ratio=st.sampled_from([0.1, 0.25, 0.6, 1.0]),
    are_encoded=st.lists(st.booleans(), min_size=5, max_size=5),
)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_is_what_it_is_alone(models, make_video, name, lengths, cuts, ratio, are_encoded):
    """In rows of up to three videos, back to back or apart, some of them encoded before."""
    model, processor = models[name]
    videos = [make_video(length, seed) for seed, length in enumerate(lengths)]
    texts = [
        "See " + "".join("<video>" + cut for cut, _ in zip(cuts, lengths[first : first + 3])) + "what?"
        for first in range(0, len(lengths), 3)
    ]
    texts.append("only text")
    # The tokens of each video encoded alone, so that nothing of a batch is in the expectation.
    encoded = [model.encode_video(**ask(processor, ["<video>"], [one], retention_ratio=ratio)) for one in videos]
    mixed = [one if is_encoded else video for video, one, is_encoded in zip(videos, encoded, are_encoded)]
    together = rows_of(model, ask(processor, texts, mixed, retention_ratio=ratio))
    left = iter(encoded)
    for text, row in zip(texts, together):
        of_row = [next(left) for _ in range(text.count("<video>"))]
        (alone,) = rows_of(model, ask(processor, [text], of_row))
        torch.testing.assert_close(row, alone, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_greedy_text_of_a_batch_is_that_of_the_rows_alone(model, processor, make_video, make_image, ratio):
    texts = ["See <video>, what?", "<image>And <video>?", "only text", "<video><video>"]
    videos = [make_video(length, seed) for seed, length in enumerate((4, 7, 2, 5))]
    batch = ask(processor, texts, videos, images=[make_image()], retention_ratio=ratio)
    alone = [
        ask(processor, [text], some, retention_ratio=ratio, **images)
        for text, some, images in zip(
            texts, (videos[:1], videos[1:2], [], videos[2:]), ({}, {"images": [make_image()]}, {}, {})
        )
    ]
    assert torch.equal(new_text(model, batch), each_alone(model, alone))


def test_at_ratio_1_each_row_is_the_stock_models(model, stock, processor, stock_processor, make_video):
    texts = ["See <video>, what?", "Or <video> then <video>?"]
    videos = [make_video(length, seed) for seed, length in enumerate((3, 6, 6))]
    batch = ask(processor, texts, videos, retention_ratio=1.0)
    alone = each_row_alone(stock_processor, texts, videos)
    assert torch.equal(new_text(model, batch), each_alone(stock, alone))


def test_full_prompts_of_the_stock_processor_are_cut_down_each_to_its_own_budget(model, processor, make_video):
    """Without `image_sizes_videos` they do not say that all tokens are asked for."""
    texts, videos = ["See <video><video>, what?"], [make_video(3, 0), make_video(8, 1)]
    full = ask(processor, texts, videos, retention_ratio=1.0)
    del full["image_sizes_videos"]
    assert torch.equal(new_text(model, full), new_text(model, ask(processor, texts, videos)))


def test_they_are_of_the_kind_of_tensor_that_is_asked_for(processor, make_video):
    call = {"text": ["<video>a", "<video>b"], "videos": [make_video(4), make_video(2)], "padding": True}
    as_arrays, as_tensors = (processor(**call, return_tensors=kind) for kind in ("np", "pt"))
    assert all(isinstance(value, np.ndarray) for value in as_arrays.values())
    for name, value in as_tensors.items():
        np.testing.assert_array_equal(as_arrays[name], value.numpy())


def test_no_padding_frame_is_looked_at(model, processor, make_video):
    """It is NaN, and would make NaN of all that it meets."""
    inputs = ask(processor, ["<video>What?", "And <video>?"], [make_video(2, 0), make_video(6, 1)])
    assert inputs["pixel_values_videos"][0, 2:].isnan().all()
    seen = []
    handle = model.model.vision_tower.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    try:
        actual = new_text(model, inputs)
    finally:
        handle.remove()
    assert sum(seen) == 2 + 6
    inputs["pixel_values_videos"][0, 2:] = 0
    assert torch.equal(new_text(model, inputs), actual)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_numbers_of_frames_that_a_collator_has_lost(model, processor, make_video, ratio, dtype):
    videos = [make_video(2, 0), make_video(6, 1)]
    inputs = ask(processor, ["<video>What?", "And <video>?"], videos, retention_ratio=ratio).to(dtype)
    del inputs["num_video_frames"]
    for call in (model, model.generate):
        with pytest.raises(ValueError, match="`num_video_frames` is None, but `pixel_values_videos` is padded"):
            call(**inputs)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6), st.floats(0.02, 1.0), st.sampled_from(["one_token", "grid"])
)
@settings(max_examples=100)
def test_frames_imply_the_processors_counts(models, lengths, ratio, newlines):
    model, processor = models["LLaVA-Video" if newlines == "grid" else "LLaVA-OneVision"]
    counts = processor._get_num_multimodal_tokens(
        video_sizes=[(length, 56, 56) for length in lengths], retention_ratio=ratio
    ).num_video_tokens
    assert counts_of_total(sum(counts), lengths, [], model.config) == counts
    encoded = [None, *lengths]
    assert counts_of_total(sum(counts) + 5, encoded, [5], model.config) == [5, *counts]


def test_counts_that_do_not_add_up_are_refused_with_both(model, processor, make_video):
    inputs = ask(processor, ["<video><video> what?"], [make_video(3, 0), make_video(8, 1)])
    placeholders = (inputs["input_ids"][0] == processor.video_token_id).nonzero().flatten()
    ids = inputs["input_ids"][:, : int(placeholders[0])]
    too_few = torch.full((1, 3), processor.video_token_id)
    inputs["input_ids"] = torch.cat([ids, too_few], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with pytest.raises(ValueError, match=r"3 video placeholders for 2 videos.* 3, 8 frames give from 7 to 178"):
        model.generate(**inputs)


def test_runs_that_do_not_fit_the_counts_are_refused_with_both(model, processor, make_video):
    """A word stands within a video."""
    videos = [make_video(3, 0), make_video(8, 1), make_video(5, 2)]
    inputs = ask(processor, ["<video><video><video>"], videos)
    ids = inputs["input_ids"][0]
    inputs["input_ids"] = torch.cat([ids[:20], torch.tensor([7]), ids[20:]])[None]
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with pytest.raises(ValueError, match=r"67 .* in 2 runs \(20, 47\).* 3 videos of 13, 33, 21 placeholders"):
        model.generate(**inputs)


@pytest.mark.parametrize("counts", [[2], [2, 7], [0, 6], [2, 6, 6]])
def test_numbers_of_frames_that_do_not_fit_the_pixels(model, processor, make_video, counts):
    inputs = ask(processor, ["<video>What?", "And <video>?"], [make_video(2, 0), make_video(6, 1)])
    inputs["num_video_frames"] = torch.tensor(counts)
    with pytest.raises(ValueError, match=r"`num_video_frames` is .*2 videos of at most 6 frames"):
        model.generate(**inputs)


def test_training_with_checkpointed_gradients_and_split_batches(build_model, processor, make_video):
    """The loss of a batch has the gradients of its rows; DataParallel gives each device some rows of all tensors."""
    texts, videos = ["<video>What?", "And <video>?"], [make_video(2, 0), make_video(6, 1)]
    inputs = ask(processor, texts, videos)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels = labels.masked_fill(labels == processor.video_token_id, -100)
    gradients = []
    for checkpointed, parts in ((False, [slice(0, 2)]), (True, [slice(0, 2)]), (False, [slice(0, 1), slice(1, 2)])):
        model = build_model().train()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        for part in parts:
            split = {name: tensor[part] for name, tensor in inputs.items()}
            model(**split, labels=labels[part], num_items_in_batch=4).loss.backward()
        gradients.append(model.model.multi_modal_projector.linear_2.weight.grad)
    assert gradients[0].abs().sum() > 0
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], atol=1e-5, rtol=1e-4)
