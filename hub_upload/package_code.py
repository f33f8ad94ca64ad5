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

# The entries `auto_map` by which transformers finds the classes.
CODE_OF_CONFIG = {
    "AutoConfig": "configuration_aot_llava.AOTLlavaOnevisionConfig",
    "AutoModel": "modeling_aot_llava.AOTLlavaOnevisionModel",
    "AutoModelForImageTextToText": "modeling_aot_llava.AOTLlavaOnevisionForConditionalGeneration",
    "AutoModelForMultimodalLM": "modeling_aot_llava.AOTLlavaOnevisionForConditionalGeneration",
    "AutoModelForPreTraining": "modeling_aot_llava.AOTLlavaOnevisionForConditionalGeneration",
}
CODE_OF_PROCESSOR = {"AutoProcessor": "processing_aot_llava.AOTLlavaOnevisionProcessor"}


@cache
def package_folder() -> Path:
    """Where the package lies."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{PACKAGE} is not installed: install this project (`pip install .`).")
    return Path(spec.submodule_search_locations[0])


@cache
def package_code() -> dict[str, bytes]:
    """The modules that the model needs at run time, byte for byte: the remote code on the Hub."""
    modules = sorted(package_folder().glob("*.py"))
    return {module.name: module.read_bytes() for module in modules if module.name != "__init__.py"}


@cache
def aot_defaults() -> dict[str, Any]:
    """Every AOT field with its default: the annotated fields of the config class."""
    source = (package_folder() / "configuration_aot_llava.py").read_text(encoding="utf-8")
    config_class = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    fields = [node for node in config_class.body if isinstance(node, ast.AnnAssign)]
    return {field.target.id: ast.literal_eval(field.value) for field in fields}


@cache
def llava_video_checkpoint() -> ModuleType:
    """The module that reads original LLaVA-Video checkpoints: it alone is loaded, and needs no torch."""
    name = "llava_video_checkpoint"
    spec = importlib.util.spec_from_file_location(name, package_folder() / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
