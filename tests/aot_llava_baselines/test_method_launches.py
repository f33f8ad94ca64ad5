"""The kernels and waits of the methods are counted in a process of their own.

What other tests have left behind in PyTorch changes how often a value is counted as read (seen on transformers 5.20).
"""

from pathlib import Path

from alone import assert_passes_alone


def test_each_method_puts_on_a_gpu_what_was_counted():
    assert_passes_alone(Path(__file__).with_name("method_launches.py"))
