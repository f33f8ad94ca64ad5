"""What the answers depend on, as short hashes: answers of another state of things are never taken for these."""

import hashlib
from pathlib import Path

import torch
import transformers

import aot_llava_baselines
import modeling_aot_llava
from mini_checkpoint import questions

from .settings import BASELINES, Setting

# The modules of this package through which answers come about.
ANSWERING = ("answering", "clip_tokens", "references", "survey")


def made_with(checkpoint: Path, device: torch.device) -> dict[str, str]:
    """The versions of checkpoint, questions, code and libraries, and the kind of device."""
    here = Path(__file__).parent
    return {
        "checkpoint": content_version(*_names_and_files(checkpoint)),
        "questions": content_version(*_code_of(questions)),
        "code": content_version(*_code_of(modeling_aot_llava), *(here / f"{name}.py" for name in ANSWERING)),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": device.type,
    }


def definition_of(setting: Setting) -> str:
    """All that a setting's replies depend on beside `made_with`: of another method, its code too.

    So a changed method is asked anew, and the others' replies stay.
    """
    if setting.reduction not in BASELINES:
        return setting.definition
    return f"{setting.definition} {content_version(*_code_of(aot_llava_baselines))}"


def content_version(*parts: str | Path) -> str:
    """A short hash of texts and files."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
    return digest.hexdigest()[:12]


def _code_of(package) -> list[Path]:
    return sorted(Path(package.__file__).parent.glob("*.py"))


def _names_and_files(folder: Path) -> list[str | Path]:
    # No answer depends on the model card, which may be worded anew.
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name != "README.md"]
    return [part for file in files for part in (file.name, file)]
