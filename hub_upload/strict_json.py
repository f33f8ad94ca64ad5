"""JSON of strangers: an object within bounds, or one sentence that says what is wrong with it."""

import json
import re
from pathlib import Path
from typing import Any

from .errors import PushError, in_one_line

LARGEST = 64 * 1024 * 1024
DEEPEST = 100
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class BadJsonError(ValueError):
    """The message says what is wrong, without the file's name."""


def read_object(file: Path, what: str, remedy: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        file: where it lies.
        what: what messages call it.
        remedy: what helps, as the end of a sentence.

    Raises:
        PushError: if it is none; in one sentence.
    """
    try:
        with open(file, "rb") as opened:
            content = opened.read(LARGEST + 1)
        return parse_object(content)
    except BadJsonError as error:
        raise PushError(f"{what} {error}: {remedy}") from error
    except OSError as error:
        raise PushError(f"{what} cannot be read ({error.strerror}): {remedy}") from error


def parse_object(content: bytes) -> dict[str, Any]:
    """Parses a JSON object as every JSON parser reads it.

    So no name may stand twice in an object, no number may be infinite or NaN, and nothing may stand before it.

    Raises:
        BadJsonError: for anything else.
    """
    if len(content) > LARGEST:
        raise BadJsonError(f"has more than {LARGEST >> 20} MiB, which is too much for JSON that describes a model")
    if content.startswith(b"\xef\xbb\xbf"):
        raise BadJsonError("begins with a byte order mark, which JSON does not allow")
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_without_repetition,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
        depth = _depth(value)
    except BadJsonError:
        raise
    except RecursionError:
        raise BadJsonError("is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise BadJsonError(f"is not JSON (byte {error.start} is no UTF-8)") from None
    except json.JSONDecodeError as error:
        raise BadJsonError(f"is not JSON ({in_one_line(error)})") from None
    except ValueError:
        # The limit of Python's int: some thousand digits.
        raise BadJsonError("holds a number of thousands of digits") from None
    if depth > DEEPEST:
        raise BadJsonError(f"is nested more than {DEEPEST} levels deep")
    if not isinstance(value, dict):
        raise BadJsonError(f"holds {_kind(value)}, but it must be an object, {{...}}")
    if _SURROGATE.search(content):
        _check_characters(value)
    return value


def _check_characters(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadJsonError("holds half a character (a lone surrogate), which cannot be written again") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadJsonError(f"has {in_one_line(repr(twice))} twice in one object, so that it can be read in two ways")
    return values


def _refuse_constant(name: str) -> None:
    raise BadJsonError(f"holds {name}, which is no number in JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise BadJsonError(f"holds {in_one_line(digits)}, a number beyond what programs can read")
    return number


def _depth(value: Any) -> int:
    """Without recursion."""
    depth, level = 0, [value]
    while level:
        depth += 1
        if depth > DEEPEST:
            break
        containers = [item for item in level if isinstance(item, (dict, list))]
        level = [part for item in containers for part in (item.values() if isinstance(item, dict) else item)]
    return depth


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number"}
    return "nothing (null)" if value is None else kinds[type(value)]
