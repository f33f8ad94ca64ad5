"""How the time to first token is divided between the parts of a model."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from modeling_aot_llava import attention_capture, video_encoding

from .stopwatch import Stopwatch, timed_functions

CAPTURE = (attention_capture, "attention_received")
COMPRESSION = ((video_encoding, "compress_frames"), (video_encoding, "compress_along_time"))

# Name of the measured quantity, in the order of the data's way. Stock has no capture and no compression.
PARTS = {
    "vision_tower_seconds": "vision tower",
    "attention_received_seconds": "attention received",
    "projector_seconds": "projector",
    "compression_seconds": "AOT after projector",
    "language_model_seconds": "language model",
    "rest_seconds": "rest",
}


@contextmanager
def timed_parts(model: nn.Module, device: torch.device) -> Iterator[dict[str, float]]:
    """Times the parts of a LLaVA-OneVision, stock or AOT, while it runs.

    The dict has their seconds once the block is left. What is left of the whole is pooling, the embeddings, the
    prompt's bookkeeping and the choice of the token.
    """
    stopwatch, parts = Stopwatch(device), {}
    modules = {
        "vision_tower_seconds": model.model.vision_tower,
        "projector_seconds": model.model.multi_modal_projector,
        "language_model_seconds": model.model.language_model,
    }
    with ExitStack() as stack:
        for name, module in modules.items():
            _time_module(stack, stopwatch, name, module)
        spent = stack.enter_context(timed_functions([CAPTURE, *COMPRESSION], device))
        yield parts
    of_modules = stopwatch.seconds()
    capture = spent[CAPTURE[1]]
    parts |= {name: of_modules[name] for name in modules}
    parts["vision_tower_seconds"] -= capture  # it is taken while the tower runs
    parts["attention_received_seconds"] = capture
    parts["compression_seconds"] = sum(spent[name] for _, name in COMPRESSION)


def _time_module(stack: ExitStack, stopwatch: Stopwatch, name: str, module: nn.Module) -> None:
    started = []

    def enter(*_) -> None:
        started.append(stopwatch.start())

    def leave(*_) -> None:
        stopwatch.stop(name, started.pop())

    for handle in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave)):
        stack.callback(handle.remove)
