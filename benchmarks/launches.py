"""What AOT puts on a GPU for one video: kernels, how often the host waits, and copies from pageable memory.

Needs no GPU. The video's tensors are PyTorch's fake tensors: they have a shape and say that they lie on a GPU, so the
code takes every turn that it takes there, but they hold no numbers. A dispatch mode sees each operation:

- one that makes or changes a tensor on the GPU counts as one kernel, a custom operator as those that it launches;
  views and allocations count nothing. (A sort is one operation, though it may be several kernels.)
- the host waits where it reads a value, where a shape depends on values, and where a copy from or to the GPU is not
  asked to go on in the background;
- a copy from or to memory that is not pinned makes the host wait even where it is asked not to, and no CUDA graph can
  hold it.

Of the last two there are none, or the program fails.
"""

import math
import sys
from collections import Counter
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, UntypedStorage
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.options import OneLineParser, count
from modeling_aot_llava import (
    AOTLlavaOnevisionConfig,
    AOTQwen2_5_VLConfig,
    AOTQwen2VLConfig,
    AOTQwen3VLConfig,
    AOTQwen3VLMoeConfig,
    qwen_vl_encoding,
)
from modeling_aot_llava.fused_kernels import NAMESPACE, triton
from modeling_aot_llava.spatiotemporal_pruning import compress_video_features

# What an operator of this project puts on the GPU.
LAUNCHES = {"sinkhorn": 1, "attention_received": 2}

FRAMES = (8, 32, 64, 128)
WIDTH = 3584
# Patches of a Qwen-VL frame: as many tokens as a frame of LLaVA-OneVision has.
QWEN_SIDE = 28

# Operations that touch no memory, though their schema does not say so.
WITHOUT_KERNEL = {"aten::_unsafe_view", "aten::empty", "aten::empty_like", "aten::new_empty", "aten::lift_fresh"}

# As many tensors PyTorch changes in one launch, each by a number of its own.
TENSORS_OF_A_LAUNCH = 96

# What the host reads from a tensor that holds no numbers.
READ_VALUE = {torch.bool: True}


class LaunchCount(TorchDispatchMode):
    """Counts while it is active.

    Attributes:
        kernels: operations by name.
        waits: the same of those that the host waits for.
        pageable_copies: the same of those that copy from or to the host's memory where it is not pinned.
    """

    def __init__(self):
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.pageable_copies: Counter[str] = Counter()
        self._pinned: list[UntypedStorage] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function._schema.name
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if function is torch.ops.aten._local_scalar_dense.default:
            self.waits[name] += given[0].is_cuda
            return READ_VALUE.get(given[0].dtype, 1)
        result = function(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if kwargs.get("pin_memory"):
            self._pinned += [tensor.untyped_storage() for tensor in made]
        made = made or _changed(function, args)
        on_gpu = [tensor.is_cuda for tensor in (*given, *made) if tensor.dim() or tensor.is_cuda]
        if not any(on_gpu) or not made or _is_view(function) or name in WITHOUT_KERNEL:
            return result
        namespace, _, operator = name.partition("::")
        if name.startswith("aten::_foreach"):
            self.kernels[name] += math.ceil(len(made) / TENSORS_OF_A_LAUNCH)
        else:
            self.kernels[name] += LAUNCHES[operator] if namespace == NAMESPACE else 1
        of_host = [tensor for tensor in (*given, *made) if tensor.dim() and not tensor.is_cuda]
        self.waits[name] += bool(of_host) and not _goes_on(function, args, kwargs)
        self.pageable_copies[name] += any(not self._is_pinned(tensor) for tensor in of_host)
        return result

    def _is_pinned(self, tensor: Tensor) -> bool:
        # Fake tensors do not know it.
        storage = tensor.untyped_storage()
        return any(storage._cdata == pinned._cdata for pinned in self._pinned)


def count_launches(num_frames: int, config: AOTLlavaOnevisionConfig, width: int = WIDTH) -> LaunchCount:
    """What `compress_video_features` puts on a GPU.

    Args:
        num_frames: of the video.
        config: AOT's fields and the patch grid.
        width: D, channels of a token; no count depends on it.
    """
    with torch.no_grad(), FakeTensorMode():
        patches = config.patch_grid_size**2
        features = torch.empty(num_frames, patches, width, dtype=torch.bfloat16, device="cuda")
        attention = torch.empty(num_frames, patches, dtype=torch.float32, device="cuda")
        with LaunchCount() as count:
            compress_video_features(features, attention, attention, config, features[:, 0])
    return count


def count_launches_on_qwen_vl(grid_thw: tuple[int, int, int], config: Any, num_deepstack: int) -> LaunchCount:
    """What AOT puts on a GPU for a video of a Qwen-VL model, behind the vision tower and its merger.

    Args:
        grid_thw: frames, and a frame's height and width in patches.
        config: an AOT config of the family.
        num_deepstack: layers of DeepStack; 0 where the model has none.
    """
    width, tower_width = config.text_config.hidden_size, config.vision_config.hidden_size
    num_tokens = config.grid_of(grid_thw).num_pooled

    def encode(model: Any, pixels: Tensor, grid: tuple[int, int, int]) -> qwen_vl_encoding.EncodedFrames:
        frames = grid[0]
        channels = torch.empty(frames, num_tokens, width * (1 + num_deepstack), dtype=torch.bfloat16, device="cuda")
        scores = torch.empty(frames, num_tokens, dtype=torch.float32, device="cuda")
        features = torch.empty(frames, tower_width, dtype=torch.bfloat16, device="cuda")
        return qwen_vl_encoding.EncodedFrames(channels, scores, scores, features)

    with torch.no_grad(), FakeTensorMode(), patch.object(qwen_vl_encoding, "encode_frames", encode):
        pixels = torch.empty(grid_thw[0] * grid_thw[1] * grid_thw[2], 1, dtype=torch.bfloat16, device="cuda")
        with LaunchCount() as count:
            qwen_vl_encoding.encode_video(SimpleNamespace(config=config), pixels, grid_thw, None)
    return count


def main(arguments: list[str] | None = None) -> None:
    """Prints a table."""
    parser = OneLineParser(prog="python -m benchmarks.launches", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--frames",
        type=count,
        nargs="+",
        default=FRAMES,
        metavar="N",
        help=f"frames of a video (default: {' '.join(map(str, FRAMES))})",
    )
    parser.add_argument(
        "--host",
        choices=tuple(HOSTS),
        default="llava",
        help=f"the kind of model (default: llava); a Qwen-VL video has frames of {QWEN_SIDE} x {QWEN_SIDE} patches",
    )
    parser.add_argument("--operations", action="store_true", help="also say which operations these are")
    options = parser.parse_args(arguments)
    if triton is None:
        print("Triton is not installed: these are the plain formulas, without the kernels.", file=sys.stderr)
    print(f"{'frames':>6}  {'kernels':>7}  {'host waits':>10}  {'pageable copies':>15}")
    obstacles = 0
    for num_frames in options.frames:
        launches = HOSTS[options.host](num_frames)
        waits, copies = launches.waits.total(), launches.pageable_copies.total()
        print(f"{num_frames:>6}  {launches.kernels.total():>7}  {waits:>10}  {copies:>15}")
        obstacles += waits + copies
        if options.operations:
            for name, number in launches.kernels.most_common():
                print(f"{'':>8}{number:>7}  {name}" + f", {launches.waits[name]} waits" * bool(launches.waits[name]))
    if obstacles:
        sys.exit(f"The host waits, or copies from pageable memory, {obstacles} times, but never should.")


def _on_qwen_vl(config_class: type, num_frames: int) -> LaunchCount:
    config = config_class()
    num_deepstack = len(getattr(config.vision_config, "deepstack_visual_indexes", ()))
    return count_launches_on_qwen_vl((num_frames, QWEN_SIDE, QWEN_SIDE), config, num_deepstack)


HOSTS = {
    "llava": lambda num_frames: count_launches(num_frames, AOTLlavaOnevisionConfig()),
    "qwen2_vl": partial(_on_qwen_vl, AOTQwen2VLConfig),
    "qwen2_5_vl": partial(_on_qwen_vl, AOTQwen2_5_VLConfig),
    "qwen3_vl": partial(_on_qwen_vl, AOTQwen3VLConfig),
    "qwen3_vl_moe": partial(_on_qwen_vl, AOTQwen3VLMoeConfig),
}


def _changed(function, args: tuple) -> list[Tensor]:
    """The tensors that an operation changes and does not return, as those of the `_foreach` family."""
    written = [value for argument, value in zip(function._schema.arguments, args) if _is_written(argument)]
    return [leaf for leaf in tree_leaves(written) if isinstance(leaf, Tensor)]


def _is_written(argument) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _is_view(function) -> bool:
    aliases = [value.alias_info for value in function._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _goes_on(function, args: tuple, kwargs: dict) -> bool:
    given = {argument.name: value for argument, value in zip(function._schema.arguments, args)} | kwargs
    return bool(given.get("non_blocking"))


if __name__ == "__main__":
    main()
