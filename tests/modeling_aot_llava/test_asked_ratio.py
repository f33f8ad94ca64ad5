"""Which ratio counts: that of the processor's call, else the processor's, and for stock prompts the model's."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import pipeline

from modeling_aot_llava.kept_video_tokens import ratio_of
from modeling_aot_llava.token_budget import count_video_tokens

ALL = 4 * 16
WHOLE = ALL + 1  # with the newline
TEXT = "<video>What?"


@pytest.fixture
def ask(processor, make_video):
    """What the processor returns for one video; the model's ratio is 0.25, the processor's too."""
    return lambda **options: processor(text=[TEXT], videos=[make_video()], return_tensors="pt", **options)


@pytest.fixture
def of_stock(stock_processor, make_video):
    return lambda: stock_processor(text=[TEXT], videos=[make_video()], return_tensors="pt")


@pytest.fixture
def warnings_of(caplog, monkeypatch):
    """What the model says while it runs; what it says once is said anew in each test."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    caplog.set_level(logging.WARNING)
    logging.Logger.warning_once.cache_clear()

    def record(call):
        caplog.clear()
        with torch.no_grad():
            call()
        return [record.getMessage() for record in caplog.records if "`retention_ratio`" in record.getMessage()]

    return record


def columns_run(model, inputs):
    """How many columns the language model has read of the prompt, in `forward` and in `generate`."""
    with torch.no_grad():
        in_forward = model(**inputs).logits.shape[1]
    outputs = model.generate(**inputs, max_new_tokens=1, return_dict_in_generate=True)
    caches = [value for value in outputs.values() if hasattr(value, "get_seq_length")]
    assert caches[0].get_seq_length() == in_forward
    return in_forward


@pytest.mark.parametrize("configured", [0.25, 0.05, 1])
@pytest.mark.parametrize("ratio", [1, 1.0, 1.5, 0.9999])
def test_a_call_that_asks_for_all_tokens_gets_the_stock_models_answer(
    model, stock, configure, ask, of_stock, ratio, configured
):
    configure(retention_ratio=configured)
    inputs, theirs = ask(retention_ratio=ratio), of_stock()
    assert torch.equal(inputs["input_ids"], theirs["input_ids"])
    assert columns_run(model, inputs) == inputs["input_ids"].shape[1]
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, stock(**theirs).logits)
    assert torch.equal(model.generate(**inputs, max_new_tokens=5), stock.generate(**theirs, max_new_tokens=5))
    assert torch.equal(model.generate(**inputs, max_new_tokens=5), stock.generate(**inputs, max_new_tokens=5))


def test_a_processor_whose_own_ratio_is_one_asks_for_all_tokens(model, processor, monkeypatch, ask):
    monkeypatch.setattr(processor, "retention_ratio", 1.0)
    inputs = ask()
    assert columns_run(model, inputs) == inputs["input_ids"].shape[1]
    monkeypatch.setattr(processor, "retention_ratio", 0.25)
    assert columns_run(model, ask()) < inputs["input_ids"].shape[1]


@pytest.mark.parametrize("move", ["to", "dict", "batch of rows"])
def test_what_the_call_asked_for_survives_what_tensors_meet(model, ask, move):
    inputs = ask(retention_ratio=1.0)
    if move == "to":
        inputs = inputs.to("cpu", torch.float64).to(torch.float32)
    elif move == "dict":
        inputs = dict(inputs)
    else:
        inputs = {name: torch.cat([value, value]) for name, value in inputs.items()}
    assert columns_run(model, inputs) == inputs["input_ids"].shape[1]


@pytest.mark.parametrize(("configured", "expected"), [(0.25, 17), (0.5, 33), (0.9999, WHOLE), (1, WHOLE)])
def test_a_stock_prompt_is_cut_to_the_models_ratio(model, configure, of_stock, configured, expected):
    configure(retention_ratio=configured)
    inputs = of_stock()
    assert columns_run(model, inputs) == inputs["input_ids"].shape[1] - WHOLE + expected


def test_a_ratio_that_rounds_to_all_is_the_stock_model_bit_for_bit(model, stock, configure, of_stock):
    configure(retention_ratio=0.9999)
    inputs = of_stock()
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, stock(**inputs).logits)
        pixels = inputs["pixel_values_videos"]
        ours, theirs = (one.get_video_features(pixels).pooler_output for one in (model, stock))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_the_pipeline_keeps_what_its_call_asks_for(model, processor, make_video, ratio):
    lengths = []
    handle = model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    try:
        content = [{"type": "video", "video": make_video()}, {"type": "text", "text": "What?"}]
        answers = pipeline("any-to-any", model=model, processor=processor)(
            text=[{"role": "user", "content": content}],
            processor_kwargs={"retention_ratio": ratio},
            max_new_tokens=2,
            return_full_text=False,
        )
    finally:
        handle.remove()
    assert answers
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True, add_generation_prompt=True
    )["input_ids"]
    assert lengths[0] == len(text[0]) - 17 + int(ratio * ALL) + 1


# --- the model's ratio beside another of the processor


@pytest.mark.parametrize("entry", ["forward", "generate"])
def test_a_ratio_given_to_the_model_alone_is_told_once(model, configure, ask, warnings_of, entry):
    configure(retention_ratio=0.5)
    inputs = ask()
    call = (lambda: model(**inputs)) if entry == "forward" else (lambda: model.generate(**inputs, max_new_tokens=1))
    (message,) = warnings_of(call)
    assert "16 tokens" in message
    assert "32 tokens" in message
    assert "processor's `retention_ratio` is 0.25" in message
    assert "model's is 0.5" in message
    assert "processor(..., retention_ratio=0.5)" in message
    assert warnings_of(call) == []


def test_vllm_is_told_too(model, configure, ask, warnings_of):
    configure(retention_ratio=0.5)
    pixels = ask()["pixel_values_videos"]
    (message,) = warnings_of(lambda: model.get_video_features(pixels, kept_video_tokens=torch.tensor([16])))
    assert "model's is 0.5" in message


@pytest.mark.parametrize("configured", [0.25, 0.5])
def test_a_ratio_of_the_call_is_nobodys_mistake(model, configure, ask, of_stock, warnings_of, configured):
    configure(retention_ratio=configured)
    for inputs in (ask(retention_ratio=0.1), ask(retention_ratio=1.0), of_stock(), ask(retention_ratio=configured)):
        assert warnings_of(lambda inputs=inputs: model(**inputs)) == []


@pytest.mark.parametrize("name", ["retention_ratio", "num_anchors"])
@pytest.mark.parametrize("entry", ["forward", "generate", "get_video_features", "inner get_video_features"])
def test_fields_of_the_config_are_refused_as_arguments(model, ask, vision_tower_calls, entry, name):
    inputs = ask()
    if entry.endswith("get_video_features"):
        inputs = {"pixel_values_videos": inputs["pixel_values_videos"]}
    target = model.model if entry.startswith("inner") else model
    with pytest.raises(ValueError, match=rf"`{name}=0.5`.*(?:processor|Processor|config)"):
        getattr(target, entry.removeprefix("inner "))(**inputs, **{name: 0.5})
    assert not vision_tower_calls


@settings(max_examples=200, derandomize=True)
@given(st.integers(1, 64), st.integers(1, 999))
def test_the_named_ratio_gives_the_count(shared_config, num_frames, thousandths):
    count = count_video_tokens(num_frames, thousandths / 1000, 16, shared_config.num_clips)
    named = ratio_of(count, num_frames, shared_config)
    assert count_video_tokens(num_frames, named, 16, shared_config.num_clips) == count


@pytest.fixture(scope="session")
def shared_config(shared_model):
    return shared_model.config
