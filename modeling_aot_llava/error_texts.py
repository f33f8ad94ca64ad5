"""Values as error messages show them: in one line, however long they are."""

import re
from typing import Any

LONGEST = 160


def shorten(text: str, longest: int = LONGEST) -> str:
    """One line of at most `longest` characters: of a longer text its beginning and its end."""
    line = re.sub(r"[\s\x00-\x1f\x7f]+", " ", text) if re.search(r"[\x00-\x1f\x7f]", text) else text
    if len(line) <= longest:
        return line
    end = (longest - 1) // 2
    return f"{line[: longest - 1 - end]}…{line[-end:]}"


def show(value: Any) -> str:
    """A value as Python writes it, in one line."""
    return shorten(repr(value))
