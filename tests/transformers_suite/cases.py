"""Which classes the tests of transformers' mixins run on, and what these see."""

from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True, eq=False)
class Family:
    """A host: stock classes, ours in the same order (without and with a language-model head), and what builds their
    small configs and inputs."""

    model_type: str
    stock: tuple[type, ...]
    ours: tuple[type, ...]
    tester: type


@dataclass(frozen=True, eq=False)
class Case:
    """Classes under test, and what they see: `"image"`, or a `"video"` with a `"full"` or an `"exact"` prompt.

    `aot_fields` are None for the yardstick, the stock classes.
    """

    name: str
    family: Family
    sees: str
    prompt: str = "full"
    aot_fields: dict[str, Any] | None = None
    only_with_head: bool = False

    @property
    def classes(self) -> tuple[type, ...]:
        both = self.family.stock if self.aot_fields is None else self.family.ours
        return both[1:] if self.only_with_head else both

    @property
    def config_class(self) -> type:
        return self.classes[0].config_class


def stock_case(case: Case) -> Case:
    """The yardstick of a case: the stock classes in the place of ours. It is the same one for all that share it."""
    return _stock_case(case.family, case.sees, case.only_with_head)


@cache
def _stock_case(family: Family, sees: str, only_with_head: bool) -> Case:
    return Case("stock", family, sees, only_with_head=only_with_head)
