"""Videos of different lengths among several processes: accelerate's dispatch and gathering, and FSDP2."""

import os
import socket

import pytest
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.state import AcceleratorState
from torch import multiprocessing
from torch.distributed import destroy_process_group, init_device_mesh
from torch.utils.data import DataLoader

try:
    from torch.distributed.fsdp import fully_shard
except ImportError:  # torch 2.6 has it elsewhere
    from torch.distributed._composable.fsdp import fully_shard

LENGTHS = [2, 5, 3, 3, 1, 6, 7, 4]
PROCESSES = 2


@pytest.fixture
def collate(processor, make_video):
    def collate(lengths):
        """Rows of a video each, and labels of the text behind it."""
        inputs = processor(
            text=["<video>What" + "?" * length for length in lengths],
            videos=[make_video(length, length) for length in lengths],
            padding=True,
            return_tensors="pt",
        )
        is_text = (inputs["attention_mask"] == 1) & (inputs["input_ids"] != processor.video_token_id)
        inputs["labels"] = inputs["input_ids"].masked_fill(~is_text, -100)
        return inputs

    return collate


@pytest.fixture
def in_processes(tmp_path):
    """Runs a function in several processes that know of each other, and returns what it gave in each."""

    def run(function):
        paths = [tmp_path / f"{rank}.pt" for rank in range(PROCESSES)]
        # Forked, they need not import all of this again.
        multiprocessing.start_processes(_join, (function, paths, _free_port()), PROCESSES, start_method="fork")
        return [torch.load(path) for path in paths]

    return run


def _free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def _join(rank, function, paths, port):
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(PROCESSES),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }
    AcceleratorState._reset_state(reset_partial_state=True)  # which an earlier test may have made
    torch.save(function(), paths[rank])
    destroy_process_group()


def test_accelerate_dispatches_and_gathers(model, collate, in_processes):
    """One process reads the batches, each gets its rows of them, and all get what all made of theirs."""

    def ask():
        configuration = DataLoaderConfiguration(dispatch_batches=True, split_batches=True)
        accelerator = Accelerator(cpu=True, dataloader_config=configuration)
        answers, counts = [], []
        for batch in accelerator.prepare(DataLoader(LENGTHS, batch_size=4, collate_fn=collate)):
            assert len(batch["input_ids"]) == 4 // PROCESSES
            with torch.no_grad():
                logits = model(**batch).logits[:, -1]
            answers += accelerator.gather_for_metrics(logits)
            counts += accelerator.gather_for_metrics(batch)["num_video_frames"]
        return torch.stack(answers), torch.stack(counts)

    with torch.no_grad():
        alone = torch.cat([model(**collate([length])).logits[:, -1] for length in LENGTHS])
    for answers, counts in in_processes(ask):
        torch.testing.assert_close(answers, alone, atol=1e-4, rtol=1e-4)
        assert counts.tolist() == LENGTHS


def test_fsdp_gives_the_gradients_of_all_rows(build_model, collate, in_processes):
    shares = [[2, 5], [3, 6]]

    rows = [collate([length]) for share in shares for length in share]
    num_labels = sum(int((row["labels"] != -100).sum()) for row in rows)

    def train():
        rank = Accelerator(cpu=True).process_index
        model, mesh = build_model().train(), init_device_mesh("cpu", (PROCESSES,))
        blocks = [module for name, module in model.named_modules() if name.split(".")[-2:-1] == ["layers"]]
        for module in (*blocks, model):
            fully_shard(module, mesh=mesh)
        model(**collate(shares[rank]), num_items_in_batch=num_labels).loss.backward()
        return {name: value.grad.full_tensor() for name, value in model.named_parameters() if value.grad is not None}

    in_each = in_processes(train)
    model = build_model().train()
    for row in rows:
        model(**row, num_items_in_batch=num_labels).loss.backward()
    for found in in_each:
        for name, value in model.named_parameters():
            if value.grad is not None:
                torch.testing.assert_close(found[name] * PROCESSES, value.grad, atol=1e-4, rtol=1e-3)
