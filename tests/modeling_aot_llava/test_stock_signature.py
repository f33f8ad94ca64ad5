"""Methods are called as the stock class's: by position, by name, and after accelerate took mixed precision off."""

import inspect

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from transformers import GenerationConfig, LlavaOnevisionForConditionalGeneration

from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration
from modeling_aot_llava.stock_signature import called_as


@pytest.fixture
def accelerator():
    """Puts bfloat16 around a model's `forward`; neither meets another test's state, a `Trainer`'s, nor leaves any."""
    forget_accelerators()
    yield Accelerator(mixed_precision="bf16", cpu=True)
    forget_accelerators()


def forget_accelerators():
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()


@pytest.mark.parametrize("method", ["forward", "generate"])
def test_nothing_leads_to_the_stock_method(method):
    ours, theirs = (
        getattr(one, method)
        for one in (AOTLlavaOnevisionForConditionalGeneration, LlavaOnevisionForConditionalGeneration)
    )
    seen = [ours]
    while hasattr(seen[-1], "__wrapped__"):
        seen.append(seen[-1].__wrapped__)
    assert all(function.__module__ == "modeling_aot_llava.modeling_aot_llava" for function in seen)
    own, stock = (inspect.signature(one).parameters for one in (ours, theirs))
    assert [own[name] for name in own if name in stock] == list(stock.values())
    assert {name: own[name].kind for name in own if name not in stock} == {
        "num_video_frames": inspect.Parameter.KEYWORD_ONLY,
        "encoded_video_tokens": inspect.Parameter.KEYWORD_ONLY,
        "encoded_video_lengths": inspect.Parameter.KEYWORD_ONLY,
        "encoded_video_marks": inspect.Parameter.KEYWORD_ONLY,
    }
    assert ours.__doc__ == theirs.__doc__


def test_aot_is_there_when_accelerate_takes_mixed_precision_off(build_model, prompt, accelerator):
    model, inputs = build_model(), prompt("<video>What?")
    with torch.no_grad():
        expected = model(**inputs).logits
        prepared = accelerator.prepare_model(model, evaluation_mode=True)
        assert "forward" in vars(prepared)
        plain = accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
        assert torch.equal(plain(**inputs).logits, expected)


def test_every_argument_of_forward_by_position(model, prompt):
    """The eighth is the cache, whatever a release calls it."""
    inputs = prompt("<video>What?")
    names = list(inspect.signature(model.forward).parameters)
    given = {**inputs, "use_cache": True, "labels": inputs["input_ids"]}
    last = max(map(names.index, given))
    with torch.no_grad():
        by_position = model(*map(given.get, names[: last + 1]))
        by_name = model(**given)
        first = model(**inputs, use_cache=True)
        cache = next(value for value in first.values() if hasattr(value, "get_seq_length"))
        length = cache.get_seq_length()
        model(torch.tensor([[7]]), None, None, None, None, None, None, cache)
    assert torch.equal(by_position.logits, by_name.logits)
    assert torch.equal(by_position.loss, by_name.loss)
    assert cache.get_seq_length() == length + 1


def test_arguments_of_generate_by_position(model, prompt, build_model):
    inputs = prompt("<video>What?")
    config = GenerationConfig(max_new_tokens=4, eos_token_id=258, pad_token_id=256)
    pixels = {"pixel_values_videos": inputs["pixel_values_videos"]}
    calls = []

    def watch(ids, scores):
        calls.append(ids.shape[1])
        return scores

    expected = model.generate(input_ids=inputs["input_ids"], generation_config=config, **pixels)
    assert torch.equal(model.generate(inputs["input_ids"], config, [watch], **pixels), expected)
    assert len(calls) == 4


def test_an_argument_given_twice_or_too_many_are_refused():
    class Stock:
        def method(self, first, second=None):
            """What it does."""

    class Ours:
        @called_as(Stock.method)
        def method(self, *, first, second=None):
            return first, second

    assert Ours().method(1, 2) == (1, 2)
    assert Ours().method(1, second=3) == (1, 3)
    with pytest.raises(TypeError, match="first"):
        Ours().method(1, first=2)
    with pytest.raises(TypeError, match="`method` takes 2 arguments by position, but 3 were given"):
        Ours().method(1, 2, 3)
