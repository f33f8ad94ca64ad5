"""What a file is that is no video, for messages: its first bytes tell."""

from __future__ import annotations

import codecs
import re

_LOOKED_AT = 4096  # bytes
_WEB_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*|<\?xml[^>]*>\s*)*<(?:!doctype html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)


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
