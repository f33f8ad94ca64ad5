"""What an MP4 or QuickTime file says of itself, by the sizes and numbers in its boxes (ISO/IEC 14496-12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
# Where the number of samples stands behind the header of a box.
_NUMBERS = {b"stsz": 8, b"stz2": 8, b"trun": 4}
_MOST_BOXES = 2**20


def stated_end(content: Any, size: int) -> int:
    """Where the last of the boxes on the top level ends, in bytes; `size` is the file's."""
    last = 0
    for *_, end in _boxes(content, 0, size):
        last = end
    return last


def claims_too_much(content: Any, size: int) -> bool:
    """Whether the boxes name more samples than the file has bytes, or are so many that nobody meant them.

    FFmpeg makes room for all samples that are named: for a file of a few bytes gigabytes.
    """
    samples = boxes = 0
    ranges = [(0, size)]
    while ranges:
        for kind, payload, end in _boxes(content, *ranges.pop()):
            boxes += 1
            if kind in _CONTAINERS:
                ranges.append((payload, min(end, size)))
            elif kind in _NUMBERS:
                content.seek(payload + _NUMBERS[kind])
                samples += int.from_bytes(content.read(4), "big")
            if samples > size or boxes > _MOST_BOXES:
                return True
    return False


def _boxes(content: Any, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start of the payload, and end of each box, of which each begins with its size."""
    while start + 8 <= stop:
        content.seek(start)
        header = content.read(16)
        size, payload = int.from_bytes(header[:4], "big"), start + 8
        if size == 1:  # it does not fit into 32 bits
            size, payload = int.from_bytes(header[8:], "big"), start + 16
        if size < 8:  # it goes to the end of the file, or is none
            return
        yield header[4:8], payload, start + size
        start += size
