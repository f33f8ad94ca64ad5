"""AOT on the Qwen-VL family against the stock models: what is kept, where it stands, and every way to ask."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_hosts import HOSTS, config_of, image_of, inputs_of, our_model, processor_of, stock_model, video_of
from small_model import CACHE, TRANSFORMERS, cache_of

from modeling_aot_llava.mrope_positions import modality_types
from modeling_aot_llava.qwen_vl_encoding import encode_video
from modeling_aot_llava.qwen_vl_releases import FIRST_UNKNOWN
from modeling_aot_llava.token_budget import plan_token_budget

NEW = 6
CLIPS = [video_of(7, 2, 3, seed=1), video_of(10, 3, 3, seed=2)]


def answer(model, inputs, **options):
    """The new tokens alone."""
    width = inputs["input_ids"].shape[1]
    return model.generate(**inputs, max_new_tokens=NEW, **options)[:, width:]


def run(pair, model, inputs):
    """Logits, and the positions with which the language model ran."""
    seen = []

    def note(module, args, kwargs):
        seen.append(kwargs["position_ids"])

    handle = model.model.language_model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad():
            return model(**inputs).logits, seen[-1]
    finally:
        handle.remove()


def kept_of(pair, model, inputs, count=None):
    """(F, P) of the first video."""
    grid = tuple(inputs["video_grid_thw"][0].tolist())
    with torch.no_grad():
        pixels = inputs["pixel_values_videos"][: grid[0] * grid[1] * grid[2]]
        return encode_video(model.model, pixels, grid, count).is_kept


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_with_all_tokens_everything_is_the_stock_models(pair, options):
    full = inputs_of(pair.stock_processor, CLIPS)
    whole = inputs_of(pair.processor, CLIPS, retention_ratio=1)
    assert torch.equal(full["input_ids"], whole["input_ids"])
    if not options:
        assert torch.equal(pair.stock(**full).logits, pair.ours(**whole).logits)
    torch.manual_seed(0)
    theirs = answer(pair.stock, full, **options)
    torch.manual_seed(0)
    assert torch.equal(theirs, answer(pair.ours, whole, **options))


def test_a_ratio_of_one_in_the_config_is_the_stock_model_too(pair):
    model = our_model(pair.host, pair.stock, retention_ratio=1.0)
    full = inputs_of(pair.stock_processor, CLIPS)
    assert torch.equal(pair.stock(**full).logits, model(**full).logits)


def test_exact_and_stock_prompts_answer_alike(pair):
    full, exact = inputs_of(pair.stock_processor, CLIPS), inputs_of(pair.processor, CLIPS)
    assert exact["input_ids"].shape[1] < full["input_ids"].shape[1]
    both = pair.ours.generate(**full, max_new_tokens=NEW)
    assert torch.equal(both[:, : full["input_ids"].shape[1]], full["input_ids"])  # the caller's own prompt
    assert torch.equal(both[:, full["input_ids"].shape[1] :], answer(pair.ours, exact))
    torch.testing.assert_close(pair.ours(**full).logits[:, -1], pair.ours(**exact).logits[:, -1])


def test_the_exact_prompt_is_run_as_it_is_written(pair):
    exact = inputs_of(pair.processor, CLIPS)
    assert pair.ours(**exact).logits.shape[1] == exact["input_ids"].shape[1]


@pytest.mark.parametrize("count", [2, 5, 12])
def test_the_processor_writes_what_each_frame_keeps_and_all_else_as_the_stock_one(pair, count):
    video = video_of(count, 3, 2, seed=count)
    full, exact = inputs_of(pair.stock_processor, [video]), inputs_of(pair.processor, [video])
    texts = [pair.processor.decode(inputs["input_ids"][0]) for inputs in (full, exact)]
    assert len({text.replace("<|video_pad|>", "") for text in texts}) == 1
    kept = kept_of(pair, pair.ours, exact)
    written = texts[1].split("<|vision_start|>")[1:]
    lengths = [part.count("<|video_pad|>") for part in written if part.startswith(("<|video_pad|>", "<|vision_end|>"))]
    assert lengths == (kept.sum(1).tolist() if pair.host.has_span_a_frame else [int(kept.sum())])


def naive_positions(pair, ids, grid, kept, seconds):
    """A walk over the prompt: text advances all three; a frame's token stands at its frame, row and column."""
    config = pair.ours.config
    height, width = grid[1] // 2, grid[2] // 2
    is_qwen3 = pair.host.has_span_a_frame
    frames = iter(range(grid[0]))
    positions, now, column = [], 0, 0
    while column < len(ids):
        run = 0
        while column + run < len(ids) and ids[column + run] == config.video_token_id:
            run += 1
        is_video = run > 0 or (
            is_qwen3 and ids[column] == config.vision_end_token_id and ids[column - 1] == config.vision_start_token_id
        )
        if is_video:
            for frame in [next(frames)] if is_qwen3 else frames:
                time = 0 if is_qwen3 else int(frame * seconds * getattr(config.vision_config, "tokens_per_second", 1))
                for place in kept[frame].nonzero().flatten().tolist():
                    positions.append((now + time, now + place // width, now + place % width))
            now += max(height, width)
            column += run
            if run:
                continue
        positions.append((now, now, now))
        now += 1
        column += 1
    return torch.tensor(positions).T


@pytest.mark.parametrize("name", ["ours", "dynamic"])
@pytest.mark.parametrize(("frames", "height", "width"), [(2, 2, 2), (6, 3, 5), (9, 4, 2)])
def test_positions_are_those_of_a_naive_walk_and_of_the_stock_rule(pair, name, frames, height, width):
    model, video = getattr(pair, name), video_of(frames, height, width, seed=frames)
    exact = inputs_of(pair.processor, [video], fps=4.0)
    full = inputs_of(pair.stock_processor, [video], fps=4.0)
    kept = kept_of(pair, model, exact)
    _, positions = run(pair, model, exact)
    ids, grid = full["input_ids"], full["video_grid_thw"][0].tolist()
    is_left = ids[0] != model.config.video_token_id
    is_left[~is_left] = kept.flatten()
    grids = {name: full[name] for name in ("video_grid_thw", "second_per_grid_ts") if name in full}
    of_stock, deltas = pair.stock.model.get_rope_index(ids, modality_types(ids, model.config), **grids)
    assert torch.equal(positions[-3:, 0], of_stock[:, 0, is_left])
    assert int(model.model.rope_deltas) == int(deltas) + int((~is_left).sum())
    seconds = float(full["second_per_grid_ts"][0]) if "second_per_grid_ts" in full else 1.0
    walked = naive_positions(pair, ids[0, is_left].tolist(), grid, kept, seconds)
    assert torch.equal(positions[-3:, 0], walked)


def test_each_row_of_a_batch_answers_as_it_does_alone(pair):
    texts = [
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>What?",
        "<|vision_start|><|video_pad|><|vision_end|>Tell me all that there is to see.",
    ]
    together = answer(pair.ours, inputs_of(pair.processor, CLIPS, texts))
    for row, (video, text) in enumerate(zip(CLIPS, texts)):
        assert torch.equal(together[row : row + 1], answer(pair.ours, inputs_of(pair.processor, [video], text)))


def test_videos_of_one_row_and_a_row_without_any(pair):
    two = "<|vision_start|><|video_pad|><|vision_end|>Or <|vision_start|><|video_pad|><|vision_end|>?"
    inputs = inputs_of(pair.processor, CLIPS, [two, "Hello"])
    full = inputs_of(pair.stock_processor, CLIPS, [two, "Hello"])
    assert torch.equal(answer(pair.ours, inputs), answer(pair.ours, full))
    alone = pair.processor(text=["Hello"], return_tensors="pt")
    assert torch.equal(answer(pair.ours, inputs)[1:], answer(pair.stock, alone))


@pytest.mark.parametrize("name", ["ours", "dynamic"])
def test_greedy_search_is_a_loop_of_whole_forwards(pair, name):
    model, inputs = getattr(pair, name), inputs_of(pair.processor, CLIPS[:1])
    expected = answer(model, inputs)
    grown = dict(inputs)
    for step in range(NEW):
        token = model(**grown).logits[:, -1].argmax(-1, keepdim=True)
        assert torch.equal(token, expected[:, step : step + 1])
        for key, more in (("input_ids", token), ("attention_mask", torch.ones_like(token))):
            grown[key] = torch.cat([grown[key], more], 1)
        grown["mm_token_type_ids"] = torch.cat([grown["mm_token_type_ids"], torch.zeros_like(token)], 1)


MODES = {
    "beams": {"num_beams": 3},
    "sequences": {"num_beams": 2, "num_return_sequences": 2},
    "static cache": {"cache_implementation": "static"},
    "no cache": {"use_cache": False},
    "prompt lookup": {"prompt_lookup_num_tokens": 2},
    "assistant": {"assistant_model": True},
    "sampling": {"do_sample": True, "top_k": 5, "num_return_sequences": 3},
    "chunked prefill": {"prefill_chunk_size": 8},
}
GREEDY = ("static cache", "no cache", "prompt lookup", "assistant", "chunked prefill")


@pytest.mark.parametrize("name", ["ours", "dynamic"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_answers_alike_from_exact_and_from_stock_prompts(pair, name, mode):
    model, options = getattr(pair, name), dict(MODES[mode])
    videos = CLIPS[:1] if mode in ("prompt lookup", "assistant") else CLIPS
    # What is looked up must not be a placeholder: the stock models fail there, too.
    text = "<|vision_start|><|video_pad|><|vision_end|>abcabcab"
    exact, full = (inputs_of(processor, videos, text) for processor in (pair.processor, pair.stock_processor))
    if mode == "assistant":
        options["assistant_model"] = model
    if mode == "chunked prefill" and TRANSFORMERS < (5, 23):
        with pytest.raises(ValueError, match=r"needs transformers 5\.23"):
            answer(model, exact, **options)
        return
    answers = []
    for inputs in (exact, full):
        torch.manual_seed(0)
        answers.append(answer(model, inputs, **options))
    assert torch.equal(*answers)
    if mode in GREEDY:
        assert torch.equal(answers[0], answer(model, exact))


def test_an_image_beside_a_video_and_images_or_text_alone(pair):
    text = "<|vision_start|><|image_pad|><|vision_end|><|vision_start|><|video_pad|><|vision_end|>What?"
    images = [image_of(2, 3)]
    exact = inputs_of(pair.processor, CLIPS[:1], text, images=images)
    full = inputs_of(pair.stock_processor, CLIPS[:1], text, images=images)
    assert torch.equal(answer(pair.ours, exact), answer(pair.ours, full))
    other = inputs_of(pair.processor, CLIPS[:1], text, images=[image_of(2, 3, seed=9)])
    assert not torch.equal(pair.ours(**exact).logits, pair.ours(**other).logits)
    whole = inputs_of(pair.processor, CLIPS[:1], text, images=images, retention_ratio=1)
    assert torch.equal(pair.ours(**whole).logits, pair.stock(**full).logits)
    assert torch.equal(answer(pair.ours, whole), answer(pair.stock, full))
    for inputs in (
        pair.stock_processor(text=[text.split("<|vision_start|><|video")[0]], images=images, return_tensors="pt"),
        pair.stock_processor(text=["Hello there"], return_tensors="pt"),
    ):
        assert torch.equal(answer(pair.ours, inputs), answer(pair.stock, inputs))


def test_a_second_turn_on_the_cache_is_the_whole_conversation_without_one(pair):
    first = inputs_of(pair.processor, CLIPS[:1])
    out = pair.ours.generate(**first, max_new_tokens=NEW, return_dict_in_generate=True)
    more = pair.processor.tokenizer("<|im_end|>And then?", return_tensors="pt")["input_ids"]
    ids = torch.cat([out.sequences, more], 1)
    turn = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    on_cache = answer(pair.ours, {**turn, CACHE: cache_of(out)})
    types = modality_types(ids, pair.ours.config)
    whole = {**first, **turn, "mm_token_type_ids": types}
    assert torch.equal(on_cache, answer(pair.ours, whole))


def test_a_new_video_or_image_in_a_later_turn_is_refused(pair):
    first = inputs_of(pair.processor, CLIPS[:1])
    out = pair.ours.generate(**first, max_new_tokens=2, return_dict_in_generate=True)
    ids = torch.cat([out.sequences, first["input_ids"]], 1)
    again = {**first, "input_ids": ids, "attention_mask": torch.ones_like(ids), CACHE: cache_of(out)}
    again.pop("mm_token_type_ids")
    with pytest.raises(ValueError, match="video in a later turn"):
        pair.ours.generate(**again, max_new_tokens=2)
    with pytest.raises(ValueError, match="video in a later turn"):
        pair.ours(**again)
    image = pair.processor(
        text=["<|vision_start|><|image_pad|><|vision_end|>"], images=[image_of(2, 2)], return_tensors="pt"
    )
    ids = torch.cat([out.sequences, image["input_ids"]], 1)
    again = {**image, "input_ids": ids, "attention_mask": torch.ones_like(ids), CACHE: cache_of(out)}
    again.pop("mm_token_type_ids")
    with pytest.raises(ValueError, match="image in a later turn"):
        pair.ours.generate(**again, max_new_tokens=2)


def test_a_later_turn_on_a_fitted_prompt_is_refused(pair):
    full = inputs_of(pair.stock_processor, CLIPS[:1])
    out = pair.ours.generate(**full, max_new_tokens=2, return_dict_in_generate=True)
    turn = {"input_ids": out.sequences, "attention_mask": torch.ones_like(out.sequences), CACHE: cache_of(out)}
    with pytest.raises(ValueError, match="another number of video placeholders"):
        pair.ours.generate(**turn, max_new_tokens=2)


def test_a_video_that_did_not_come_is_missed(pair):
    exact = inputs_of(pair.processor, CLIPS[:1])
    blind = {name: exact[name] for name in ("input_ids", "attention_mask")}
    for call in (pair.ours, pair.ours.generate, pair.ours.model):
        with pytest.raises(ValueError, match="answer blindly"):
            call(**blind)


def test_prompts_and_pixels_that_do_not_belong_together_are_refused(pair):
    exact, other = (inputs_of(pair.processor, [video]) for video in CLIPS)
    pixels = {name: other[name] for name in ("pixel_values_videos", "video_grid_thw")}
    without_grid = {name: value for name, value in exact.items() if name != "video_grid_thw"}
    with pytest.raises(ValueError, match="video_grid_thw"):
        pair.ours(**without_grid)
    embeds = pair.ours.get_input_embeddings()(exact["input_ids"])
    without_ids = {name: value for name, value in exact.items() if name != "input_ids"}
    with pytest.raises(ValueError, match="input_ids"):
        pair.ours(**without_ids, inputs_embeds=embeds)
    none = {**exact, **pixels, "input_ids": exact["input_ids"].clone().fill_(5)}
    with pytest.raises(ValueError, match="one call of the processor"):
        pair.ours.generate(**none, max_new_tokens=2)
    for field, value in (("retention_ratio", 0.5), ("num_clips", 3)):
        with pytest.raises(ValueError, match=f"{field}={value}"):
            pair.ours.generate(**exact, **{field: value})


@pytest.mark.parametrize("field", [{"retention_ratio": 0.03, "num_clips": 1}, {"temporal_threshold": 0.5}])
def test_frames_may_keep_no_token_and_the_video_may_decide_their_number(pair, field):
    model = our_model(pair.host, pair.stock, **field)
    settings = {name: field[name] for name in ("retention_ratio", "num_clips") if name in field}
    video = [video_of(12, 3, 3, seed=5)]
    exact, full = inputs_of(processor_of(pair.host, **settings), video), inputs_of(pair.stock_processor, video)
    if "retention_ratio" in field:
        assert 0 in kept_of(pair, model, exact).sum(1)
    assert torch.equal(answer(model, exact), answer(model, full))


def test_frames_at_once_changes_nothing(pair):
    inputs = inputs_of(pair.processor, [video_of(11, 3, 4)])
    model = our_model(pair.host, pair.stock, frames_at_once=2)
    torch.testing.assert_close(pair.ours(**inputs).logits, model(**inputs).logits)
    assert torch.equal(kept_of(pair, pair.ours, inputs), kept_of(pair, model, inputs))


def test_the_call_of_the_processor_decides_the_ratio(pair):
    inputs = inputs_of(pair.processor, CLIPS[:1], retention_ratio=0.5)
    assert inputs["kept_video_tokens"].tolist() == [12]  # of 4 frames with 6 tokens
    assert int((inputs["input_ids"] == pair.ours.config.video_token_id).sum()) == 12
    pair.ours(**inputs)
    with pytest.raises(ValueError, match="retention_ratio"):
        inputs_of(pair.processor, CLIPS[:1], retention_ratio=0)
    with pytest.raises(TypeError, match="did you mean `retention_ratio`"):
        inputs_of(pair.processor, CLIPS[:1], retention_rate=0.5)


def test_training_reaches_the_merger_and_labels_follow_the_prompt(pair):
    model = our_model(pair.host, pair.stock).train()
    losses = []
    for processor in (pair.processor, pair.stock_processor):
        inputs = inputs_of(processor, CLIPS[:1])
        labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == model.config.video_token_id, -100)
        losses.append(model(**inputs, labels=labels).loss)
    torch.testing.assert_close(*losses)
    losses[0].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.model.visual.merger.parameters())
    with pytest.raises(ValueError, match="shift_labels"):
        model(**inputs, shift_labels=labels)


def test_the_inner_model_fits_the_prompt_itself(pair):
    full, exact = inputs_of(pair.stock_processor, CLIPS), inputs_of(pair.processor, CLIPS)
    states = [pair.ours.model(**inputs).last_hidden_state for inputs in (full, exact)]
    torch.testing.assert_close(*states)


def test_features_by_themselves_are_those_of_the_ratio(pair):
    inputs = inputs_of(pair.processor, CLIPS)
    features = pair.ours.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
    is_video = inputs["input_ids"] == pair.ours.config.video_token_id
    assert [len(tokens) for tokens in features.pooler_output] == is_video.sum(1).tolist()
    plain = pair.ours.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"], return_dict=False)
    assert isinstance(plain, tuple)
    assert all(map(torch.equal, plain[0], features.pooler_output))


def test_attention_received_is_the_eager_kernels(pair):
    from modeling_aot_llava.rotary_attention_capture import capture_rotary_attention

    inputs = inputs_of(pair.processor, [video_of(4, 3, 5)])
    tower = pair.ours.model.visual
    weights = {}

    def note(layer):
        def hook(module, args, kwargs, output):
            weights[layer] = kwargs["cu_seqlens"].tolist()

        return hook

    handles = [block.attn.register_forward_hook(note(i), with_kwargs=True) for i, block in enumerate(tower.blocks)]
    kernel, seen = tower.config._attn_implementation, []
    tower.config._attn_implementation = "eager"
    module = __import__(type(tower).__module__, fromlist=["eager_attention_forward"])
    original = module.eager_attention_forward

    def eager(*args, **kwargs):
        output = original(*args, **kwargs)
        seen.append(output[1])
        return output

    module.eager_attention_forward = eager
    try:
        with capture_rotary_attention(tower, range(4)) as received, torch.no_grad():
            tower(inputs["pixel_values_videos"], grid_thw=inputs["video_grid_thw"])
    finally:
        module.eager_attention_forward = original
        tower.config._attn_implementation = kernel
        for handle in handles:
            handle.remove()
    pieces = iter(seen)
    for layer in range(4):
        cuts = weights[layer]
        expected = [next(pieces)[0].mean((0, 1)) * (end - start) for start, end in zip(cuts, cuts[1:])]
        torch.testing.assert_close(received[layer], torch.cat(expected), atol=1e-4, rtol=1e-4)
    has_windows = len(weights[0]) > len(weights[1])
    assert has_windows == (pair.host.name == "Qwen2_5_VL")


def test_deepstack_rides_along_with_the_tokens():
    """With layers that are linear images of the tokens, what is left of them is the image of what is left."""
    host = HOSTS["qwen3_vl"]
    stock = stock_model(host)
    model = our_model(host, stock).model
    inputs = inputs_of(processor_of(host), CLIPS[:1])
    grid = tuple(inputs["video_grid_thw"][0].tolist())
    maps = torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0))
    real = model.run_vision_tower

    def with_images(pixels, grid_thw):
        outputs = real(pixels, grid_thw)
        outputs.deepstack_features = [outputs.pooler_output @ matrix for matrix in maps]
        return outputs

    with torch.no_grad():
        plain = encode_video(model, inputs["pixel_values_videos"], grid, None)
        model.run_vision_tower = with_images
        video = encode_video(model, inputs["pixel_values_videos"], grid, None)
    assert torch.equal(video.tokens, plain.tokens)
    for layer, matrix in zip(video.deepstack, maps):
        torch.testing.assert_close(layer, video.tokens @ matrix, atol=1e-3, rtol=1e-3)


@settings(max_examples=12, deadline=None)
@given(
    frames=st.integers(1, 9),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    ratio=st.sampled_from([0.02, 0.1, 0.25, 0.6, 0.99]),
    clips=st.sampled_from(["uniform", "dynamic"]),
)
@pytest.mark.parametrize("name", HOSTS)
def test_any_grid_keeps_exactly_its_budget(models, name, frames, height, width, ratio, clips):
    model = models[name]
    model.config.retention_ratio, model.config.clip_segmentation = ratio, clips
    grid = (frames, 2 * height, 2 * width)
    values = 3 * 2 * model.config.vision_config.patch_size**2
    pixels = torch.rand(frames * 4 * height * width, values, generator=torch.Generator().manual_seed(frames))
    with torch.no_grad():
        video = encode_video(model, pixels, grid, None)
    budget = plan_token_budget(model.config, frames, grid=model.config.grid_of(grid))
    expected = max(min(model.config.num_clips, max(1, frames // 2)), int(ratio * (frames * height * width) + 0.5))
    assert len(video.tokens) == int(video.is_kept.sum()) == budget.num_video_tokens == expected
    if clips == "uniform":
        assert video.is_kept.sum(1).tolist() == list(budget.kept_per_frame)
    assert torch.isfinite(video.tokens).all()


@pytest.fixture(scope="module")
def models():
    return {name: our_model(host, stock_model(host)).model for name, host in HOSTS.items()}


def test_what_no_authors_program_defines_is_refused(pair):
    with pytest.raises(ValueError, match="`recipe` is 'released'"):
        config_of(pair.host, recipe="released")
    with pytest.raises(ValueError, match="4 layers"):
        config_of(pair.host, local_attention_layer=4)
    config = config_of(pair.host)
    config.text_config._attn_implementation = "vllm"
    with pytest.raises(ValueError, match="cannot be served by vLLM"):
        type(pair.ours)(config)
    with pytest.raises(TypeError, match=f"AOT{pair.host.name}Config"):
        type(pair.ours.model)(pair.stock.config)


def test_a_release_that_nobody_has_looked_at_is_refused_before_there_are_weights(pair, monkeypatch):
    monkeypatch.setattr("transformers.__version__", "5.25.0.dev0")
    with pytest.raises(ImportError, match=r"below 5\.25, but 5\.25\.0\.dev0 is installed: run `pip install"):
        type(pair.ours)(pair.ours.config)
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert f'<{FIRST_UNKNOWN}"' in project


def test_more_anchors_than_a_frame_has_tokens_are_refused(pair):
    model = our_model(pair.host, pair.stock, num_anchors=50)
    with pytest.raises(ValueError, match="`num_anchors` is 50"):
        model(**inputs_of(pair.processor, CLIPS[:1]))
