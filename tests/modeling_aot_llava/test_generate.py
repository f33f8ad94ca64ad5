"""`generate` in every mode, with exact and with full prompts, against each other and the stock model's decoding."""

import copy
import logging
import re
import threading

import pytest
import torch
from small_model import CACHE, TRANSFORMERS, VARYING, cache_of
from torch.nn import functional
from transformers import (
    CompileConfig,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    StaticCache,
    StoppingCriteriaList,
    TextIteratorStreamer,
    TextStreamer,
)

NEW_TOKENS = 6
TEXT = "See <video>, what?"


def new_text(model, inputs, max_new_tokens=NEW_TOKENS, **options):
    """The new tokens, (sequences, at most NEW_TOKENS); checks that the caller's prompt stands before them."""
    torch.manual_seed(0)
    sequences = model.generate(**inputs, max_new_tokens=max_new_tokens, **options)
    return after_prompt(sequences, inputs)


def after_prompt(sequences, inputs):
    prompt = inputs["input_ids"]
    expected = prompt.repeat_interleave(len(sequences) // len(prompt), dim=0)
    assert torch.equal(sequences[:, : prompt.shape[1]], expected)
    return sequences[:, prompt.shape[1] :]


@pytest.fixture
def exact(prompt):
    return prompt(TEXT)


@pytest.fixture
def full(prompt):
    return prompt(TEXT, retention_ratio=1.0)


@pytest.fixture
def greedy(model, exact):
    return new_text(model, exact)


@pytest.fixture(scope="session")
def assistant(build_model):
    """A model with other opinions, some of which are right."""
    assistant = build_model()
    with torch.no_grad():
        for number, weight in enumerate(assistant.model.language_model.parameters()):
            weight += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
    return assistant


# --- decoding modes


DROPS_VIDEOS = pytest.mark.skipif(
    TRANSFORMERS < (5, 23), reason="until transformers 5.22 the parent drops encoded videos in chunked prefill"
)
MODES = [
    pytest.param({}, id="greedy"),
    pytest.param({"do_sample": True, "temperature": 2.0}, id="sampling"),
    pytest.param({"do_sample": True, "top_k": 5, "num_return_sequences": 3}, id="several samples"),
    pytest.param({"num_beams": 3}, id="beams"),
    pytest.param({"num_beams": 3, "num_return_sequences": 3}, id="several beams"),
    pytest.param({"num_beams": 2, "do_sample": True}, id="beams sampled"),
    pytest.param({"cache_implementation": "static"}, id="static cache"),
    pytest.param({"cache_implementation": "static", "num_beams": 2}, id="static cache, beams"),
    pytest.param({"use_cache": False}, id="no cache"),
    pytest.param({"prompt_lookup_num_tokens": 3}, id="prompt lookup"),
    pytest.param({"prefill_chunk_size": 5}, id="chunked prefill", marks=DROPS_VIDEOS),
    pytest.param({"prefill_chunk_size": 8, "num_beams": 2}, id="chunked prefill, beams", marks=DROPS_VIDEOS),
    pytest.param({"prefill_chunk_size": 500}, id="one chunk", marks=DROPS_VIDEOS),
    pytest.param({"prefill_chunk_size": 5, "cache_implementation": "static"}, id="chunks, static", marks=DROPS_VIDEOS),
    pytest.param({"repetition_penalty": 3.0}, id="repetition penalty"),
    pytest.param({"no_repeat_ngram_size": 1}, id="no repetition"),
    pytest.param({"guidance_scale": 1.5}, id="guidance"),
    pytest.param({"bad_words_ids": [[114]], "min_new_tokens": 3}, id="processors"),
]


@pytest.mark.parametrize("options", MODES)
def test_full_prompt_gives_the_text_of_the_exact_one(model, exact, full, options):
    expected = new_text(model, exact, **options)
    assert expected.shape[1] == NEW_TOKENS
    assert torch.equal(new_text(model, full, **options), expected)


@pytest.mark.parametrize("options", MODES)
def test_text_is_the_stock_decoding_of_the_features_made_by_hand(model, stock, exact, embeds_by_hand, options):
    inputs = {
        "input_ids": exact["input_ids"],
        "inputs_embeds": embeds_by_hand(exact, model.config),
        "attention_mask": exact["attention_mask"],
    }
    if "prefill_chunk_size" in options or "prompt_lookup_num_tokens" in options:
        # With embeddings the stock class decodes otherwise than its own greedy or beam search there.
        options_of_stock = {"num_beams": options.get("num_beams", 1)}
    else:
        options_of_stock = options
    assert torch.equal(new_text(model, exact, **options), new_text(stock, inputs, **options_of_stock))


@pytest.mark.parametrize("options", MODES)
def test_uncompressed_text_is_the_stock_models(model, stock, configure, full, options):
    configure(retention_ratio=1)
    assert torch.equal(new_text(model, full, **options), new_text(stock, full, **options))


def test_greedy_text_is_that_of_one_forward_a_token(model, full, exact):
    ids = exact["input_ids"]
    for _ in range(NEW_TOKENS):
        logits = model(input_ids=ids, pixel_values_videos=exact["pixel_values_videos"], logits_to_keep=1).logits
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(new_text(model, full), ids[:, -NEW_TOKENS:])


def test_other_videos_give_other_text(model, prompt):
    answers = {tuple(new_text(model, prompt(TEXT, seeds=(seed,)))[0].tolist()) for seed in range(4)}
    assert len(answers) == 4


@pytest.mark.parametrize("num_tokens", [1, 4])
@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_assisted_decoding_gives_the_greedy_text(
    model, assistant, stock, prompt, greedy, monkeypatch, ratio, num_tokens
):
    inputs = prompt(TEXT, retention_ratio=ratio)
    for helper in (assistant, stock, model):
        monkeypatch.setattr(helper.generation_config, "num_assistant_tokens", num_tokens)
        assert torch.equal(new_text(model, inputs, assistant_model=helper), greedy)


def test_decoding_on_a_static_cache_compiles_as_one_graph(build_model, full, greedy):
    """On a GPU transformers compiles it without being asked; with `fullgraph` a break would be an error."""
    config = CompileConfig(fullgraph=True, backend="eager", mode=None)
    config._compile_all_devices = True
    torch.compiler.reset()
    model = build_model()
    assert torch.equal(new_text(model, full, cache_implementation="static", compile_config=config), greedy)
    assert model._compiled_call is not None


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_static_cache_object(model, prompt, greedy, ratio):
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=100)
    assert torch.equal(new_text(model, prompt(TEXT, retention_ratio=ratio), **{CACHE: cache}), greedy)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 4}, {"do_sample": True, "num_return_sequences": 3}, {"use_cache": False}]
)
def test_the_video_is_encoded_once(model, prompt, vision_tower_calls, ratio, options):
    new_text(model, prompt(TEXT, retention_ratio=ratio), **options)
    assert len(vision_tower_calls) == 1


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_the_video_is_encoded_without_gradients(model, prompt, ratio):
    """Their graph would hold the whole vision tower's activations until the answer is written."""
    states = []
    handle = model.model.vision_tower.register_forward_hook(lambda *_: states.append(torch.is_grad_enabled()))
    try:
        new_text(model, prompt(TEXT, retention_ratio=ratio))
    finally:
        handle.remove()
    assert states == [False]


def test_generation_under_inference_mode(model, full, greedy):
    with torch.inference_mode():
        assert torch.equal(new_text(model, full), greedy)


# --- batches


BATCH = ("See <video>, what?", "<image>And <video>?", "only text", "<video><video>")


@pytest.fixture
def rows(prompt, make_image):
    """Makes the batch, or its rows one by one."""

    def make(ratio, alone=False):
        options = {"retention_ratio": ratio}
        if not alone:
            return prompt(*BATCH, seeds=(0, 1, 2, 3), images=[make_image()], **options)
        parts = zip(BATCH, ((0,), (1,), (), (2, 3)), (None, [make_image()], None, None))
        return [prompt(text, seeds=seeds, images=images, **options) for text, seeds, images in parts]

    return make


def each_alone(model, prompts, **options):
    """The answers to prompts of one row each, padded as in a batch."""
    answers = [new_text(model, inputs, **options) for inputs in prompts]
    width, padding = max(answer.shape[1] for answer in answers), model.generation_config.pad_token_id
    return torch.cat([functional.pad(answer, (0, width - answer.shape[1]), value=padding) for answer in answers])


@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize(
    "fields", [{}, {"clip_segmentation": "dynamic"}, *VARYING.values()], ids=["paper", "dynamic", *VARYING]
)
def test_greedy_text_of_a_left_padded_batch_is_that_of_the_rows_alone(model, configure, rows, fields, ratio):
    configure(**fields)
    answers = new_text(model, rows(ratio))
    assert torch.equal(answers, each_alone(model, rows(ratio, alone=True)))


@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize("fields", [{}, *VARYING.values()], ids=["paper", *VARYING])
def test_beams_of_a_left_padded_batch_are_those_of_the_rows_alone(model, configure, rows, fields, ratio):
    configure(**fields)
    options = {"num_beams": 2, "num_return_sequences": 2}
    answers = new_text(model, rows(ratio), **options)
    assert torch.equal(answers, each_alone(model, rows(ratio, alone=True), **options))


@pytest.mark.parametrize("fields", VARYING.values(), ids=VARYING)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"do_sample": True, "num_return_sequences": 2}, id="samples"),
        pytest.param({"cache_implementation": "static"}, id="static cache"),
        pytest.param({"prefill_chunk_size": 5}, id="chunked prefill", marks=DROPS_VIDEOS),
        pytest.param({"prompt_lookup_num_tokens": 2}, id="prompt lookup"),
        pytest.param({"use_cache": False}, id="no cache"),
    ],
)
def test_modes_where_the_count_depends_on_the_video(
    model, stock, configure, prompt, video_tokens_by_hand, fields, options
):
    """The text is the stock decoding of a prompt with just as many placeholders as the video has tokens."""
    configure(**fields)
    inputs = prompt(TEXT)
    tokens = video_tokens_by_hand(inputs["pixel_values_videos"], model.config, [16])[0]
    tokens = torch.cat([tokens, stock.model.image_newline[None]]).detach()
    assert len(tokens) != 17
    ids = inputs["input_ids"]
    columns = (ids[0] == model.config.video_token_index).nonzero().flatten()
    start, end = int(columns[0]), int(columns[-1]) + 1
    embeds = stock.get_input_embeddings()
    by_hand = torch.cat([embeds(ids[0, :start]), tokens, embeds(ids[0, end:])])[None].detach()
    same = {} if {"prefill_chunk_size", "prompt_lookup_num_tokens"} & set(options) else options
    torch.manual_seed(0)
    expected = stock.generate(
        inputs_embeds=by_hand, attention_mask=torch.ones(by_hand.shape[:2]).long(), max_new_tokens=NEW_TOKENS, **same
    )
    assert torch.equal(new_text(model, inputs, **options), expected)


def test_padding_is_recognised_without_a_mask(model, rows):
    """As in the stock class: where the padding token is not also an end token."""
    inputs = rows(0.25)
    special = {"pad_token_id": model.generation_config.pad_token_id, "eos_token_id": 5}
    expected = new_text(model, inputs, **special)
    mask = inputs.pop("attention_mask")
    assert not mask.all()
    assert torch.equal(new_text(model, inputs, **special), expected)


def test_rows_that_need_new_padding_need_a_mask(model, rows, vision_tower_calls):
    inputs = rows(1.0)
    del inputs["attention_mask"]
    with pytest.raises(ValueError, match=r"attention_mask.*None.*AOTLlavaOnevisionProcessor"):
        model.generate(**inputs)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_one_prompt_without_a_mask(model, prompt, greedy, ratio):
    inputs = prompt(TEXT, retention_ratio=ratio)
    del inputs["attention_mask"]
    assert torch.equal(new_text(model, inputs), greedy)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_position_ids(model, prompt, greedy, ratio):
    inputs = prompt(TEXT, retention_ratio=ratio)
    positions = torch.arange(inputs["input_ids"].shape[1])[None]
    assert torch.equal(new_text(model, inputs, position_ids=positions), greedy)


@pytest.mark.skipif(TRANSFORMERS >= (5, 23), reason="transformers 5.23 keeps encoded videos in chunked prefill")
def test_chunked_prefill_that_would_drop_the_video_is_refused(model, exact, full, prompt, vision_tower_calls):
    for inputs in (exact, full):
        with pytest.raises(ValueError, match=r"prefill_chunk_size=5.*5\.23"):
            model.generate(**inputs, prefill_chunk_size=5)
    assert not vision_tower_calls
    assert model.generate(**prompt("only text", seeds=()), max_new_tokens=2, prefill_chunk_size=5).shape[1] == 11


# --- how the call is written


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_prompt_and_generation_config_by_position(model, prompt, greedy, ratio):
    inputs = prompt(TEXT, retention_ratio=ratio)
    config = GenerationConfig(max_new_tokens=NEW_TOKENS, eos_token_id=258, pad_token_id=256)
    before = config.to_dict()
    pixels = {"pixel_values_videos": inputs["pixel_values_videos"]}
    assert torch.equal(after_prompt(model.generate(inputs["input_ids"], config, **pixels), inputs), greedy)
    assert torch.equal(
        after_prompt(model.generate(inputs=inputs["input_ids"], generation_config=config, **pixels), inputs), greedy
    )
    assert config.to_dict() == before


@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize("where", ["keyword", "generation config", "model"])
def test_lengths_count_the_callers_prompt(model, prompt, greedy, monkeypatch, ratio, where):
    """The second token of the answer ends it, but not before `min_length`; `max_length` ends it anyway."""
    inputs = prompt(TEXT, retention_ratio=ratio)
    length = inputs["input_ids"].shape[1]
    lengths = {
        "min_length": length + 3,
        "max_length": length + 5,
        "eos_token_id": int(greedy[0, 1]),
        "pad_token_id": 256,
    }
    short = {"eos_token_id": lengths["eos_token_id"], "pad_token_id": 256}
    assert new_text(model, inputs, **short).shape[1] == 2
    options = {}
    if where == "keyword":
        options = lengths
    elif where == "generation config":
        options = {"generation_config": GenerationConfig(**lengths)}
    else:
        for name, value in lengths.items():
            monkeypatch.setattr(model.generation_config, name, value)
    new = after_prompt(model.generate(**inputs, **options), inputs)
    assert 3 <= new.shape[1] <= 5
    assert lengths["eos_token_id"] not in new[0, :3]
    without_end = {**lengths, "eos_token_id": 5}
    assert after_prompt(model.generate(**inputs, **without_end), inputs).shape[1] == 5


@pytest.mark.parametrize("where", ["call", "model", "both"])
def test_lengths_of_a_fitted_prompt_go_no_way_that_is_deprecated(model, full, monkeypatch, caplog, where):
    """A config of the call is copied, never mixed with keywords, which a release to come refuses."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    caplog.set_level(logging.WARNING, logger="transformers")
    logging.Logger.warning_once.cache_clear()
    length = full["input_ids"].shape[1] + 3
    config = GenerationConfig(max_length=length, eos_token_id=258, pad_token_id=256) if where != "model" else None
    if where != "call":
        monkeypatch.setattr(model.generation_config, "max_length", length if where == "model" else length - 1)
    before = None if config is None else config.to_dict()
    new = after_prompt(model.generate(**full, generation_config=config), full)
    assert new.shape[1] == 3
    assert "deprecated" not in caplog.text
    assert config is None or config.to_dict() == before


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_twenty_new_tokens_by_default(model, prompt, ratio):
    inputs = prompt(TEXT, retention_ratio=ratio)
    assert after_prompt(model.generate(**inputs), inputs).shape[1] == 20


@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize("fields", [{}, *VARYING.values()], ids=["paper", *VARYING])
def test_embeddings_without_ids_give_the_new_text_alone(model, configure, prompt, fields, ratio):
    configure(**fields)
    inputs = prompt(TEXT, retention_ratio=ratio)
    expected = new_text(model, inputs)
    ids = inputs.pop("input_ids")
    inputs["inputs_embeds"] = model.get_input_embeddings()(ids).detach()
    assert torch.equal(model.generate(**inputs, max_new_tokens=NEW_TOKENS), expected)
    assert torch.equal(model.generate(**inputs, max_length=ids.shape[1] + NEW_TOKENS), expected)
    end = {"eos_token_id": int(expected[0, 1]), "pad_token_id": 256}
    at_least = model.generate(**inputs, max_length=ids.shape[1] + NEW_TOKENS, min_length=ids.shape[1] + 4, **end)
    assert at_least.shape[1] >= 4


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_embeddings_beside_ids_give_the_ids_and_the_new_text(model, prompt, greedy, ratio):
    inputs = prompt(TEXT, retention_ratio=ratio)
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach()
    assert torch.equal(new_text(model, inputs, inputs_embeds=embeds), greedy)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_callers_own_processors_and_criteria_see_the_prompt_as_it_is_run(model, prompt, exact, greedy, ratio):
    """Of an exact prompt that is the caller's own."""
    inputs = prompt(TEXT, retention_ratio=ratio)
    length = exact["input_ids"].shape[1]
    seen = []

    class Watch(LogitsProcessor):
        def __call__(self, input_ids, scores):
            seen.append(input_ids.clone())
            return scores

    def allow(row, input_ids):
        seen.append(input_ids[None].clone())
        return list(range(len(model.lm_head.weight)))

    criteria = StoppingCriteriaList([MaxLengthCriteria(length + 3)])
    new = new_text(
        model,
        inputs,
        logits_processor=LogitsProcessorList([Watch()]),
        stopping_criteria=criteria,
        prefix_allowed_tokens_fn=allow,
    )
    assert torch.equal(new, greedy[:, :3])
    assert len(seen) == 6
    for ids in seen:
        assert torch.equal(ids[:, :length], exact["input_ids"])


# --- what comes back


@pytest.mark.parametrize("options", [{}, {"num_beams": 2, "num_return_sequences": 2}], ids=["greedy", "beams"])
@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_outputs_as_a_dictionary(model, stock, prompt, exact, embeds_by_hand, options, ratio):
    inputs = prompt(TEXT, retention_ratio=ratio)
    wanted = {
        "max_new_tokens": NEW_TOKENS,
        "return_dict_in_generate": True,
        "output_scores": True,
        "output_logits": True,
        "output_hidden_states": True,
        **options,
    }
    outputs = model.generate(**inputs, **wanted)
    expected = stock.generate(
        exact["input_ids"],
        inputs_embeds=embeds_by_hand(exact, model.config),
        attention_mask=exact["attention_mask"],
        **wanted,
    )
    assert torch.equal(after_prompt(outputs.sequences, inputs), after_prompt(expected.sequences, exact))
    assert type(outputs) is type(expected)
    assert list(outputs) == list(expected)
    for name in ("scores", "logits"):
        torch.testing.assert_close(outputs[name], expected[name], rtol=1e-3, atol=1e-3)
    assert [[len(states) for states in step] for step in outputs.hidden_states] == [
        [len(states) for states in step] for step in expected.hidden_states
    ]
    torch.testing.assert_close(outputs.hidden_states[0], expected.hidden_states[0], rtol=1e-3, atol=1e-3)
    assert cache_of(outputs).get_seq_length() == cache_of(expected).get_seq_length()
    scores = [
        one.compute_transition_scores(each.sequences, each.scores, each.get("beam_indices"), normalize_logits=True)
        for one, each in ((model, outputs), (stock, expected))
    ]
    torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize("fields", [{}, *VARYING.values()], ids=["paper", *VARYING])
@pytest.mark.parametrize("options", [{}, {"prompt_lookup_num_tokens": 2}], ids=["greedy", "assisted"])
def test_streamer_shows_the_prompt_once_then_the_answer(
    model, configure, prompt, processor, capsys, fields, ratio, options
):
    configure(**fields)
    inputs = prompt(TEXT, retention_ratio=ratio)
    tokenizer = processor.tokenizer
    new = new_text(model, inputs, **options)
    answer = tokenizer.decode(new[0])
    new_text(model, inputs, streamer=TextStreamer(tokenizer, skip_prompt=True), **options)
    assert capsys.readouterr().out == answer + "\n"
    new_text(model, inputs, streamer=TextStreamer(tokenizer), **options)
    shown = capsys.readouterr().out
    assert re.fullmatch(r"See (<video>)+, what\?" + re.escape(answer) + "\n", shown)
    if not fields:
        assert shown.count("<video>") == 17


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_streamer_in_another_thread(model, prompt, processor, greedy, ratio):
    inputs = prompt(TEXT, retention_ratio=ratio)
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, timeout=30)
    thread = threading.Thread(target=new_text, args=(model, inputs), kwargs={"streamer": streamer})
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text == processor.tokenizer.decode(greedy[0])


# --- several turns on one cache


QUESTION = torch.tensor([[40, 41, 42]])


def second_turn(model, inputs, question=QUESTION, only_new_ids=False, **options):
    """The answer to a second question, on the cache of the first answer."""
    first = model.generate(**inputs, max_new_tokens=4, return_dict_in_generate=True)
    ids = torch.cat([first.sequences, question.expand(len(first.sequences), -1)], dim=1)
    mask = torch.ones_like(ids)
    mask[:, : inputs["input_ids"].shape[1]] = inputs["attention_mask"]
    if only_new_ids:  # the last token of the first answer has not been run yet
        ids = ids[:, first.sequences.shape[1] - 1 :]
    inputs = {"input_ids": ids, "attention_mask": mask}
    return new_text(model, inputs, **{CACHE: cache_of(first)}, **options)


def without_cache(model, inputs, question=QUESTION, pixel_values_videos=None):
    """The same answer from the whole conversation."""
    first = model.generate(**inputs, max_new_tokens=4)
    ids = torch.cat([first, question.expand(len(first), -1)], dim=1)
    mask = torch.ones_like(ids)
    mask[:, : inputs["input_ids"].shape[1]] = inputs["attention_mask"]
    whole = {**inputs, "input_ids": ids, "attention_mask": mask}
    if pixel_values_videos is not None:
        whole["pixel_values_videos"] = torch.cat([inputs["pixel_values_videos"], pixel_values_videos])
    return new_text(model, whole)


@pytest.mark.parametrize("only_new_ids", [False, True])
@pytest.mark.parametrize("fields", [{}, {"clip_segmentation": "dynamic"}], ids=["uniform", "dynamic"])
def test_second_turn_on_the_cache_of_the_first(model, configure, exact, vision_tower_calls, fields, only_new_ids):
    configure(**fields)
    expected = without_cache(model, exact)
    vision_tower_calls.clear()
    assert torch.equal(second_turn(model, exact, only_new_ids=only_new_ids), expected)
    assert len(vision_tower_calls) == 1


@pytest.mark.filterwarnings("ignore:.*past_key_values.*:FutureWarning")
@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_cache_under_each_of_its_names(model, exact, name):
    """transformers 5.24 calls it otherwise, and still takes the old name."""
    if name == "cache" and CACHE != "cache":
        pytest.skip("this release of transformers does not know the new name")
    first = model.generate(**exact, max_new_tokens=4, return_dict_in_generate=True)
    ids = torch.cat([first.sequences, QUESTION], dim=1)
    later = {"input_ids": ids, "attention_mask": torch.ones_like(ids), name: cache_of(first)}
    assert torch.equal(new_text(model, later), without_cache(model, exact))


@pytest.mark.parametrize("only_new_ids", [False, True])
@pytest.mark.parametrize("fields", [{}, *VARYING.values()], ids=["paper", *VARYING])
def test_second_turn_after_a_fitted_prompt_is_refused(model, configure, full, fields, only_new_ids):
    configure(**fields)
    with pytest.raises(ValueError, match=r"cache holds.*AOT's processor"):
        second_turn(model, full, only_new_ids=only_new_ids)


@pytest.mark.parametrize("fill", ["forward", "generate", "forward, returned"])
def test_a_callers_cache_of_a_fitted_prompt_is_refused(model, full, fill):
    cache = DynamicCache(config=model.config.get_text_config())
    with torch.no_grad():
        if fill == "generate":
            model.generate(**full, max_new_tokens=1, **{CACHE: cache})
        elif fill == "forward":
            model(**full, **{CACHE: cache})
        else:
            cache = cache_of(model(**full, use_cache=True))
    ids = torch.cat([full["input_ids"], QUESTION], dim=1)
    with pytest.raises(ValueError, match=r"cache holds.*AOT's processor"):
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **{CACHE: copy.deepcopy(cache)})


def test_second_turn_of_a_padded_batch(model, prompt):
    inputs = prompt(TEXT, "<video>?", seeds=(0, 1))
    assert torch.equal(second_turn(model, inputs), without_cache(model, inputs))


@pytest.mark.parametrize("only_new_ids", [False, True])
def test_second_turn_with_placeholders_but_no_pixels_is_refused(model, exact, prompt, only_new_ids):
    question = prompt("<video>So?", seeds=(1,))["input_ids"]
    with pytest.raises(ValueError, match=r"17 video placeholders.*pixel_values_videos"):
        second_turn(model, exact, question, only_new_ids)


def test_second_turn_with_the_pixels_of_the_first_is_refused(model, exact):
    with pytest.raises(ValueError, match=r"0 video placeholders.*leave out the pixels"):
        second_turn(model, exact, pixel_values_videos=exact["pixel_values_videos"])


@pytest.mark.parametrize("only_new_ids", [False, True])
def test_second_turn_with_a_new_video_as_the_stock_class_takes_it(model, stock, configure, prompt, only_new_ids):
    """Only the new video's pixels come with the second turn."""
    configure(retention_ratio=1)
    first, second = prompt(TEXT, retention_ratio=1), prompt("<video>So?", seeds=(1,), retention_ratio=1)
    options = {"question": second["input_ids"], "pixel_values_videos": second["pixel_values_videos"]}
    answers = [second_turn(one, first, only_new_ids=only_new_ids, **options) for one in (model, stock)]
    assert torch.equal(*answers)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize("only_new_ids", [False, True])
def test_second_turn_with_a_new_video(model, prompt, ratio, only_new_ids):
    """Its own placeholders may have to be fitted; those of the first turn are exact."""
    first, second = prompt(TEXT), prompt("<video>So?", seeds=(1,), retention_ratio=ratio)
    options = {"question": second["input_ids"], "pixel_values_videos": second["pixel_values_videos"]}
    # Without a cache, all videos of a prompt are in it with one ratio.
    exact = prompt("<video>So?", seeds=(1,))
    expected = without_cache(model, prompt(TEXT), exact["input_ids"], exact["pixel_values_videos"])
    assert torch.equal(second_turn(model, first, only_new_ids=only_new_ids, **options), expected)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize("positions", [False, True])
def test_second_turn_with_a_new_video_and_no_mask(model, prompt, ratio, positions):
    first, second = prompt(TEXT), prompt("<video>So?", seeds=(1,), retention_ratio=ratio)
    exact = prompt("<video>So?", seeds=(1,))
    expected = without_cache(model, first, exact["input_ids"], exact["pixel_values_videos"])
    outputs = model.generate(**first, max_new_tokens=4, return_dict_in_generate=True)
    ids = torch.cat([outputs.sequences, second["input_ids"]], dim=1)
    later = {"input_ids": ids, "pixel_values_videos": second["pixel_values_videos"]}
    options = {"position_ids": torch.arange(ids.shape[1])[None]} if positions else {}
    assert torch.equal(new_text(model, later, **{CACHE: cache_of(outputs)}, **options), expected)


def test_four_turns(model, prompt):
    inputs = prompt(TEXT)
    outputs = model.generate(**inputs, max_new_tokens=3, return_dict_in_generate=True)
    for turn in range(3):
        ids = torch.cat([outputs.sequences, QUESTION + turn], dim=1)
        whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        expected = new_text(model, {**whole, "pixel_values_videos": inputs["pixel_values_videos"]}, 3)
        options = {CACHE: cache_of(outputs), "return_dict_in_generate": True}
        outputs = model.generate(**whole, max_new_tokens=3, **options)
        assert torch.equal(after_prompt(outputs.sequences, whole), expected)


def test_second_turn_on_the_callers_own_cache(model, prompt):
    """A cache that the caller passes is filled in place; then the answer need not be a dictionary."""
    inputs, cache = prompt(TEXT), DynamicCache(config=model.config.get_text_config())
    expected = without_cache(model, inputs)
    first = model.generate(**inputs, max_new_tokens=4, **{CACHE: cache})
    ids = torch.cat([first, QUESTION], dim=1)
    later = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(new_text(model, later, **{CACHE: cache}), expected)


def test_second_turns_of_several_samples(model, prompt):
    inputs = prompt(TEXT)
    first = model.generate(
        **inputs, max_new_tokens=4, do_sample=True, num_return_sequences=2, return_dict_in_generate=True
    )
    ids = torch.cat([first.sequences, QUESTION.expand(2, -1)], dim=1)
    later = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    pixels = inputs["pixel_values_videos"].repeat(2, 1, 1, 1, 1)
    expected = new_text(model, {**later, "pixel_values_videos": pixels})
    assert torch.equal(new_text(model, later, **{CACHE: cache_of(first)}), expected)


@pytest.mark.parametrize("fill", ["forward", "generate"])
def test_a_cache_of_the_prompt_serves_several_questions(model, prompt, fill):
    """Prefix caching, as the documentation of transformers shows it."""
    inputs, cache = prompt(TEXT), DynamicCache(config=model.config.get_text_config())
    with torch.no_grad():
        if fill == "forward":
            model(**inputs, **{CACHE: cache})
        else:
            model.generate(**inputs, max_new_tokens=1, **{CACHE: cache})
    for question in (QUESTION, QUESTION + 5):
        ids = torch.cat([inputs["input_ids"], question], dim=1)
        later = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        expected = new_text(model, {**later, "pixel_values_videos": inputs["pixel_values_videos"]})
        assert torch.equal(new_text(model, later, **{CACHE: copy.deepcopy(cache)}), expected)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_a_cache_that_was_reset_serves_another_prompt(model, prompt, ratio):
    """Static caches are meant to be used again; nothing of the earlier prompt may stay in them."""
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=120)
    new_text(model, prompt(TEXT, retention_ratio=ratio), **{CACHE: cache})
    for inputs in (prompt("<video>And?", seeds=(1,), retention_ratio=ratio), prompt("only text", seeds=())):
        cache.reset()
        assert torch.equal(new_text(model, inputs, **{CACHE: cache}), new_text(model, inputs))


def test_a_cache_returned_and_reset_serves_another_prompt(model, configure, prompt):
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=120)
    full = prompt(TEXT, retention_ratio=1.0)
    model.generate(**full, max_new_tokens=2, **{CACHE: cache}, return_dict_in_generate=True)
    configure(retention_ratio=0.5)  # so the same prompt is now cut to another length
    for inputs in (full, *(prompt("<video>And then?", seeds=(1,), retention_ratio=ratio) for ratio in (1.0, 0.25))):
        cache.reset()
        assert torch.equal(new_text(model, inputs, **{CACHE: cache}), new_text(model, inputs))


def test_new_ids_alone_are_what_processors_count(model, prompt):
    """A repetition penalty meets the tokens of the second turn, if only they are passed, and no others."""
    first, second = prompt(TEXT), prompt("<video>So?", seeds=(1,))
    scores = []
    for penalty in (1.0, 3.0):
        outputs = model.generate(**first, max_new_tokens=4, return_dict_in_generate=True)
        ids = torch.cat([outputs.sequences[:, -1:], second["input_ids"]], dim=1)
        width = outputs.sequences.shape[1] + second["input_ids"].shape[1]
        later = model.generate(
            input_ids=ids,
            attention_mask=torch.ones(1, width, dtype=torch.long),
            **{CACHE: cache_of(outputs)},
            pixel_values_videos=second["pixel_values_videos"],
            repetition_penalty=penalty,
            max_new_tokens=1,
            return_dict_in_generate=True,
            output_scores=True,
        )
        scores.append(later.scores[0][0])
    assert (scores[0] != scores[1]).nonzero().flatten().tolist() == ids.unique().tolist()


def test_second_turn_with_an_image(model, prompt, make_image):
    first, second = prompt(TEXT), prompt("<image>So?", seeds=(), images=[make_image()])
    question = second.pop("input_ids")
    del second["attention_mask"]
    ids = torch.cat([model.generate(**first, max_new_tokens=4), question], dim=1)
    whole = {"input_ids": ids, "pixel_values_videos": first["pixel_values_videos"], **second}
    assert torch.equal(second_turn(model, first, question, **second), new_text(model, whole))


# --- stock behaviour kept


def test_text_alone_is_the_stock_models(model, stock, prompt):
    inputs = prompt("only text", "and more", seeds=())
    assert torch.equal(new_text(model, inputs), new_text(stock, inputs))


def test_images_alone_are_the_stock_models(model, stock, prompt, make_image):
    inputs = prompt("<image>What?", "and <image>?", seeds=(), images=[make_image(0), make_image(1)])
    for options in ({}, {"num_beams": 2}):
        assert torch.equal(new_text(model, inputs, **options), new_text(stock, inputs, **options))


def test_a_right_padded_batch_is_warned_of_as_by_the_stock_class(model, prompt, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    caplog.set_level(logging.WARNING, logger="transformers")  # the command line's tests silence it
    for ratio in (0.25, 1.0):
        caplog.clear()
        model.generate(**prompt(TEXT, "<video>", seeds=(0, 1), retention_ratio=ratio, padding_side="right"))
        assert "right-padding was detected" in caplog.text


def test_a_video_without_a_prompt_is_refused(model, exact):
    with pytest.raises(ValueError, match="input_ids"):
        model.generate(pixel_values_videos=exact["pixel_values_videos"], max_new_tokens=2)


def test_an_unknown_argument_is_refused(model, exact):
    with pytest.raises(ValueError, match="no_such_argument"):
        model.generate(**exact, no_such_argument=1)


def test_threads_on_one_model_generate_what_they_generate_alone(model, prompt):
    prompts = [prompt(TEXT, seeds=(seed,), retention_ratio=ratio) for seed, ratio in enumerate((0.25, 1.0, 0.5))]
    expected = [model.generate(**inputs, max_new_tokens=NEW_TOKENS) for inputs in prompts]
    answers = [None] * len(prompts)
    start = threading.Barrier(len(prompts), timeout=30)

    def answer(number):
        start.wait()
        answers[number] = model.generate(**prompts[number], max_new_tokens=NEW_TOKENS)

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for actual, wanted in zip(answers, expected):
        assert torch.equal(actual, wanted)
