"""Loss, gradients, gradient checkpointing and mixed precision of the compressed sequence."""

import logging

import pytest
import torch
from small_model import VARYING
from torch.nn import functional
from transformers.utils import logging as transformers_logging

from modeling_aot_llava import inter_frame_transport, intra_frame_transport, recipe

IGNORED = -100
TEXT = "See <video>, what?"
RECIPES = {
    "paper": {},
    "cosine": {"intra_frame_aggregation": "cosine", "inter_frame_aggregation": "cosine"},
    "none": {"intra_frame_aggregation": "none", "inter_frame_aggregation": "none"},
    "dynamic": {"clip_segmentation": "dynamic"},
    "random": {"anchor_selection": "random"},
    "transport in many steps": {"sinkhorn_tolerance": 0.0},
    **VARYING,
}
# All of the vision tower that the features of its last layer but the anchors' ranks come from.
TRAINED = ("vision_tower", "multi_modal_projector", "language_model", "image_newline")


def labelled(model, inputs, placeholders=True):
    """Labels as a trainer makes them: the ids, without padding and, if told, without placeholders."""
    ids = inputs["input_ids"]
    labels = ids.masked_fill(inputs["attention_mask"] == 0, IGNORED)
    return labels if placeholders else labels.masked_fill(ids == model.config.video_token_index, IGNORED)


def loss_by_hand(logits, labels):
    """Each position predicts the next one's label."""
    terms = [
        -functional.log_softmax(logits[row, column].double(), dim=-1)[labels[row, column + 1]]
        for row in range(len(labels))
        for column in range(labels.shape[1] - 1)
        if labels[row, column + 1] != IGNORED
    ]
    return torch.stack(terms).mean().float()


def gradients(model, inputs, **options):
    model.zero_grad(set_to_none=True)
    outputs = model(**inputs, **options)
    outputs.loss.backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.fixture
def trained(build_model):
    """A model of the test's own, in training mode."""
    return lambda **fields: build_model(**fields).train()


# --- loss


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("placeholders", [True, False], ids=["all labels", "text labels"])
def test_loss_is_the_cross_entropy_of_the_compressed_sequence(model, prompt, side, placeholders):
    texts, options = (TEXT, "<video>", "only text"), {"seeds": (0, 1), "padding_side": side}
    exact, full = (prompt(*texts, retention_ratio=ratio, **options) for ratio in (0.25, 1.0))
    cut_labels = labelled(model, exact, placeholders)
    for inputs in (exact, full):
        outputs = model(**inputs, labels=labelled(model, inputs, placeholders))
        assert outputs.logits.shape[:2] == cut_labels.shape
        torch.testing.assert_close(outputs.loss, loss_by_hand(outputs.logits, cut_labels))


@pytest.mark.parametrize("fields", VARYING.values(), ids=VARYING)
@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_text_labels_count_the_same_whatever_the_number_of_tokens(model, configure, prompt, fields, ratio):
    """The text behind the video is predicted from the logits of its own columns."""
    configure(**fields)
    inputs = prompt(TEXT, retention_ratio=ratio)
    labels = labelled(model, inputs, placeholders=False)
    behind = TEXT.split("<video>")[1]
    labels[:, : -len(behind)] = IGNORED
    outputs = model(**inputs, labels=labels)
    expected = functional.cross_entropy(
        outputs.logits[0, -len(behind) - 1 : -1], inputs["input_ids"][0, -len(behind) :]
    )
    assert outputs.logits.shape[1] != prompt(TEXT)["input_ids"].shape[1]
    torch.testing.assert_close(outputs.loss, expected)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_gradient_accumulation_counts_the_batchs_labels(model, prompt, ratio):
    """`num_items_in_batch`, as `Trainer` passes it."""
    inputs = prompt(TEXT, retention_ratio=ratio)
    labels = labelled(model, inputs, placeholders=False)
    mean = model(**inputs, labels=labels).loss
    count = int((labels != IGNORED).sum())
    accumulated = model(**inputs, labels=labels, num_items_in_batch=4 * count).loss
    assert labels[0, 0] != IGNORED  # the first has no position before it that could predict it
    torch.testing.assert_close(accumulated, mean * (count - 1) / (4 * count))


def test_no_labels_no_loss(model, prompt):
    assert model(**prompt(TEXT)).loss is None


# --- gradients


@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize("name", RECIPES)
def test_gradients_reach_every_part_and_are_finite(trained, prompt, name, ratio):
    model = trained(**RECIPES[name])
    inputs = prompt(TEXT, "<video>", seeds=(0, 2), retention_ratio=ratio)
    grads = gradients(model, inputs, labels=labelled(model, inputs, placeholders=False))
    assert all(grad.isfinite().all() for grad in grads.values())
    for part in TRAINED:
        assert any(part in parameter and grad.abs().max() > 1e-8 for parameter, grad in grads.items())
    layers = model.config.vision_config.num_hidden_layers
    first = [grad for parameter, grad in grads.items() if "vision_tower" in parameter and ".layers.0." in parameter]
    last = [grad for parameter, grad in grads.items() if f".layers.{layers - 1}." in parameter]
    assert any(grad.any() for grad in first)
    assert any(grad.any() for grad in last)


def test_gradient_is_the_slope_of_the_loss(trained, prompt):
    """Central differences along the gradient of the projector, in the whole model."""
    model = trained().double()
    inputs = prompt(TEXT).to(torch.float64)
    labels = labelled(model, inputs, placeholders=False)
    grads = gradients(model, inputs, labels=labels)
    weight = model.model.multi_modal_projector.linear_2.weight
    direction = next(grad for name, grad in grads.items() if name.endswith("projector.linear_2.weight"))
    direction = direction / direction.norm()
    losses = []
    with torch.no_grad():
        for step in (1e-3, -2e-3):
            weight += step * direction
            losses.append(model(**inputs, labels=labels).loss)
    slope = (losses[0] - losses[1]) / 2e-3
    expected = (direction * weight.grad).sum().float()
    torch.testing.assert_close(slope, expected, rtol=1e-2, atol=1e-4)


def test_full_prompt_gives_the_gradients_of_the_exact_one(trained, prompt):
    model = trained()
    all_grads = []
    for ratio in (0.25, 1.0):
        inputs = prompt(TEXT, "<video>", seeds=(0, 1), retention_ratio=ratio)
        all_grads.append(gradients(model, inputs, labels=labelled(model, inputs, placeholders=False)))
    assert all_grads[0].keys() == all_grads[1].keys()
    for name, expected in all_grads[0].items():
        torch.testing.assert_close(all_grads[1][name], expected, rtol=1e-3, atol=1e-5)


def test_gradients_reach_the_callers_embeddings(trained, prompt):
    """Soft prompts: the columns that stay, and no others."""
    model = trained()
    inputs = prompt(TEXT, retention_ratio=1.0)
    labels = labelled(model, inputs, placeholders=False)
    ids = inputs.pop("input_ids")
    embeds = model.get_input_embeddings()(ids).detach().requires_grad_()
    model(**inputs, inputs_embeds=embeds, labels=labels).loss.backward()
    is_text = ids[0] != model.config.video_token_index
    reached = embeds.grad[0].abs().amax(dim=-1) > 0
    assert torch.equal(reached[:-1], is_text[:-1])  # the last token predicts nothing


def test_frozen_vision_tower_leaves_the_projector_trainable(trained, prompt):
    model = trained()
    model.model.vision_tower.requires_grad_(False)
    inputs = prompt(TEXT)
    grads = gradients(model, inputs, labels=labelled(model, inputs))
    assert not any("vision_tower" in name for name in grads)
    assert any("multi_modal_projector" in name and grad.any() for name, grad in grads.items())


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize("name", ["paper", "released"])
def test_gradient_checkpointing_gives_the_same_gradients(trained, prompt, reentrant, ratio, name):
    model = trained(**RECIPES[name])
    inputs = prompt(TEXT, "<video>", seeds=(0, 1), retention_ratio=ratio)
    labels = labelled(model, inputs, placeholders=False)
    expected = gradients(model, inputs, labels=labels)
    layers_run = []
    layer = model.model.vision_tower.get_submodule(
        next(name for name, _ in model.model.vision_tower.named_modules() if name.endswith("layers.3"))
    )
    layer.self_attn.register_forward_pre_hook(lambda *_: layers_run.append(1))
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    actual = gradients(model, inputs, labels=labels)
    assert len(layers_run) == 2, "the vision tower was not checkpointed"
    assert actual.keys() == expected.keys()
    for parameter, grad in expected.items():
        torch.testing.assert_close(actual[parameter], grad, rtol=1e-3, atol=1e-6)
    hooked = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module._forward_hooks]
    assert not hooked


def test_training_lowers_the_loss(trained, prompt):
    model = trained()
    inputs = prompt(TEXT, retention_ratio=1.0)
    labels = labelled(model, inputs, placeholders=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for _ in range(6):
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("placeholders", [True, False])
@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_labels_of_removed_placeholders_are_warned_of_once(trained, prompt, caplog, monkeypatch, placeholders, ratio):
    """Only where a prompt is fitted and its placeholders have labels: Trainer would count them in the loss."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    caplog.set_level(logging.WARNING, logger="transformers")
    transformers_logging.warning_once.cache_clear()
    model, inputs = trained(), prompt(TEXT, retention_ratio=ratio)
    for _ in range(2):
        model(**inputs, labels=labelled(model, inputs, placeholders=placeholders))
    messages = [record.getMessage() for record in caplog.records if "fewer logits than labels" in record.getMessage()]
    assert len(messages) == (1 if placeholders and ratio == 1 else 0)


def test_labels_shifted_by_the_caller_are_laid_out_with_the_prompt(trained, prompt):
    """As Trainer passes them where a sequence is shared out among devices."""
    model, losses = trained(), []
    for ratio in (0.25, 1.0):
        inputs = prompt(TEXT, retention_ratio=ratio)
        labels = labelled(model, inputs, placeholders=False)
        shifted = torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]
        losses.append(model(**inputs, labels=labels, shift_labels=shifted).loss)
        torch.testing.assert_close(losses[-1], model(**inputs, labels=labels).loss)
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("name", ["labels", "shift_labels", "position_ids"])
def test_values_that_do_not_fit_the_columns_of_a_fitted_prompt_are_refused(trained, prompt, name):
    model, inputs = trained(), prompt(TEXT, retention_ratio=1.0)
    narrow = inputs["input_ids"][:, 1:]
    with pytest.raises(ValueError, match=rf"`{name}` has {narrow.shape[1]} columns.*{narrow.shape[1] + 1}"):
        model(**inputs, **{"labels": inputs["input_ids"], name: narrow})


# --- precision


@pytest.mark.parametrize("fields", [{}, VARYING["released"]], ids=["paper", "released"])
def test_autocast_leaves_the_transport_in_float32(trained, prompt, monkeypatch, fields):
    """The projector's features are half precision, the transport of them is not."""
    model = trained(**fields)
    inputs = prompt(TEXT)
    dtypes = {"projector": set(), "transport": set(), "aggregation": set()}
    for name, module, function in (
        ("transport", recipe, "sinkhorn"),
        ("aggregation", intra_frame_transport, "aggregate"),
        ("aggregation", inter_frame_transport, "aggregate"),
    ):
        original = getattr(module, function)

        def watch(*args, _name=name, _original=original, **kwargs):
            result = _original(*args, **kwargs)
            dtypes[_name] |= {value.dtype for value in (*args, result) if isinstance(value, torch.Tensor)}
            return result

        monkeypatch.setattr(module, function, watch)
    model.model.multi_modal_projector.register_forward_hook(lambda *call: dtypes["projector"].add(call[2].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(**inputs, labels=labelled(model, inputs))
    outputs.loss.backward()
    assert dtypes == {"projector": {torch.bfloat16}, "transport": {torch.float32}, "aggregation": {torch.float32}}
    grads = [value.grad for value in model.parameters() if value.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["paper", "released"])
def test_half_precision_training_has_finite_gradients(trained, prompt, dtype, name):
    model = trained(**RECIPES[name]).to(dtype)
    inputs = prompt(TEXT, retention_ratio=1.0).to(dtype)
    grads = gradients(model, inputs, labels=labelled(model, inputs, placeholders=False))
    assert any("vision_tower" in parameter and grad.any() for parameter, grad in grads.items())
    assert all(grad.isfinite().all() for grad in grads.values())
