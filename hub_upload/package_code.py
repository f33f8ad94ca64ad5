"""The model package as files on disk: it is published, and read, without being imported.

Importing it would import torch, which takes seconds and hundreds of megabytes.
"""

import ast
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "modeling_aot_llava"


@cache
def package_folder() -> Path:
    """Where the package lies."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{PACKAGE} is not installed: install this project (`pip install .`).")
    return Path(spec.submodule_search_locations[0])


@cache
def package_code() -> dict[str, bytes]:
    """The remote code on the Hub, byte for byte: the modules that hold the classes, and all that these import."""
    entries = {*auto_map().AUTO_MAP_OF_CONFIG.values(), *auto_map().AUTO_MAP_OF_PROCESSOR.values()}
    needed, unread = {}, {entry.split(".")[0] for entry in entries}
    while unread:
        module = unread.pop()
        needed[f"{module}.py"] = (package_folder() / f"{module}.py").read_bytes()
        unread |= {sibling for sibling in _siblings(needed[f"{module}.py"]) if f"{sibling}.py" not in needed}
    return dict(sorted(needed.items()))


def _siblings(source: bytes) -> set[str]:
    imports = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom))
    return {node.module for node in imports if node.level == 1}


@cache
def aot_defaults() -> dict[str, Any]:
    """Every AOT field with its default: the annotated fields of the classes that LLaVA's config is made of."""
    return {**_annotated_fields("aot_fields"), **_annotated_fields("configuration_aot_llava")}


def _annotated_fields(module: str) -> dict[str, Any]:
    source = (package_folder() / f"{module}.py").read_text(encoding="utf-8")
    config_class = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    fields = [node for node in config_class.body if isinstance(node, ast.AnnAssign)]
    return {field.target.id: ast.literal_eval(field.value) for field in fields}


def llava_video_checkpoint() -> ModuleType:
    """The module that reads original LLaVA-Video checkpoints."""
    return _module("llava_video_checkpoint")


def auto_map() -> ModuleType:
    """By which entries transformers finds the classes."""
    return _module("auto_map")


def cost_model() -> ModuleType:
    """The paper's cost model."""
    return _module("cost_model")


@cache
def _module(name: str) -> ModuleType:
    """A module that needs no sibling: it alone is loaded, without torch."""
    spec = importlib.util.spec_from_file_location(name, package_folder() / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
