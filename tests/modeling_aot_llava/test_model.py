"""The model's features and logits against the stock class, single rows, and features computed by hand."""

import copy
import inspect
import io
import pickle
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from small_model import CACHE, SIDE, VARYING, cache_of, image_features, video_features
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionModel

from modeling_aot_llava import AOTLlavaOnevisionModel
from modeling_aot_llava.token_budget import plan_token_budget

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
FULL_COUNT = 4 * 16 + 1
MIXED = {"texts": ("<video>What?", "<image> and <video>, which", "only text"), "seeds": (0, 1)}


@pytest.fixture
def mixed(prompt, make_image):
    """Rows with a video, with an image and a video, and with text alone; left-padded."""
    return lambda **options: prompt(*MIXED["texts"], seeds=MIXED["seeds"], images=[make_image()], **options)


@pytest.fixture
def mixed_rows(prompt, make_image):
    """The same rows, one by one."""
    rows = zip(MIXED["texts"], ((0,), (1,), ()), (None, [make_image()], None))
    return lambda **options: [prompt(text, seeds=seeds, images=images, **options) for text, seeds, images in rows]


@torch.no_grad()
def run(model, inputs, **options):
    return model(**inputs, **options)


def num_placeholders(model, inputs):
    return int((inputs["input_ids"] == model.config.video_token_index).sum())


def text_logits(outputs, row, count):
    """Logits of a left-padded row's last `count` columns."""
    return outputs.logits[row, -count:]


def with_placeholders(inputs, token, *counts):
    """The one-row prompt with other numbers of placeholders in its runs."""
    parts, ids, counts = [], inputs["input_ids"][0].tolist(), list(counts)
    for column, value in enumerate(ids):
        if value != token:
            parts.append(value)
        elif column == 0 or ids[column - 1] != token:
            parts += [token] * counts.pop(0)
    ids = torch.tensor([parts])
    return {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


# --- retention_ratio >= 1: the stock model, bit for bit


STOCK_PROMPTS = {
    "text": ({"texts": ("only text",), "seeds": ()}, 0),
    "image": ({"texts": ("<image>What?",), "seeds": ()}, 1),
    "video": ({"texts": ("<video>What?",), "seeds": (0,)}, 0),
    "two videos": ({"texts": ("<video><video>What?", "no"), "seeds": (0, 1)}, 0),
    "mixed": (MIXED, 1),
}


@pytest.mark.parametrize("ratio", [1, 1.5])
@pytest.mark.parametrize("name", STOCK_PROMPTS)
def test_ratio_of_one_is_the_stock_model_bit_for_bit(model, stock, configure, prompt, make_image, name, ratio):
    configure(retention_ratio=ratio)
    what, num_images = STOCK_PROMPTS[name]
    images = [make_image(seed) for seed in range(num_images)] or None
    inputs = prompt(*what["texts"], seeds=what["seeds"], images=images, retention_ratio=ratio)
    labels = inputs["input_ids"]
    ours, theirs = run(model, inputs, labels=labels), run(stock, inputs, labels=labels)
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.loss, theirs.loss)
    if num_images:
        assert torch.equal(image_features(ours), image_features(theirs))
    if what["seeds"]:
        assert torch.equal(video_features(ours), video_features(theirs))


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_ratio_of_one_generates_what_the_stock_model_does(model, stock, configure, mixed, options):
    configure(retention_ratio=1)
    answers = []
    for one in (model, stock):
        torch.manual_seed(0)
        answers.append(one.generate(**mixed(retention_ratio=1), max_new_tokens=6, **options))
    assert torch.equal(*answers)


def test_ratio_of_one_has_the_stock_features(model, stock, configure, prompt):
    configure(retention_ratio=1)
    pixels = prompt("<video>")["pixel_values_videos"]
    assert torch.equal(model.get_video_features(pixels).pooler_output, stock.get_video_features(pixels).pooler_output)


def test_full_prompt_makes_no_difference_to_images_and_text_alone(model, stock, prompt, make_image):
    """Whatever the ratio: AOT has nothing to do there."""
    inputs = prompt("<image>What?", "and <image>that", "text", seeds=(), images=[make_image(0), make_image(1)])
    assert torch.equal(run(model, inputs).logits, run(stock, inputs).logits)


@pytest.mark.parametrize("ratio", [1, 0.25])
def test_no_hook_stays_in_the_vision_tower(build_model, prompt, ratio):
    model = build_model(retention_ratio=ratio)
    inputs = prompt("<video>What?", retention_ratio=ratio)
    run(model, inputs)
    model.generate(**inputs, max_new_tokens=2)
    model.get_video_features(inputs["pixel_values_videos"])
    linear = [module for module in model.model.vision_tower.modules() if isinstance(module, torch.nn.Linear)]
    assert linear
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in linear)


# --- images are never compressed


def test_images_beside_a_video_have_the_stock_features(model, stock, mixed):
    inputs = mixed()
    expected = stock.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output
    outputs = run(model, inputs)
    torch.testing.assert_close(image_features(outputs), torch.cat(list(expected)), rtol=0, atol=0)
    assert len(image_features(outputs)) == int((inputs["input_ids"] == model.config.image_token_index).sum())


def test_several_images_of_a_prompt_have_the_stock_features(model, stock, prompt, make_image):
    """`batch_num_images` reaches the images: those of a prompt with several are not cut into tiles."""
    images = [make_image(0), make_image(1)]
    inputs = prompt("<image><image><video>", images=images, vision_aspect_ratio="anyres_max_9")
    inputs["batch_num_images"] = torch.tensor([2])
    options = {"batch_num_images": torch.tensor([2])}
    expected = stock.get_image_features(inputs["pixel_values"], inputs["image_sizes"], **options).pooler_output
    image_token = model.config.image_token_index
    inputs = with_placeholders(inputs, image_token, sum(len(features) for features in expected))
    torch.testing.assert_close(image_features(run(model, inputs)), torch.cat(list(expected)), rtol=0, atol=0)


# --- video features


CONFIGS = {
    "paper": {},
    "ratio": {"retention_ratio": 0.6},
    "other layers": {"local_attention_layer": -1, "global_attention_layer": 0},
    "random anchors": {"anchor_selection": "random"},
    "dynamic clips": {"clip_segmentation": "dynamic"},
    "cosine": {"intra_frame_aggregation": "cosine", "inter_frame_aggregation": "cosine"},
    **VARYING,
}


@pytest.mark.parametrize("num_frames", [1, 4, 7])
@pytest.mark.parametrize("name", CONFIGS)
def test_video_features_are_those_made_by_hand_of_the_stock_models_pieces(
    model, stock, configure, prompt, video_tokens_by_hand, name, num_frames
):
    configure(**CONFIGS[name])
    pixels = prompt("<video><video>", seeds=(0, 1), num_frames=num_frames)["pixel_values_videos"]
    features = model.get_video_features(pixels).pooler_output
    expected = video_tokens_by_hand(pixels, model.config)
    if model.config.has_fixed_token_count:
        count = plan_token_budget(model.config, num_frames).num_video_tokens
        assert features.shape == (2, count + 1, model.config.text_config.hidden_size)
    for actual, tokens in zip(features, expected):
        assert torch.equal(actual[-1], stock.model.image_newline)
        torch.testing.assert_close(actual[:-1], tokens, **CLOSE)


def test_videos_of_one_batch_may_have_different_counts(model, configure, prompt):
    configure(**VARYING["temporal_threshold"])
    pixels = prompt("<video><video>", seeds=(0, 1))["pixel_values_videos"]
    features = model.get_video_features(pixels).pooler_output
    assert len({len(tokens) for tokens in features}) == 2
    for video, tokens in zip(pixels, features):
        torch.testing.assert_close(tokens, model.get_video_features(video[None]).pooler_output[0], **CLOSE)


def test_features_from_several_layers(build_model, build_stock, prompt, video_tokens_by_hand):
    layers = [-3, -1]
    model, stock = build_model(vision_feature_layer=layers), build_stock(vision_feature_layer=layers)
    stock.set_attn_implementation("eager")
    inputs = prompt("<video>What?")
    expected = video_tokens_by_hand(inputs["pixel_values_videos"], model.config, layers=layers, stock=stock)
    torch.testing.assert_close(video_features(run(model, inputs))[:-1], expected[0], **CLOSE)


def test_the_feature_layer_may_be_given_for_one_call(model, prompt, video_tokens_by_hand):
    inputs = prompt("<video>What?")
    expected = video_tokens_by_hand(inputs["pixel_values_videos"], model.config, layers=[2])[0]
    outputs = run(model, inputs, vision_feature_layer=2)
    torch.testing.assert_close(video_features(outputs)[:-1], expected, **CLOSE)
    features = model.get_video_features(inputs["pixel_values_videos"], vision_feature_layer=2).pooler_output[0]
    torch.testing.assert_close(features[: len(expected)], expected, **CLOSE)


def test_features_as_a_tuple(model, prompt):
    pixels = prompt("<video>")["pixel_values_videos"]
    features = model.get_video_features(pixels, return_dict=False)
    assert isinstance(features, tuple)
    assert any(
        torch.equal(value, model.get_video_features(pixels).pooler_output)
        for value in features
        if isinstance(value, torch.Tensor)
    )


def test_hidden_states_asked_for_beside_the_features(model, stock, prompt):
    """The stock class gives all of the vision tower's, and so must AOT."""
    pixels = prompt("<video>")["pixel_values_videos"]
    ours, theirs = (one.get_video_features(pixels, output_hidden_states=True).hidden_states for one in (model, stock))
    assert len(ours) == len(theirs)
    for actual, expected in zip(ours, theirs):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_features_do_not_depend_on_the_attention_kernel(build_model, model, prompt, kernel):
    other = build_model()
    other.set_attn_implementation(kernel)
    pixels = prompt("<video>")["pixel_values_videos"]
    torch.testing.assert_close(
        other.get_video_features(pixels).pooler_output, model.get_video_features(pixels).pooler_output, **CLOSE
    )


def test_threads_on_one_model_get_what_they_get_alone(model, prompt):
    prompts = [prompt("<video>What?", seeds=(seed,), retention_ratio=0.1 + 0.2 * seed) for seed in range(3)]
    alone = [run(model, inputs).logits for inputs in prompts]
    start = threading.Barrier(len(prompts), timeout=30)

    def run_beside_others(inputs):
        start.wait()
        return [run(model, inputs).logits for _ in range(3)]

    with ThreadPoolExecutor(len(prompts)) as pool:
        together = list(pool.map(run_beside_others, prompts))
    for expected, several in zip(alone, together):
        for actual in several:
            torch.testing.assert_close(actual, expected, **CLOSE)


def test_a_call_changes_neither_config_nor_weights_nor_random_state(model, prompt, configure):
    configure(anchor_selection="random")
    inputs = prompt("<video>What?", retention_ratio=1.0)
    before = model.config.to_dict(), model.generation_config.to_dict(), torch.get_rng_state()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    kept = {name: value.clone() for name, value in inputs.items()}
    run(model, inputs)
    model.generate(**inputs, max_new_tokens=2)
    assert before[:2] == (model.config.to_dict(), model.generation_config.to_dict())
    assert torch.equal(before[2], torch.get_rng_state())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, kept[name]) for name, value in inputs.items())
    assert torch.is_grad_enabled()


def test_a_field_changed_to_nonsense_is_refused_when_used(model, configure, prompt, vision_tower_calls):
    inputs = prompt("<video>What?")
    configure(local_window_size=8)
    with pytest.raises(ValueError, match=r"local_window_size.*8"):
        run(model, inputs)


# --- the prompt decides


@pytest.mark.parametrize("configured", [0.25, 1])
@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.5, 0.98])
def test_model_keeps_as_many_tokens_as_the_prompt_has_placeholders(
    model, configure, prompt, video_tokens_by_hand, ratio, configured
):
    configure(retention_ratio=configured)
    inputs = prompt("<video>What?", retention_ratio=ratio)
    kept = max(2, round(ratio * 64))
    assert num_placeholders(model, inputs) == kept + 1
    outputs = run(model, inputs)
    assert outputs.logits.shape[:2] == inputs["input_ids"].shape
    expected = video_tokens_by_hand(inputs["pixel_values_videos"], model.config, [kept])[0]
    torch.testing.assert_close(video_features(outputs)[:-1], expected, **CLOSE)


@pytest.mark.parametrize("kept", [1, 2, 63])
def test_any_count_below_the_full_one_is_kept(model, prompt, kept):
    inputs = with_placeholders(prompt("<video>What?"), model.config.video_token_index, kept + 1)
    assert len(video_features(run(model, inputs))) == kept + 1


def test_logits_are_the_stock_language_models_on_the_features_made_by_hand(model, stock, prompt, embeds_by_hand):
    inputs = prompt("See <video>, what?")
    with torch.no_grad():
        expected = stock(inputs_embeds=embeds_by_hand(inputs, model.config)).logits
    torch.testing.assert_close(run(model, inputs).logits, expected, **CLOSE)


def test_other_videos_give_other_logits(model, prompt):
    """Else no comparison of logits here would mean anything."""
    logits = [run(model, prompt("<video>What?", seeds=(seed,))).logits[:, -1] for seed in range(2)]
    assert (logits[0] - logits[1]).abs().max() > 0.1


@pytest.mark.parametrize("texts", [("<video>What?",), ("See <video>, what?", "and <video>?"), MIXED["texts"]])
def test_full_prompt_is_cut_to_the_configs_ratio(model, prompt, make_image, texts):
    seeds = range(sum("<video>" in text for text in texts))
    images = [make_image()] if any("<image>" in text for text in texts) else None
    full, exact = (prompt(*texts, seeds=seeds, images=images, retention_ratio=ratio) for ratio in (1.0, 0.25))
    assert num_placeholders(model, full) == len(seeds) * FULL_COUNT
    ours, expected = run(model, full), run(model, exact)
    assert ours.logits.shape == expected.logits.shape
    used = exact["attention_mask"].bool()
    assert torch.equal(ours.logits[used], expected.logits[used])
    assert torch.equal(video_features(ours), video_features(expected))


@pytest.mark.parametrize("mask", ["integers", "booleans", "none"])
@pytest.mark.parametrize("positions", [True, False])
def test_full_prompt_is_cut_whatever_else_describes_it(model, prompt, mask, positions):
    """Position ids count the tokens that are there, and a mask may be absent."""
    logits = []
    for ratio in (1.0, 0.25):
        inputs = prompt("See <video>, what?", retention_ratio=ratio)
        if positions:
            inputs["position_ids"] = torch.arange(inputs["input_ids"].shape[1])[None]
        if mask == "booleans":
            inputs["attention_mask"] = inputs["attention_mask"].bool()
        elif mask == "none":
            del inputs["attention_mask"]
        logits.append(run(model, inputs).logits)
    torch.testing.assert_close(*logits, **CLOSE)


def test_position_ids_of_a_full_padded_batch_are_cut_with_it(model, prompt):
    logits = []
    for ratio in (1.0, 0.25):
        inputs = prompt("See <video>, what?", "<video>", "text", seeds=(0, 1), retention_ratio=ratio)
        positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        logits.append(run(model, inputs, position_ids=positions).logits[:, -1])
    torch.testing.assert_close(*logits, **CLOSE)


def test_full_prompt_of_the_stock_processor(model, prompt, stock_processor, make_video):
    inputs = stock_processor(text=["<video>What?"], videos=[make_video()], return_tensors="pt")
    assert torch.equal(run(model, inputs).logits, run(model, prompt("<video>What?")).logits)


def test_config_may_change_between_calls(model, configure, prompt):
    full = prompt("<video>What?", retention_ratio=1.0)
    for ratio in (0.5, 0.1):
        configure(retention_ratio=ratio)
        expected = run(model, prompt("<video>What?", retention_ratio=ratio)).logits
        assert torch.equal(run(model, full).logits, expected)


def test_full_and_reduced_counts_in_one_batch(model, prompt):
    """Each row by its own placeholders: the first is cut to the config's ratio, the second has what it asks for."""
    full, reduced = prompt("<video>What?", retention_ratio=1.0), prompt("<video>?", seeds=(1,), retention_ratio=0.5)
    width = full["input_ids"].shape[1]
    missing = width - reduced["input_ids"].shape[1]
    batch = {
        "input_ids": torch.cat([full["input_ids"], torch.nn.functional.pad(reduced["input_ids"], (missing, 0))]),
        "attention_mask": torch.nn.functional.pad(reduced["attention_mask"], (missing, 0)).repeat(2, 1),
        "pixel_values_videos": torch.cat([full["pixel_values_videos"], reduced["pixel_values_videos"]]),
    }
    batch["attention_mask"][0] = 1
    outputs = run(model, batch)
    assert len(video_features(outputs)) == 17 + 33
    for row, alone in enumerate((full, reduced)):
        expected = run(model, alone).logits[0]
        torch.testing.assert_close(text_logits(outputs, row, len(expected)), expected, **CLOSE)


@pytest.mark.parametrize("text", ["<video>, <video> or <video>?", "<video><video><video>", "<video><video>, <video>?"])
@pytest.mark.parametrize("ratio", [0.1, 1.0])
def test_several_videos_in_a_prompt_each_keep_what_they_keep_alone(model, prompt, text, ratio):
    seeds = (0, 1, 2)
    outputs = run(model, prompt(text, seeds=seeds, retention_ratio=ratio))
    alone = [run(model, prompt("<video>", seeds=(seed,), retention_ratio=ratio)) for seed in seeds]
    expected = torch.cat([video_features(outputs) for outputs in alone])
    torch.testing.assert_close(video_features(outputs), expected, **CLOSE)


def test_several_videos_in_a_prompt_may_have_different_budgets(model, prompt):
    counts, seeds = (5, 33, FULL_COUNT), (0, 1, 2)
    inputs = prompt("<video>, <video> or <video>?", seeds=seeds)
    token = model.config.video_token_index
    outputs = run(model, with_placeholders(inputs, token, *counts))
    alone = [
        run(model, with_placeholders(prompt("<video>", seeds=(seed,)), token, count))
        for seed, count in zip(seeds, counts)
    ]
    assert [len(video_features(one)) for one in alone] == [5, 33, 17]
    expected = torch.cat([video_features(one) for one in alone])
    torch.testing.assert_close(video_features(outputs), expected, **CLOSE)


@pytest.mark.parametrize("ratio", [0.1, 1.0])
def test_rows_of_a_left_padded_batch_equal_the_rows_alone(model, mixed, mixed_rows, ratio):
    outputs = run(model, mixed(retention_ratio=ratio))
    for row, alone in enumerate(mixed_rows(retention_ratio=ratio)):
        expected = run(model, alone).logits[0]
        torch.testing.assert_close(text_logits(outputs, row, len(expected)), expected, **CLOSE)


@pytest.mark.parametrize("ratio", [0.1, 1.0])
def test_rows_of_a_right_padded_batch_equal_the_rows_alone(model, mixed, mixed_rows, ratio):
    outputs = run(model, mixed(retention_ratio=ratio, padding_side="right"))
    for row, alone in enumerate(mixed_rows(retention_ratio=ratio)):
        expected = run(model, alone).logits[0]
        torch.testing.assert_close(outputs.logits[row, : len(expected)], expected, **CLOSE)


@pytest.mark.parametrize("name", VARYING)
@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_a_batch_whose_counts_depend_on_the_video(
    model, configure, mixed, mixed_rows, video_tokens_by_hand, name, ratio, side
):
    configure(**VARYING[name])
    inputs = mixed(retention_ratio=ratio, padding_side=side)
    outputs = run(model, inputs)
    counts = None if ratio == 1 else [16, 16]
    by_hand = [len(tokens) for tokens in video_tokens_by_hand(inputs["pixel_values_videos"], model.config, counts)]
    assert len(set(by_hand)) == 2
    assert (0 in by_hand) == ("no token" in name)
    assert (max(by_hand) > 64) == ("more" in name)
    assert len(video_features(outputs)) == sum(by_hand) + 2
    for row, alone in enumerate(mixed_rows(retention_ratio=ratio)):
        expected = run(model, alone).logits[0]
        actual = outputs.logits[row]
        actual = actual[-len(expected) :] if side == "left" else actual[: len(expected)]
        torch.testing.assert_close(actual, expected, **CLOSE)


def test_embeddings_instead_of_ids(model, prompt):
    texts, seeds = ("See <video>, what?", "<video>"), (0, 1)
    used = prompt(*texts, seeds=seeds)["attention_mask"].bool()
    for ratio in (0.25, 1.0):
        inputs = prompt(*texts, seeds=seeds, retention_ratio=ratio)
        expected = run(model, inputs).logits
        embeds = model.get_input_embeddings()(inputs.pop("input_ids")).detach()
        assert torch.equal(run(model, inputs, inputs_embeds=embeds).logits[used], expected[used])


# --- counts that do not fit


def refusal(model, inputs, entry, calls):
    """The message with which the model refuses a prompt, before it looks at any pixel."""
    with pytest.raises(ValueError, match="AOTLlavaOnevisionProcessor") as caught, torch.no_grad():
        entry(model, inputs)
    assert not calls, "the vision tower ran before the prompt was checked"
    return {int(number) for number in re.findall(r"\d+", str(caught.value))}


ENTRIES = [
    pytest.param(lambda model, inputs: model(**inputs), id="forward"),
    pytest.param(lambda model, inputs: model.generate(**inputs, max_new_tokens=2), id="generate"),
]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("configured", [0.25, 1])
@pytest.mark.parametrize("count", [1, FULL_COUNT + 1, 3 * FULL_COUNT])
def test_count_that_the_frames_cannot_give(model, configure, prompt, vision_tower_calls, entry, configured, count):
    configure(retention_ratio=configured)
    inputs = with_placeholders(prompt("<video>What?"), model.config.video_token_index, count)
    assert {count, FULL_COUNT} <= refusal(model, inputs, entry, vision_tower_calls)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(("runs", "num_videos"), [([17, 17], 1), ([17], 2), ([17, 17, 17], 2), ([], 1), ([4, 2], 4)])
def test_number_of_runs_that_is_not_the_number_of_videos(model, prompt, vision_tower_calls, entry, runs, num_videos):
    inputs = prompt("<video>." * len(runs) + "?", seeds=range(len(runs)))
    inputs = with_placeholders(inputs, model.config.video_token_index, *runs)
    inputs["pixel_values_videos"] = torch.zeros(num_videos, 4, 3, 56, 56)
    assert {len(runs), num_videos} <= refusal(model, inputs, entry, vision_tower_calls)


@pytest.mark.parametrize("entry", ENTRIES)
def test_image_count_that_does_not_fit_beside_a_video(model, mixed, vision_tower_calls, entry):
    inputs = mixed()
    placeholders = (inputs["input_ids"] == model.config.image_token_index).nonzero()
    row, column = placeholders[0].tolist()
    inputs["input_ids"][row, column] = 5
    wrong, right = len(placeholders) - 1, len(placeholders)
    with pytest.raises(ValueError, match=rf"Image features.*\b{wrong}\b.*\b{right}\b"):
        entry(model, inputs)


def test_a_video_without_a_prompt_is_refused(model, prompt):
    with pytest.raises(ValueError, match=r"input_ids.*inputs_embeds"):
        model(pixel_values_videos=prompt("<video>")["pixel_values_videos"])


# --- calling conventions


@pytest.mark.parametrize("method", ["forward", "generate"])
def test_signatures_are_the_stock_ones_and_what_our_processor_adds(model, method):
    """Trainers and `generate` itself look there for the arguments' names."""
    added = ["num_video_frames", "encoded_video_tokens", "encoded_video_lengths", "encoded_video_marks"]
    stock_method = getattr(LlavaOnevisionForConditionalGeneration, method)
    names = list(inspect.signature(getattr(model, method)).parameters)
    assert names == with_added(stock_method, added)[1:]
    inner = list(inspect.signature(AOTLlavaOnevisionModel.forward).parameters)
    assert inner == with_added(LlavaOnevisionModel.forward, added)


def with_added(stock_method, added):
    *names, keywords = inspect.signature(stock_method).parameters
    return [*names, *added, keywords]


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_arguments_by_position(model, prompt, ratio):
    inputs = prompt("<video>What?", retention_ratio=ratio)
    ids, mask, pixels = (inputs[name] for name in ("input_ids", "attention_mask", "pixel_values_videos"))
    expected = run(model, inputs).logits
    with torch.no_grad():
        assert torch.equal(model(ids, None, None, pixels, None, mask).logits, expected)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_tuples_have_the_stock_models_order(model, stock, configure, mixed, ratio):
    inputs = mixed(retention_ratio=1.0)
    configure(retention_ratio=ratio)
    with_labels = {"labels": inputs["input_ids"], "return_dict": False, "output_hidden_states": True}
    ours, theirs = run(model, inputs, **with_labels), run(stock, inputs, **with_labels)
    assert isinstance(ours, tuple)
    assert [type(value) for value in ours] == [type(value) for value in theirs]
    named = run(model, inputs, labels=inputs["input_ids"])
    assert torch.equal(ours[0], named.loss)
    assert torch.equal(ours[1], named.logits)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_hidden_states_are_those_of_the_compressed_sequence(model, prompt, ratio):
    inputs = prompt("<video>What?", retention_ratio=ratio)
    outputs = run(model, inputs, output_hidden_states=True)
    assert len(outputs.hidden_states) == model.config.text_config.num_hidden_layers + 1
    length = prompt("<video>What?")["input_ids"].shape[1]
    assert {states.shape[1] for states in outputs.hidden_states} == {length}
    assert torch.equal(model.lm_head(outputs.hidden_states[-1]), outputs.logits)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize("keep", [1, 3])
def test_logits_to_keep(model, prompt, ratio, keep):
    inputs = prompt("<video>What?", retention_ratio=ratio)
    torch.testing.assert_close(run(model, inputs, logits_to_keep=keep).logits, run(model, inputs).logits[:, -keep:])


def test_inner_model_gives_the_hidden_states_under_the_logits(model, mixed):
    """It is the parent's `forward`: the prompt has the count of the config's ratio."""
    inputs = mixed()
    inner, outputs = run(model.model, inputs), run(model, inputs)
    assert torch.equal(model.lm_head(inner.last_hidden_state), outputs.logits)
    assert torch.equal(video_features(inner), video_features(outputs))
    assert torch.equal(image_features(inner), image_features(outputs))


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_a_cache_carries_on_where_the_compressed_prompt_ends(model, prompt, ratio):
    inputs = prompt("<video>What?", retention_ratio=ratio)
    exact = prompt("<video>What?")
    more = torch.tensor([[7, 8, 9]])
    first = run(model, inputs, use_cache=True)
    second = run(model, {"input_ids": more, CACHE: cache_of(first)})
    ids = torch.cat([exact["input_ids"], more], dim=1)
    whole = run(model, {"input_ids": ids, "pixel_values_videos": exact["pixel_values_videos"]})
    torch.testing.assert_close(second.logits, whole.logits[:, -3:], **CLOSE)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize("masked", [True, False])
def test_a_second_video_after_a_cache(model, prompt, ratio, masked):
    first, second = prompt("<video>What?", retention_ratio=ratio), prompt("<video>So?", seeds=(1,))
    outputs = run(model, first, use_cache=True)
    later = dict(prompt("<video>So?", seeds=(1,), retention_ratio=ratio))
    width = cache_of(outputs).get_seq_length() + later["input_ids"].shape[1]
    later["attention_mask"] = torch.ones(1, width, dtype=torch.long) if masked else None
    logits = run(model, later, **{CACHE: cache_of(outputs)}).logits
    whole = {
        "input_ids": torch.cat([prompt("<video>What?")["input_ids"], second["input_ids"]], dim=1),
        "pixel_values_videos": torch.cat([first["pixel_values_videos"], second["pixel_values_videos"]]),
    }
    assert logits.shape[:2] == second["input_ids"].shape
    torch.testing.assert_close(logits, run(model, whole).logits[:, -logits.shape[1] :], **CLOSE)


def test_second_videos_of_a_padded_batch_after_a_cache(model, prompt):
    """The mask is that of the whole conversation; the rows get their new padding behind the cache."""
    texts, seeds = ("<video>So?", "See <video>."), (2, 3)
    logits = []
    for ratio in (0.25, 1.0):
        cache = cache_of(run(model, prompt("<video>?", "And <video>?", seeds=(0, 1)), use_cache=True))
        earlier_mask = prompt("<video>?", "And <video>?", seeds=(0, 1))["attention_mask"]
        later = prompt(*texts, seeds=seeds, retention_ratio=ratio)
        later["attention_mask"] = torch.cat([earlier_mask, later["attention_mask"]], dim=1)
        positions = (later["attention_mask"].cumsum(-1) - 1).clamp(min=0)[:, -later["input_ids"].shape[1] :]
        logits.append(run(model, later, **{CACHE: cache}, position_ids=positions).logits[:, -1])
    torch.testing.assert_close(*logits, **CLOSE)


def test_videos_encoded_beforehand(model, prompt):
    inputs = prompt("<video>What?", "and <video>?", seeds=(0, 1))
    expected = run(model, inputs).logits
    encoded = {"video": model.get_video_features(inputs.pop("pixel_values_videos"))}
    torch.testing.assert_close(run(model, inputs, mm_encoder_outputs=encoded).logits, expected, **CLOSE)


def test_placeholders_without_their_video_are_refused(model, prompt):
    """As where a data collator drops the pixels: the loss would fall all the same."""
    for ratio in (0.25, 1.0):
        inputs = prompt("<video>What?", retention_ratio=ratio)
        del inputs["pixel_values_videos"]
        count = num_placeholders(model, inputs)
        for call in (model, model.generate):
            with pytest.raises(ValueError, match=rf"\b{count} video placeholders.*pixel_values_videos"):
                call(**inputs)


def test_embeddings_that_hold_the_video_are_not_blind(model, prompt, embeds_by_hand):
    """With the ids beside them, which logits processors read."""
    inputs = prompt("<video>What?")
    embeds = embeds_by_hand(inputs, model.config)
    expected = model.generate(**inputs, max_new_tokens=4)
    assert torch.equal(model.generate(inputs["input_ids"], inputs_embeds=embeds, max_new_tokens=4), expected)
    new_alone = model.generate(inputs_embeds=embeds, max_new_tokens=4)
    assert torch.equal(new_alone, expected[:, inputs["input_ids"].shape[1] :])
    torch.testing.assert_close(run(model, {"inputs_embeds": embeds}).logits, run(model, inputs).logits, **CLOSE)


@pytest.mark.parametrize("with_ids", [False, True])
def test_embeddings_of_placeholders_without_their_video_are_refused(model, prompt, with_ids):
    inputs = prompt("<video>What?")
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach()
    blind = {"inputs_embeds": embeds, **({"input_ids": inputs["input_ids"]} if with_ids else {})}
    with pytest.raises(ValueError, match=r"17 video placeholders.*pixel_values_videos"):
        model.generate(**blind, max_new_tokens=2)
    if not with_ids:
        with pytest.raises(ValueError, match=r"17 video placeholders.*pixel_values_videos"):
            run(model, blind)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_pixels_without_the_dimension_of_videos_are_refused(model, prompt, ratio):
    inputs = prompt("<video>What?", retention_ratio=ratio)
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"][0]
    for call in (model, model.generate):
        with pytest.raises(
            ValueError, match=rf"shape \(4, 3, {SIDE}, {SIDE}\).*\(videos, frames, channels, height, width\)"
        ):
            call(**inputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_the_default_dtype_changes_nothing(model, prompt, dtype, ratio):
    inputs = prompt("<video>What?", "and <video>", seeds=(0, 1), retention_ratio=ratio)
    expected = run(model, inputs).logits
    answer = model.generate(**inputs, max_new_tokens=3)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(run(model, inputs).logits, expected)
        assert torch.equal(model.generate(**inputs, max_new_tokens=3), answer)
    finally:
        torch.set_default_dtype(before)


def test_the_default_device_changes_nothing(model, prompt):
    """Every tensor is made where the inputs are: on the meta device there would be nothing to compute with."""
    inputs = prompt("<video>What?", "and <video>", seeds=(0, 1), retention_ratio=1.0)
    expected = model.get_video_features(inputs["pixel_values_videos"]).pooler_output
    with torch.device("meta"):
        features = model.get_video_features(inputs["pixel_values_videos"]).pooler_output
    assert torch.equal(features, expected)


def test_a_model_whose_parts_are_compiled_too_gives_the_same(build_model, prompt):
    inputs = prompt("<video>What?", retention_ratio=0.25)
    model = build_model()
    expected = run(model, inputs).logits
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(run(compiled, inputs).logits, expected, **CLOSE)
    torch.testing.assert_close(run(compiled, inputs).logits, expected, **CLOSE)
    model.model.language_model.compile(backend="eager")
    model.model.vision_tower.compile(backend="eager")
    torch.testing.assert_close(run(model, inputs).logits, expected, **CLOSE)
    torch.testing.assert_close(run(compiled, inputs).logits, expected, **CLOSE)


def test_the_projector_is_called_as_the_stock_model_calls_it(build_model, prompt):
    """Quantised layers take (frames, patches, channels) and no other shape."""
    model, shapes = build_model(), []
    model.model.multi_modal_projector.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    run(model, prompt("<video>a", "<video>b", seeds=(0, 1)))
    assert shapes == [(8, 49, 64)]


# --- precision and copies


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CONFIGS)
def test_half_precision_model_runs_and_stays_in_its_dtype(build_model, prompt, dtype, name):
    model = build_model(**CONFIGS[name]).to(dtype)
    inputs = prompt("<video>What?", retention_ratio=1.0).to(dtype)
    outputs = run(model, inputs)
    assert outputs.logits.dtype == video_features(outputs).dtype == dtype
    assert outputs.logits.isfinite().all()
    assert model.generate(**inputs, max_new_tokens=2).shape[1] == inputs["input_ids"].shape[1] + 2


def saved_and_loaded(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch": saved_and_loaded,
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_of_the_model_work_on_their_own(model, build_model, prompt, how):
    full = prompt("<video>What?", retention_ratio=1.0)
    expected = run(model, full).logits
    original = build_model()  # never run: the hooks of transformers' own, set by the first run, cannot be pickled
    twin = COPIES[how](original)
    assert torch.equal(run(twin, full).logits, expected)
    twin.config.retention_ratio = 0.5
    assert run(twin, full).logits.shape[1] == expected.shape[1] + 16
    assert torch.equal(run(original, full).logits, expected)


def test_a_model_that_has_run_can_be_copied(model, build_model, prompt):
    full = prompt("<video>What?", retention_ratio=1.0)
    original = build_model()
    expected = run(original, full).logits
    assert torch.equal(run(copy.deepcopy(original), full).logits, expected)
