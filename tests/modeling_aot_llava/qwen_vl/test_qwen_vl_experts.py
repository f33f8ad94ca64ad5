"""Qwen3-VL-MoE: what its router says, and the loss that is made of it, are the stock model's."""

import pytest
import torch
from qwen_vl_hosts import HOSTS, inputs_of, our_model, processor_of, stock_model, video_of
from torch.nn.functional import one_hot

HOST = HOSTS["qwen3_vl_moe"]
CLIPS = [video_of(7, 2, 3, seed=1), video_of(10, 3, 3, seed=2)]


@pytest.fixture(scope="module")
def stock():
    return stock_model(HOST)


def labelled(model, inputs):
    """The prompt's words as labels, and no placeholder."""
    ignored = (inputs["input_ids"] == model.config.video_token_id) | (inputs["attention_mask"] == 0)
    return {**inputs, "labels": inputs["input_ids"].masked_fill(ignored, -100)}


@pytest.mark.parametrize("is_asked_by_config", [True, False])
def test_with_all_tokens_losses_and_router_are_the_stock_models(stock, is_asked_by_config):
    ours = our_model(HOST, stock)
    theirs_inputs = inputs_of(processor_of(HOST, is_ours=False), CLIPS)
    ours_inputs = inputs_of(processor_of(HOST), CLIPS, retention_ratio=1)
    asked = {} if is_asked_by_config else {"output_router_logits": True}
    models = (stock, ours)
    for model in models:
        model.config.text_config.output_router_logits = is_asked_by_config
    outputs = [
        model(**labelled(model, inputs), **asked) for model, inputs in zip(models, (theirs_inputs, ours_inputs))
    ]
    for model in models:
        model.config.text_config.output_router_logits = False
    for name in ("loss", "aux_loss", "logits"):
        assert torch.equal(*(output[name] for output in outputs)), name
    assert all(map(torch.equal, *(output.router_logits for output in outputs)))
    plain = ours(**labelled(ours, ours_inputs)).loss
    coefficient = ours.config.text_config.router_aux_loss_coef
    torch.testing.assert_close(outputs[1].loss - plain, coefficient * outputs[1].aux_loss, atol=1e-6, rtol=1e-3)


def naive_balance(router_logits, mask, config):
    """Switch Transformer's: how often an expert is taken, times how probable it is, over the columns that are read."""
    logits = torch.cat([layer[mask.flatten().bool()] for layer in router_logits])
    probable = logits.softmax(-1)
    taken = one_hot(probable.topk(config.num_experts_per_tok).indices, config.num_experts).float()
    return config.num_experts * (taken.mean(0).sum(0) * probable.mean(0)).sum()


def test_the_routers_loss_is_over_the_columns_that_are_run(stock):
    """Whichever processor wrote the prompt; padding does not count."""
    ours = our_model(HOST, stock)
    exact, full = (inputs_of(processor_of(HOST, is_ours=is_ours), CLIPS) for is_ours in (True, False))
    outputs = [ours(**labelled(ours, inputs), output_router_logits=True) for inputs in (exact, full)]
    for name in ("loss", "aux_loss"):
        torch.testing.assert_close(*(output[name] for output in outputs))
    assert len(outputs[1].router_logits[0]) == exact["input_ids"].numel() < full["input_ids"].numel()
    naive = naive_balance(outputs[0].router_logits, exact["attention_mask"], ours.config.text_config)
    torch.testing.assert_close(outputs[0].aux_loss, naive)


def test_training_reaches_router_and_experts(stock):
    ours = our_model(HOST, stock).train()
    inputs = labelled(ours, inputs_of(processor_of(HOST), CLIPS))
    ours(**inputs, output_router_logits=True).loss.backward()
    for layer in ours.model.language_model.layers:
        assert layer.mlp.gate.weight.grad.abs().sum() > 0
        assert layer.mlp.experts.gate_up_proj.grad.abs().sum() > 0
