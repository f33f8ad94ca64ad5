"""A number that tells the weights which make video tokens from all others."""

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

_WORDS_AT_ONCE = 1 << 22  # so that the products take 32 MiB beside the weights


# Of LLaVA's models.
PARTS = ("vision_tower", "multi_modal_projector", "image_newline")


def fingerprint(model: nn.Module, parts: Sequence[str] = PARTS) -> str:
    """Of the weights of some parts of a model: 64 hexadecimal digits.

    One weight that differs in one bit gives another fingerprint; so does another dtype, whose tokens are others; being
    compiled does not. The weights stay on their device: integers are the same on all.

    Args:
        model: without the language-model head.
        parts: its modules and parameters that make video tokens.

    Raises:
        ValueError: if the weights are not there to be read, because accelerate has offloaded or FSDP split them.
    """
    digest = hashlib.sha256()
    for name, weight in _weights(model, parts):
        if weight.is_meta or hasattr(weight, "full_tensor"):
            raise ValueError(
                f"The weights of {name} are offloaded or split among several processes, so it cannot be told whether "
                "an encoded video is of this model: load the vision tower whole on one device."
            )
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)} {_checksum(weight)}\n".encode())
    return digest.hexdigest()


def _weights(model: nn.Module, parts: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    for name in parts:
        part = getattr(model, name)
        if isinstance(part, Tensor):
            yield name, part
            continue
        for inner, weight in part.named_parameters():
            yield f"{name}.{inner}".replace("_orig_mod.", ""), weight  # compiled modules have that in their names


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
