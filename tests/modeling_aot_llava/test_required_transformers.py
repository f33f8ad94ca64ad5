"""On a transformers that is too old the code says so, before anything else goes wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from random_checkpoint import save_random_checkpoint
from small_model import SMALL
from transformers.dynamic_module_utils import get_relative_import_files, get_relative_imports

PACKAGE = Path(__file__).parents[2] / "modeling_aot_llava"

# The version is what `importlib.metadata` says; all else is the transformers that is installed. It is imported once;
# each load has a process of its own, as if nothing had been loaded before, and prints a line.
OLD_TRANSFORMERS = """
import importlib.metadata, os, sys
real_version = importlib.metadata.version
import transformers
importlib.metadata.version = lambda name: "5.16.1" if name == "transformers" else real_version(name)
folder, *loads = sys.argv[1:]
for load in loads:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    try:
        exec(load)
        print("loaded", flush=True)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}".replace(chr(10), " "), flush=True)
    os._exit(0)
"""
LOADS = [
    *(f"transformers.{name}.from_pretrained(folder, trust_remote_code=True)"
      for name in ("AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoProcessor")),
    "import modeling_aot_llava",
]  # fmt: skip


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What is said to each load."""
    folder, modules = tmp_path_factory.mktemp("saved"), tmp_path_factory.mktemp("modules")
    save_random_checkpoint(folder, **SMALL, local_window_size=3, local_attention_layer=2)
    ran = subprocess.run(
        [sys.executable, "-c", OLD_TRANSFORMERS, str(folder), *LOADS],
        env=os.environ | {"HF_MODULES_CACHE": str(modules), "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    lines = ran.stdout.splitlines()
    assert len(lines) == len(LOADS), ran.stdout + ran.stderr[-2000:]
    return dict(zip(LOADS, lines))


@pytest.mark.parametrize("load", LOADS)
def test_an_older_transformers_is_named_beside_the_one_that_is_needed(load, said):
    assert said[load].startswith("ImportError: transformers>=5.20"), said[load]
    assert "5.16.1" in said[load]


ENTRIES = sorted(path.name for kind in ("configuration", "processing") for path in PACKAGE.glob(f"{kind}_aot_*.py"))


@pytest.mark.parametrize("name", ENTRIES)
def test_older_releases_find_all_files_that_are_needed_to_say_so(name):
    """Before 5.10 they copy what the file names itself, and fail with FileNotFoundError where more is needed."""
    named = set(get_relative_imports(PACKAGE / name))
    needed = {Path(file).stem for file in get_relative_import_files(PACKAGE / name)}
    assert needed <= named
