"""Processes are forked from a fresh one: where autograd has had threads, its forks cannot compute gradients."""

from pathlib import Path

import pytest
import torch
from alone import assert_passes_alone


@pytest.mark.skipif(torch.cuda.is_available(), reason="gradients on a GPU take threads")
def test_videos_of_different_lengths_among_processes():
    assert_passes_alone(Path(__file__).with_name("batches_among_processes.py"))
