"""The device that a benchmark runs on."""

import torch


def choose_device(name: str | None) -> torch.device:
    """The device of this name, as `benchmarks.options.device` reads it; None is a GPU where there is one.

    Raises:
        ValueError: if there is no such GPU.
    """
    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"{name!r} is not there: this machine has {torch.cuda.device_count()} CUDA devices")
    return device
