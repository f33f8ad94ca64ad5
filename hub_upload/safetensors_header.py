"""The header of a safetensors file, checked against the file's size without reading the data.

A file is the header's length in 8 bytes, the header as JSON, and the data; the header tells type, shape and place of
each tensor (https://huggingface.co/docs/safetensors). What the safetensors library refuses is refused here, too.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .strict_json import BadJsonError, parse_object

LENGTH = 8
# safetensors' own limit.
LONGEST_HEADER = 100_000_000
METADATA = "__metadata__"
# Bytes of an element. Types of less than a byte and complex numbers are no weights of these models.
DTYPES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("F64", "I64", "U64"), 8),
}
_LFS_POINTER = b"version https://git-lfs"


class BadHeaderError(ValueError):
    """The message says what is wrong, without the file's name."""


@dataclass(frozen=True)
class Tensor:
    """What a header tells of a tensor."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """A sound header.

    Attributes:
        tensors: by name, in the file's order.
        values: the whole header as it was parsed.
        length: bytes in front of the data.
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any]
    length: int


def read_header(read: Callable[[int, int], bytes], size: int) -> Header:
    """Reads and checks the header.

    Args:
        read: returns the bytes from a first one on, `read(first, count)`.
        size: the file's.

    Raises:
        BadHeaderError: if it is no safetensors file, cut short, or says what cannot be.
    """
    start = read(0, min(size, LENGTH))
    length = int.from_bytes(start, "little")
    if _LFS_POINTER.startswith(start) and start:
        raise BadHeaderError("is a Git LFS pointer in place of the file: fetch it with `git lfs pull`")
    if len(start) < LENGTH or not 2 <= length <= LONGEST_HEADER:
        raise BadHeaderError("is no safetensors file: it begins with no length of a header; download it again")
    if LENGTH + length > size:
        raise BadHeaderError("is no safetensors file, or it is cut short in its header: download it again")
    content = read(LENGTH, length)
    if not content.startswith(b"{"):
        raise BadHeaderError("is no safetensors file: its header is no JSON object; download it again")
    try:
        values = parse_object(content)
    except BadJsonError as error:
        raise BadHeaderError(f"has a damaged header, which {error}: download it again") from None
    tensors = _check_tensors(values, size - LENGTH - length)
    return Header(tensors, values, LENGTH + length)


def header_bytes(values: dict[str, Any]) -> bytes:
    """Length and header as they stand in a file, with the data aligned to 8 bytes."""
    content = json.dumps(values, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(LENGTH, "little") + content


def _check_tensors(values: dict[str, Any], data_size: int) -> dict[str, Tensor]:
    metadata = values.get(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadHeaderError(f"has a damaged header: {METADATA} holds something else than texts; download it again")
    places, tensors = [], {}
    for name, value in values.items():
        if name == METADATA:
            continue
        tensors[name], begin, end = _check_tensor(name, value)
        places.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(places):
        if begin != position:
            what = "overlaps another" if begin < position else "leaves a gap before it"
            raise BadHeaderError(f"has a damaged header: the place of {name!r} {what}; save it again")
        position = end
    if position != data_size:
        what = "cut short" if position > data_size else "longer than it says"
        raise BadHeaderError(
            f"is {what}: its header tells of {position:,} bytes of data, and it has {data_size:,}; download it again"
        )
    return tensors


def _check_tensor(name: str, value: Any) -> tuple[Tensor, int, int]:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise BadHeaderError(
            f"has a damaged header: {name!r} is not told by dtype, shape and place; download it again"
        )
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise BadHeaderError(f"has {name!r} of type {dtype!r}, which is none of {', '.join(DTYPES)}")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise BadHeaderError(f"has a damaged header: shape or place of {name!r} are no counts; download it again")
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPES[dtype]:
        raise BadHeaderError(
            f"has a damaged header: {name!r} has {end - begin:,} bytes, which is not what {dtype} of shape "
            f"{tuple(shape)} takes; download it again"
        )
    return Tensor(dtype, tuple(shape)), begin, end


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 for value in values
    )
