"""Runs when a video file is opened: what its bytes say of it that FFmpeg does not.

Whether it is no video at all but a page or a text, whether it claims what it cannot hold, and where it should end.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any

_LOOKED_AT = 4096  # bytes
_WEB_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*|<\?xml[^>]*>\s*)*<(?:!doctype html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)
# Boxes of MP4 and QuickTime files (ISO/IEC 14496-12) that hold others.
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
# Where the number of samples stands behind the header of a box.
_NUMBERS = {b"stsz": 8, b"stz2": 8, b"trun": 4}
_MOST_BOXES = 2**20


def is_web_page(beginning: bytes) -> bool:
    """Whether a file that begins so is HTML."""
    return _WEB_PAGE.match(beginning[:_LOOKED_AT]) is not None


def is_text(beginning: bytes) -> bool:
    """Whether a file that begins so is text: UTF-8 without control characters."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(beginning[:_LOOKED_AT])  # it may end amid a letter
    except UnicodeDecodeError:
        return False
    return bool(text) and all(letter.isprintable() or letter in "\t\n\r\f\ufeff" for letter in text)


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


def stated_end(content: Any, size: int, container_format: str) -> int:
    """Where a file of `size` bytes should end by what it says itself, in bytes; 0 where it does not say.

    Args:
        container_format: FFmpeg's name.
    """
    if "matroska" in container_format:
        return _end_of_matroska(content)
    return _end_of_boxes(content, size) if "mp4" in container_format else 0


def _end_of_boxes(content: Any, size: int) -> int:
    """Where the last of the boxes on the top level ends."""
    last = 0
    for *_, end in _boxes(content, 0, size):
        last = end
    return last


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


def _end_of_matroska(content: Any) -> int:
    end = 0
    for _ in ("EBML header", "Segment"):  # all there is, each with an id, its size and content
        content.seek(end + 4)
        size_field = content.read(8)
        # It takes as many bytes as there are zeros before its first one, and one more.
        width = 9 - size_field[0].bit_length()
        size_bits = 7 * width
        element_size = int.from_bytes(size_field[:width], "big") % (1 << size_bits)
        if element_size == (1 << size_bits) - 1:  # a live recording, whose length was not known
            return end
        end += 4 + width + element_size
    return end
