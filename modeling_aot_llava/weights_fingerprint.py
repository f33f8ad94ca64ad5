"""A number that tells the weights which make video tokens from all others."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

_WORDS_AT_ONCE = 1 << 22  # so that the products take 32 MiB beside the weights


def fingerprint(model: nn.Module) -> str:
    """Of the vision tower's, the projector's and `image_newline`'s weights: 64 hexadecimal digits.

    One weight that differs in one bit gives another fingerprint; so does another dtype, whose tokens are others. The
    weights stay on their device: integers are the same on all.

    Args:
        model: an `AOTLlavaOnevisionModel`.

    Raises:
        ValueError: if the weights are not there to be read, because accelerate has offloaded or FSDP split them.
    """
    digest = hashlib.sha256()
    for name, weight in _weights(model):
        if weight.is_meta or hasattr(weight, "full_tensor"):
            raise ValueError(
                f"The weights of {name} are offloaded or split among several processes, so it cannot be told whether "
                "an encoded video is of this model: load the vision tower whole on one device."
            )
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)} {_checksum(weight)}\n".encode())
    return digest.hexdigest()


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for part in ("vision_tower", "multi_modal_projector"):
        for name, weight in getattr(model, part).named_parameters():
            yield f"{part}.{name}", weight
    yield "image_newline", model.image_newline


@torch.no_grad()
def _checksum(weight: Tensor) -> int:
    """The sum of the 64-bit words, each times an odd number of its place, modulo 2**64.

    Odd numbers have an inverse there: no change of a single word is lost.
    """
    raw = weight.detach().contiguous().flatten().view(torch.uint8)
    words = nn.functional.pad(raw, (0, -len(raw) % 8)).view(torch.int64)
    total = 0
    for first in range(0, len(words), _WORDS_AT_ONCE):
        part = words[first : first + _WORDS_AT_ONCE]
        places = torch.arange(first, first + len(part), device=part.device)
        # Of neighbouring places the factors have nothing in common: so words that change places change the sum.
        total += int((part * (places * 0x5851F42D4C957F2D ^ places << 17 | 1)).sum())
    return total % 2**64
