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

# The version is what `importlib.metadata` says; all else is the transformers that is installed.
OLD_TRANSFORMERS = """
import importlib.metadata, sys
real_version = importlib.metadata.version
import transformers
importlib.metadata.version = lambda name: "5.16.1" if name == "transformers" else real_version(name)
try:
    exec(sys.argv[1])
except ImportError as error:
    print(error)
"""
LOADS = [
    *(f"transformers.{name}.from_pretrained(sys.argv[2], trust_remote_code=True)"
      for name in ("AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoProcessor")),
    "import modeling_aot_llava",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_random_checkpoint(folder, **SMALL, local_window_size=3, local_attention_layer=2)
    return folder


@pytest.mark.parametrize("load", LOADS)
def test_an_older_transformers_is_named_beside_the_one_that_is_needed(folder, tmp_path, load):
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)}
    ran = subprocess.run(
        [sys.executable, "-c", OLD_TRANSFORMERS, load, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert "transformers>=5.20" in ran.stdout, ran.stdout + ran.stderr[-2000:]
    assert "5.16.1" in ran.stdout


ENTRIES = sorted(path.name for kind in ("configuration", "processing") for path in PACKAGE.glob(f"{kind}_aot_*.py"))


@pytest.mark.parametrize("name", ENTRIES)
def test_older_releases_find_all_files_that_are_needed_to_say_so(name):
    """They copy what the file names itself, and fail with FileNotFoundError where a sibling's sibling is missing."""
    named = set(get_relative_imports(PACKAGE / name))
    needed = {Path(file).stem for file in get_relative_import_files(PACKAGE / name)}
    assert needed <= named
