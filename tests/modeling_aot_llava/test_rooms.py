"""Which module may import which: a file named for a family of models may import the others, never the reverse."""

import ast
from pathlib import Path

import pytest

import modeling_aot_llava

FAMILIES = ("llava", "qwen")
MODULES = [path for path in sorted(Path(modeling_aot_llava.__file__).parent.glob("*.py")) if path.stem != "__init__"]


def families_of(module):
    return {family for family in FAMILIES if family in module}


def siblings(path):
    return {
        node.module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level == 1
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_imports_one_of_a_family_that_it_is_not_named_for(path):
    foreign = {name for name in siblings(path) if families_of(name) - families_of(path.stem)}
    assert not foreign


def test_each_family_has_modules_to_look_at():
    assert all(any(families_of(path.stem) == {family} for path in MODULES) for family in FAMILIES)
