"""Videos of different lengths in what tensors meet on the way to the model: loaders, devices, trainers.

What each row must give is computed from that row alone, whose video is nowhere padded.
"""

import ast
import importlib
import math
from pathlib import Path

import pytest
import torch
from numbered_clips import write_clip
from test_generate import each_alone, new_text
from torch.nn.parallel import scatter_gather
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory
from transformers import Trainer, TrainingArguments

FINE_TUNING = Path(__file__).parents[2] / "docs/fine-tuning.md"
# Frames of the clips, question and answer of each.
EXAMPLES = [(2, "What?", "up"), (5, "Why?", "blue"), (3, "Where?", "left"), (3, "Who?", "a cat"), (1, "How?", "so")]


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [
        {"video": str(write_clip(folder / f"{number}.mp4", frames)), "question": question, "answer": answer}
        for number, (frames, question, answer) in enumerate(EXAMPLES)
    ]


@pytest.fixture
def collate(processor):
    """The collator that docs/fine-tuning.md shows."""
    names = {"torch": torch, "processor": processor}
    blocks = FINE_TUNING.read_text("utf-8").split("```python\n")[1:]
    for node in ast.parse(blocks[0].split("```")[0]).body:
        if isinstance(node, ast.FunctionDef):
            exec(compile(ast.Module([node], []), FINE_TUNING.name, "exec"), names)
    return names["collate"]


def gradients(model):
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def losses_and_norms(model, batches, collate):
    """Of each batch what its rows give one by one: the mean loss of the answers, and the norm of its gradient."""
    expected = []
    for batch in batches:
        alone = [collate([example]) for example in batch]
        num_labels = sum(int((inputs["labels"] != -100).sum()) for inputs in alone)
        model.zero_grad(set_to_none=True)
        losses = [model(**inputs, num_items_in_batch=num_labels).loss for inputs in alone]
        sum(losses).backward()
        norm = math.sqrt(sum(grad.square().sum() for grad in gradients(model).values()))
        expected.append((sum(losses).item(), norm))
    model.zero_grad(set_to_none=True)
    return expected


class Recorder:
    """A collator that remembers what it was asked for."""

    def __init__(self, collate):
        self.collate, self.batches = collate, []

    def __call__(self, examples):
        self.batches.append(examples)
        return self.collate(examples)


# --- loaders


def test_pinned_memory_holds_every_tensor(collate, examples, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: pinned.append(id(tensor)) or tensor.clone())
    batch = collate(examples)
    result = pin_memory(batch)
    assert set(pinned) == set(map(id, batch.values()))
    assert result.keys() == batch.keys()
    assert "num_video_frames" in batch


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_what_the_collator_makes(model, collate, examples, workers):
    loader = DataLoader(examples, batch_size=3, collate_fn=collate, num_workers=workers)
    for batch, members in zip(loader, (examples[:3], examples[3:]), strict=True):
        labels = batch.pop("labels")
        assert torch.equal(labels, collate(members)["labels"])
        rows = [collate([example]) for example in members]
        for row in rows:
            del row["labels"]
        assert torch.equal(new_text(model, batch), each_alone(model, rows))


# --- devices


@pytest.fixture
def several_devices(monkeypatch):
    """DataParallel's splitting and joining of tensors, on the CPU."""

    class Scatter:
        apply = staticmethod(lambda devices, _, axis, tensor: tensor.chunk(len(devices), axis))

    class Gather:
        # As `torch.cuda.comm.gather`, which joins scalars to a vector.
        apply = staticmethod(lambda _, axis, *tensors: torch.cat([torch.atleast_1d(one) for one in tensors], axis))

    monkeypatch.setattr(scatter_gather, "Scatter", Scatter)
    monkeypatch.setattr(scatter_gather, "Gather", Gather)


def on_devices(model, inputs, number):
    _, parts = scatter_gather.scatter_kwargs((), dict(inputs), range(number))
    return parts, scatter_gather.gather([model(**part, use_cache=False) for part in parts], "cpu")


@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize("number", [2, 3])
def test_data_parallel_splits_and_joins(model, processor, make_video, several_devices, number, ratio):
    """Also where the videos of some devices are equally long, and those of others not."""
    texts = ["<video>What?", "And <video>?", "<video>", "<video>Why?", "Only <video>", "Or <video>?"]
    lengths = torch.tensor([2, 6, 3, 3, 1, 4])
    videos = [make_video(length, seed) for seed, length in enumerate(lengths.tolist())]
    inputs = processor(text=texts, videos=videos, padding=True, return_tensors="pt", retention_ratio=ratio)
    with torch.no_grad():
        parts, joined = on_devices(model, inputs, number)
        together = model(**inputs, use_cache=False)
    assert all(map(torch.equal, [part["num_video_frames"] for part in parts], lengths.view(number, -1)))
    torch.testing.assert_close(joined.logits, together.logits, atol=1e-4, rtol=1e-4)


def test_rows_that_are_parted_from_their_videos_are_refused(model, processor, make_video, several_devices):
    """DataParallel cuts rows and videos into equal shares: a row of two videos beside one of one loses its second."""
    videos = [make_video(length, seed) for seed, length in enumerate((2, 6, 3))]
    for texts in (["<video>What?", "<video> and <video>?"], ["<video>, <video>, <video>?", "only text"]):
        inputs = processor(text=texts, videos=videos, padding=True, return_tensors="pt")
        with pytest.raises(ValueError, match="cannot be shared out"):
            on_devices(model, inputs, 2)


# --- trainers


def arguments_of(args_class, folder, **options):
    """With a learning rate of 0, so that each step meets the same weights."""
    return args_class(
        output_dir=str(folder),
        max_steps=3,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        learning_rate=0.0,
        logging_steps=1,
        remove_unused_columns=False,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )


def logged(trainer):
    return [(log["loss"], log["grad_norm"]) for log in trainer.state.log_history if "grad_norm" in log]


def assert_losses_of_rows_alone(trainer, model, recorder):
    expected = losses_and_norms(model, recorder.batches[:3], recorder.collate)
    assert len({len(batch) for batch in recorder.batches}) == 2  # the last one is smaller
    for (loss, norm), (expected_loss, expected_norm) in zip(logged(trainer), expected, strict=True):
        assert loss == pytest.approx(expected_loss, rel=1e-3)
        assert norm == pytest.approx(expected_norm, rel=1e-3)


@pytest.fixture
def trained(build_model):
    model = build_model().train()
    model.model.vision_tower.requires_grad_(False)
    return model


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_trainer(trained, collate, examples, tmp_path, checkpointing):
    recorder = Recorder(collate)
    trainer = Trainer(
        model=trained,
        train_dataset=examples,
        eval_dataset=examples,
        data_collator=recorder,
        args=arguments_of(TrainingArguments, tmp_path, gradient_checkpointing=checkpointing),
    )
    trainer.train()
    assert_losses_of_rows_alone(trainer, trained.train(), recorder)
    assert math.isfinite(trainer.evaluate()["eval_loss"])


def test_trainer_predicts_each_row(trained, collate, examples, tmp_path):
    """Beside the logits the model gives the tokens of its videos, which the trainer joins as well."""
    arguments = arguments_of(TrainingArguments, tmp_path)
    trainer = Trainer(model=trained.eval(), data_collator=collate, args=arguments)
    logits = torch.tensor(trainer.predict(examples).predictions[0])
    for row, example in zip(logits, examples, strict=True):
        with torch.no_grad():
            alone = trained(**collate([example])).logits[0]
        torch.testing.assert_close(row[(row != -100).all(-1)][-3:], alone[-3:], atol=1e-4, rtol=1e-4)


def test_trl(trained, processor, collate, examples, tmp_path):
    trl = pytest.importorskip("trl")
    recorder = Recorder(collate)
    trainer = trl.SFTTrainer(
        model=trained,
        processing_class=processor,
        train_dataset=importlib.import_module("datasets").Dataset.from_list(examples),
        data_collator=recorder,
        args=arguments_of(
            trl.SFTConfig, tmp_path, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, bf16=False
        ),
    )
    trainer.train()
    assert_losses_of_rows_alone(trainer, trained.train(), recorder)
