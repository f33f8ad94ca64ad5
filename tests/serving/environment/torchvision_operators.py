"""Declares the compiled operators of torchvision that it describes to torch when it is imported.

The package index has torchvision compiled for CUDA only; beside a torch for CPUs its library cannot be loaded, and the
import fails for the want of these names. Nothing here calls them. Imported by `torchvision_operators.pth` whenever
Python starts, so it waits for torchvision and imports nothing before.
"""

import sys

OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


class BeforeTorchvision:
    """A finder that finds nothing: it is asked first, and so knows that torchvision is about to be imported."""

    library = None  # the declarations last as long as this object

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" and BeforeTorchvision.library is None:
            import torch

            BeforeTorchvision.library = torch.library.Library("torchvision", "FRAGMENT")
            for operator, arguments in OPERATORS.items():
                if not hasattr(torch.ops.torchvision, operator):
                    BeforeTorchvision.library.define(operator + arguments)


sys.meta_path.insert(0, BeforeTorchvision())
