"""What passes for a number in a setting: Python's own and NumPy's, but no bool."""

from numbers import Integral, Real
from typing import Any


def is_number(value: Any) -> bool:
    """Whether this is a real number."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_integer(value: Any) -> bool:
    """Whether this is an integer."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def plain(value: Any) -> Any:
    """A number as Python's int or float, which can be written as JSON; anything else as it is."""
    if is_integer(value):
        return int(value)
    return float(value) if is_number(value) else value
