"""Every method of Table 1 through `generate`, on small random checkpoints with grouped heads."""

import dataclasses

import pytest
import torch
from greedy_by_hand import NEW_TOKENS, greedy_by_hand
from random_checkpoint import random_model, random_processor
from small_model import SMALL
from transformers import LlavaOnevisionForConditionalGeneration, SiglipVisionConfig, SiglipVisionModel

from aot_llava_baselines import BASELINES, BaselineGenerator, PoolingHead, build_baseline
from aot_llava_baselines.encoding import encode_video
from aot_llava_baselines.generation import with_language_model
from modeling_aot_llava import AOTLlavaOnevisionProcessor

NUM_FRAMES = 8

# As deep as the small model's four layers allow.
SETTINGS = {
    "fastv": {"layer": 1, "retention_ratio": 0.2},
    "pdrop": {"layers": (1, 2, 3), "retention_ratio": 0.125},
    "dycoke": {"retention_ratio": 0.25},
    "dycoke decoding": {"retention_ratio": 0.5, "layer": 1, "dropped_share": 0.7},
    "visionzip": {"retention_ratio": 0.25},
    "prunevid": {"retention_ratio": 0.4},
    "prunevid in the model": {"retention_ratio": 0.5, "layer": 1, "alpha": 0.4},
    "fastvid": {"retention_ratio": 0.4, "num_segments": 3},
    "holitom": {"retention_ratio": 0.25},
    "holitom in the model": {"retention_ratio": 0.25, "layer": 2, "inner_ratio": 0.5},
    "framefusion": {"retention_ratio": 0.5},
    "stc_pruner": {"retention_ratio": 0.25},
    "stc_cacher": {"retention_ratio": 0.25},
    "stc_cacher before holitom": {"retention_ratio": 0.25, "then": "holitom", "cache_interval": 3},
    "earlytom": {"retention_ratio": 0.25, "merging_layers": (1, 3), "similarity_threshold": 0.4, "inner_ratio": 1.0},
    "earlytom in the model": {"retention_ratio": 0.25, "merging_layers": (0, 6), "mask": "causal", "layer": 2},
    "vidcom2": {"retention_ratio": 0.25},
    "flashvid": {"retention_ratio": 0.25, "inner_ratio": 1.0},
    "flashvid in the model": {"retention_ratio": 0.25, "merging": "mean", "layer": 2, "inner_ratio": 0.4},
}
BEFORE_THE_MODEL = [
    *("dycoke", "visionzip", "prunevid", "fastvid", "holitom", "vidcom2", "flashvid", "stc_pruner"),
    *("stc_cacher", "stc_cacher before holitom", "earlytom"),
]
INSIDE_THE_MODEL = [
    *("fastv", "pdrop", "prunevid in the model", "dycoke decoding", "flashvid in the model", "holitom in the model"),
    "framefusion",
]


def method(name):
    return build_baseline(name.split()[0], **SETTINGS[name])


@pytest.fixture(scope="module")
def four_layers():
    """A stock model whose query heads share key heads in pairs."""
    return random_model(LlavaOnevisionForConditionalGeneration, **SMALL, text_config={"num_hidden_layers": 4})


@pytest.fixture(scope="module")
def inputs(stock_processor, make_video):
    """Makes a batch with the stock processor's full prompts, padded on the left."""

    def make(*texts, seeds=(0,)):
        videos = [make_video(NUM_FRAMES, seed) for seed in seeds]
        return stock_processor(text=list(texts), videos=videos, padding=True, return_tensors="pt")

    return make


def answers(model, baseline, inputs, **options):
    generator = BaselineGenerator(model, baseline)
    output = generator.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, **options)
    assert torch.equal(output[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])
    return output[:, inputs["input_ids"].shape[1] :]


@torch.inference_mode()
@pytest.mark.parametrize("name", BEFORE_THE_MODEL)
def test_methods_before_the_model_are_their_tokens_in_the_prompt(name, four_layers, inputs):
    batch = inputs("Tell: <video> What moves?")
    ids = batch["input_ids"]
    video = encode_video(four_layers, batch["pixel_values_videos"], method=method(name))
    reduced = method(name).reduce(video)
    assert 0 < len(reduced.tokens) < video.tokens[..., 0].numel()
    where = (ids[0] == four_layers.config.video_token_id).nonzero().flatten()
    first, last = int(where[0]), int(where[-1])
    text = four_layers.get_input_embeddings()(ids)
    newline = four_layers.model.image_newline[None]
    embeds = torch.cat([text[0, :first], reduced.tokens, newline, text[0, last + 1 :]])[None]
    positions = torch.arange(embeds.shape[1])[None]
    if name == "fastvid":
        positions = torch.cat([torch.arange(first), first + reduced.places, torch.arange(last, ids.shape[1])])[None]
    expected = greedy_by_hand(four_layers, embeds, positions)
    assert answers(four_layers, method(name), batch)[0].tolist() == expected


def test_the_encoded_video_is_what_the_stock_model_reads(four_layers, inputs):
    batch = inputs("<video>")
    eager = random_model(LlavaOnevisionForConditionalGeneration, **SMALL, text_config={"num_hidden_layers": 4})
    eager.set_attn_implementation("eager")
    video = encode_video(four_layers, batch["pixel_values_videos"])
    with torch.no_grad():
        features = eager.get_video_features(batch["pixel_values_videos"], return_dict=True).pooler_output
        tower = eager.model.vision_tower
        keys = []
        projections = [module for name, module in tower.named_modules() if name.endswith("k_proj")]
        projections[-1].register_forward_hook(lambda *arguments: keys.append(arguments[2]))
        outputs = tower(batch["pixel_values_videos"][0], output_attentions=True, output_hidden_states=True)

    def pooled(values):
        grid = values.transpose(1, 2).unflatten(2, (7, 7))
        return torch.nn.functional.interpolate(grid, size=(4, 4), mode="bilinear").flatten(2).transpose(1, 2)

    received = outputs.attentions[-1].mean((1, 2)).unsqueeze(-1)
    heads = keys[0].unflatten(-1, (tower.config.num_attention_heads, -1)).mean(2)
    torch.testing.assert_close(video.tokens.flatten(0, 1), features[0, :-1])
    torch.testing.assert_close(video.attention.unsqueeze(-1), pooled(received))
    torch.testing.assert_close(video.keys, pooled(heads))
    torch.testing.assert_close(video.frame_features, outputs.hidden_states[-1].mean(1))


@torch.inference_mode()
def test_the_pooling_head_is_siglips(four_layers, inputs):
    fields = {**four_layers.config.vision_config.to_dict(), "vision_use_head": True}
    siglip = SiglipVisionModel(SiglipVisionConfig(**fields)).eval()
    pixels = inputs("<video>")["pixel_values_videos"]
    outputs = siglip(pixels[0], output_hidden_states=True)
    features, attention = PoolingHead(siglip)(outputs.hidden_states[-1])
    torch.testing.assert_close(features, outputs.pooler_output)
    # The probe's attention, by hand.
    head = siglip.head.attention
    width = head.embed_dim // head.num_heads
    queries, keys = (
        (values @ weight.T + bias).unflatten(-1, (-1, width)).transpose(-3, -2)
        for values, weight, bias in zip(
            (siglip.head.probe, outputs.last_hidden_state), head.in_proj_weight.chunk(3), head.in_proj_bias.chunk(3)
        )
    )
    by_hand = (queries @ keys.transpose(-2, -1) / width**0.5).softmax(-1).mean(-3)[:, 0]
    torch.testing.assert_close(attention, by_hand)
    video = encode_video(four_layers, pixels, PoolingHead(siglip))
    plain = encode_video(four_layers, pixels)
    assert video.frame_attention.shape == plain.frame_attention.shape
    assert not torch.equal(video.frame_attention, plain.frame_attention)
    assert torch.equal(video.attention, plain.attention)


@pytest.mark.parametrize(
    "baseline",
    [
        build_baseline("fastv", retention_ratio=1.0, layer=1),
        build_baseline("pdrop", retention_ratio=1.0, layers=(1, 3)),
        build_baseline("framefusion", retention_ratio=1.0),
        build_baseline("dycoke", retention_ratio=1.0, merging_ratio=1.0, last_group=True),
    ],
    ids=lambda baseline: baseline.name,
)
def test_a_method_that_keeps_everything_is_the_stock_model(baseline, four_layers, inputs, stock_processor, make_video):
    batch = inputs("Tell: <video> What moves?")
    if baseline.name == "dycoke":
        # The first frame of a group is whole.
        batch = stock_processor(text=["Tell: <video> What moves?"], videos=[make_video(1)], return_tensors="pt")
    stock = four_layers.generate(**batch, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None)
    assert torch.equal(answers(four_layers, baseline, batch)[0], stock[0, -NEW_TOKENS:])


@pytest.mark.parametrize("name", SETTINGS)
def test_rows_are_answered_as_alone_and_the_model_stays_as_it_was(name, four_layers, inputs):
    batch = inputs("<video> A much longer question?", "Hm <video> Short?", seeds=(0, 1))
    before = four_layers.generate(**batch, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None)
    both = answers(four_layers, method(name), batch)
    alone = [
        answers(four_layers, method(name), inputs(text, seeds=(seed,)))[0]
        for seed, text in enumerate(("<video> A much longer question?", "Hm <video> Short?"))
    ]
    assert torch.equal(both, torch.stack(alone))
    after = four_layers.generate(**batch, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None)
    assert torch.equal(before, after)


@pytest.mark.parametrize("name", ["visionzip", "fastvid", "earlytom", "fastv", "flashvid in the model"])
def test_videos_of_different_lengths_are_answered_as_alone(name, four_layers, make_video):
    processor = random_processor(AOTLlavaOnevisionProcessor, four_layers.config)
    texts, videos = ["<video>What?", "And <video>?", "<video>Why?"], [make_video(length) for length in (8, 5, 8)]

    def ask(texts, videos):
        return processor(text=texts, videos=videos, padding=True, return_tensors="pt", retention_ratio=1.0)

    batch = ask(texts, videos)
    assert batch["num_video_frames"].tolist() == [8, 5, 8]
    alone = [answers(four_layers, method(name), ask([one], [video]))[0] for one, video in zip(texts, videos)]
    assert torch.equal(answers(four_layers, method(name), batch), torch.stack(alone))
    del batch["num_video_frames"]
    with pytest.raises(ValueError, match="`num_video_frames` is None, but `pixel_values_videos` is padded"):
        answers(four_layers, method(name), batch)


@pytest.mark.parametrize("name", INSIDE_THE_MODEL)
def test_grouped_heads_are_repeated_keys(name, four_layers, inputs):
    """A model with as many key heads as query heads, whose key heads are copies, answers the same."""
    ungrouped = random_model(
        LlavaOnevisionForConditionalGeneration,
        **SMALL,
        text_config={"num_hidden_layers": 4, "num_key_value_heads": 4},
    )
    head = 64 // 4
    state = {
        key: value.unflatten(0, (-1, head)).repeat_interleave(2, 0).flatten(0, 1)
        if "language_model" in key and ("k_proj" in key or "v_proj" in key)
        else value
        for key, value in four_layers.state_dict().items()
    }
    ungrouped.load_state_dict(state)
    batch = inputs("Tell: <video> What moves?")
    assert torch.equal(answers(ungrouped, method(name), batch), answers(four_layers, method(name), batch))


@pytest.mark.parametrize(
    # The newline beside them: PDrop may drop it. PruneVid rounds down in each set.
    ("name", "least"),
    [
        ("fastv", 1),
        ("flashvid in the model", 1),
        ("holitom in the model", 0),
        ("pdrop", 0),
        ("prunevid in the model", 1 - 2 * NUM_FRAMES),
    ],
)
def test_layers_read_what_the_cost_model_counts(name, least, four_layers, inputs):
    batch = inputs("Tell: <video> What moves?")
    reduced = method(name).reduce(encode_video(four_layers, batch["pixel_values_videos"]))
    seen = read_of_video(four_layers, method(name), batch)
    counted = method(name).tokens_per_layer(len(reduced.tokens), 4)
    assert len(set(counted)) > 1
    assert all(least <= rows - count <= 1 for rows, count in zip(seen, counted, strict=True))


def read_of_video(model, baseline, batch):
    """How many rows each layer's attention reads beside the text."""
    num_text = int((batch["input_ids"] != model.config.video_token_id).sum())
    seen = []
    handles = [
        layer.self_attn.o_proj.register_forward_hook(lambda _module, _given, rows: seen.append(rows.shape[1]))
        for layer in model.model.language_model.layers
    ]
    BaselineGenerator(model, baseline).generate(**batch, max_new_tokens=1, do_sample=False)
    for handle in handles:
        handle.remove()
    return [rows - num_text for rows in seen]


@pytest.mark.parametrize(("ratio", "threshold"), [(0.5, 0.6), (0.5, 0.999), (0.4, 0.99), (0.7, -1)])
def test_framefusion_meets_its_budget(ratio, threshold, four_layers, inputs):
    baseline = build_baseline("framefusion", retention_ratio=ratio, similarity_threshold=threshold)
    seen = read_of_video(four_layers, baseline, inputs("Tell: <video> What moves?"))
    newline = 1
    assert sum(seen) == pytest.approx(4 * (ratio * NUM_FRAMES * 16 + newline), abs=4)


def test_framefusion_says_that_its_budget_is_spent(four_layers, inputs):
    baseline = build_baseline("framefusion", retention_ratio=0.01, similarity_threshold=0.9)
    with pytest.raises(ValueError, match=r"retention_ratio is 0\.01, which is spent after 1 layers"):
        answers(four_layers, baseline, inputs("<video>"))


def test_a_tower_with_fewer_layers_is_named_before_any_work(four_layers):
    with pytest.raises(ValueError, match=r"merging_layers is \(10, 21, 23\), but the model reads 7 layers of"):
        BaselineGenerator(four_layers, build_baseline("earlytom", inner_ratio=1.0))


@torch.inference_mode()
def test_earlytom_needs_its_own_run_of_the_tower(four_layers, inputs):
    video = encode_video(four_layers, inputs("<video>")["pixel_values_videos"])
    with pytest.raises(ValueError, match=r"The video has no runs of frames, .* give `encode_video` this method"):
        method("earlytom").reduce(video)


def test_earlytom_loses_frames(four_layers, inputs):
    video = encode_video(four_layers, inputs("<video>")["pixel_values_videos"], method=method("earlytom"))
    assert len(video.tokens) < NUM_FRAMES == video.num_frames
    assert video.runs[-1][1] == len(video.tokens) - 1


@pytest.mark.parametrize("num_frames", [1, 2, 3])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_few_frames_are_enough(name, num_frames, four_layers, stock_processor, make_video):
    batch = stock_processor(text=["<video> What?"], videos=[make_video(num_frames)], return_tensors="pt")
    output = BaselineGenerator(four_layers, method(name)).generate(**batch, max_new_tokens=1, do_sample=False)
    assert output.shape[1] == batch["input_ids"].shape[1] + 1


def test_dycoke_forgets_between_videos(four_layers, inputs):
    generator = BaselineGenerator(four_layers, method("dycoke decoding"))
    options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None}
    first = generator.generate(**inputs("<video> One?"), **options)
    generator.generate(**inputs("<video> Another?", seeds=(5,)), **options)
    assert torch.equal(generator.generate(**inputs("<video> One?"), **options), first)


def test_text_alone_is_the_stock_models(four_layers, stock_processor):
    batch = stock_processor(text=["No video?"], return_tensors="pt")
    stock = four_layers.generate(**batch, max_new_tokens=NEW_TOKENS, do_sample=False)
    assert torch.equal(
        BaselineGenerator(four_layers, method("fastv")).generate(**batch, max_new_tokens=NEW_TOKENS, do_sample=False),
        stock,
    )


def test_weights_are_shared(four_layers):
    other = with_language_model(four_layers, torch.nn.Identity())
    assert other.lm_head is four_layers.lm_head
    assert other.model.vision_tower is four_layers.model.vision_tower
    assert not isinstance(four_layers.model.language_model, torch.nn.Identity)


# Errors


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("fastvit", {}, "There is no method 'fastvit'; the methods are fastv, pdrop, dycoke"),
        ("fastvid", {"num_segment": 3}, "fastvid has no setting 'num_segment'; did you mean 'num_segments'"),
        ("visionzip", {"retention_ratio": 0}, "retention_ratio is 0, but must be a number above 0"),
        ("visionzip", {"tokens_per_frame": 0}, "tokens_per_frame is 0, but must be an integer from 1"),
        ("dycoke", {"retention_ratio": 0.1}, "retention_ratio is 0.1, but DyCoke keeps every fourth frame whole"),
        ("dycoke", {"dropped_share": 1}, "dropped_share is 1, but must be from 0"),
        ("fastv", {"layer": 0}, "layer is 0, but must be an integer from 1"),
        ("pdrop", {"layers": (7, 2)}, r"layers is \(7, 2\), but must be ascending"),
        ("prunevid", {"alpha": 2}, "alpha is 2, but must be"),
        ("holitom", {"beta": "a"}, "beta is 'a', but must be"),
        ("holitom", {"mask": "none"}, "mask is 'none', but must be one of released, causal"),
        ("stc_cacher", {"then": "earlytom"}, "then is 'earlytom', but must be one of stc_pruner, visionzip"),
        ("stc_cacher", {"then": "dycoke"}, "retention_ratio is 0.1, but DyCoke keeps every fourth frame whole"),
        ("earlytom", {"merging_layers": (3, 1)}, r"merging_layers is \(3, 1\), but must be ascending"),
        ("earlytom", {"longest_run": 1}, "longest_run is 1, but must be an integer from 2"),
        ("vidcom2", {"exact_count": 1}, "exact_count is 1, but must be True or False"),
        ("flashvid", {"merging": "max"}, "merging is 'max', but must be one of sum, mean"),
        (
            "flashvid",
            {"chosen_share": 0, "merging_threshold": 1.0},
            "chosen_share is 0 and merging_threshold 1",
        ),
        ("flashvid", {"expansion": 0.5}, "expansion is 0.5, but must be a number from 1"),
    ],
)
def test_wrong_settings(name, settings, said):
    with pytest.raises(ValueError, match=said):
        build_baseline(name, **settings)


def test_every_method_is_built_by_its_name():
    for name, kind in BASELINES.items():
        built = build_baseline(name)
        assert isinstance(built, kind)
        assert dataclasses.replace(built) == built


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("fastv", {"layer": 4}, "layer is 4"),
        ("pdrop", {}, "layers is 14"),
        ("prunevid", {"alpha": 0.4}, "layer is 10"),
        ("flashvid", {}, "layer is 20"),
        ("holitom", {"inner_ratio": 0.5}, "layer is 18"),
        ("earlytom", {"merging_layers": (1, 2)}, "layer is 18"),
    ],
)
def test_a_layer_that_is_not_there_is_refused_before_any_work(name, settings, said, four_layers):
    with pytest.raises(ValueError, match=f"{said}, but the language model has 4 layers, counted from 0"):
        BaselineGenerator(four_layers, build_baseline(name, **settings))


def test_prompts_that_do_not_fit(four_layers, inputs, stock_processor):
    batch = inputs("<video>")
    with pytest.raises(ValueError, match="There are 2 videos for 1 prompts"):
        answers(four_layers, method("fastv"), {**batch, "pixel_values_videos": torch.zeros(2, 8, 3, 56, 56)})
    with pytest.raises(ValueError, match="placeholders, but this video needs 65"):
        answers(four_layers, method("fastv"), {**batch, "pixel_values_videos": torch.zeros(1, 4, 3, 56, 56)})


def test_what_aot_made_of_a_video_is_no_methods(four_layers, inputs):
    batch = inputs("<video>")
    del batch["pixel_values_videos"]
    with pytest.raises(ValueError, match="`encoded_video_tokens` are what AOT made of a video"):
        answers(four_layers, method("fastv"), {**batch, "encoded_video_tokens": torch.zeros(1, 4, 64)})


def test_a_cache_is_needed(four_layers, inputs):
    with pytest.raises(ValueError, match="use_cache is False, but"):
        answers(four_layers, method("fastvid"), inputs("<video>"), use_cache=False)


def test_beams_are_refused(four_layers, inputs):
    with pytest.raises(ValueError, match="takes one row, a cache"):
        answers(four_layers, method("fastv"), inputs("<video>"), num_beams=2)


def test_dycokes_program_takes_five_frames_or_more(four_layers, stock_processor, make_video):
    batch = stock_processor(text=["<video>"], videos=[make_video(4)], return_tensors="pt")
    with pytest.raises(ValueError, match="The video has 4 frames, but DyCoke's program takes 5 or more"):
        answers(four_layers, build_baseline("dycoke", last_group=False), batch)
