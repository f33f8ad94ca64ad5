"""The weights of an original LLaVA-Video checkpoint under transformers' names, which the stock class and vLLM read.

A safetensors file is the length of its header, the header as JSON, and the data; places in the header count from where
the data begins. So only the header is made anew, and the data is streamed behind it: no tensor is read.
"""

import dataclasses
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .base import Base
from .errors import PushError
from .files import CHUNK, FileOnDisk, FileOnHub, GeneratedFile, as_json, is_weights, target_in
from .hub import Hub
from .package_code import llava_video_checkpoint

INDEX = "model.safetensors.index.json"
LENGTH = 8
# safetensors' own limit.
LONGEST_HEADER = 100_000_000
_NEW_NAMES = re.compile(
    r"lm_head\.weight|model\.(image_newline|(vision_tower|multi_modal_projector|language_model)\..+)"
)


@dataclass(frozen=True)
class RenamedWeights:
    """A file with weights whose names are translated as it is written."""

    source: FileOnDisk | FileOnHub

    @property
    def path(self) -> str:
        return self.source.path

    @property
    def size(self) -> int:
        """That of the source: the header changes by some kilobytes."""
        return self.source.size

    def fetched(self, hub: Hub) -> "RenamedWeights":
        """The same with its source on disk."""
        return RenamedWeights(hub.fetch(self.source)) if isinstance(self.source, FileOnHub) else self

    def place_in(self, folder: Path, advance: Callable[[int], object]) -> None:
        """Writes the file with the new names; `advance` is told how many bytes of data have just been copied."""
        rename_keys(self.source.file, target_in(folder, self.path), advance)


def converted(base: Base, hub: Hub) -> Base:
    """The base with its weights and their index under transformers' names.

    Raises:
        PushError: if it is no original LLaVA-Video checkpoint, or has a name that is not LLaVA-Video's.
    """
    if not base.is_original:
        raise PushError(f"--convert is for original LLaVA-Video checkpoints, and {base.location} is none.")
    return dataclasses.replace(base, files=tuple(_converted(file, hub) for file in base.files))


def rename_keys(source: Path, target: Path, advance: Callable[[int], object] = lambda _: None) -> None:
    """Copies a safetensors file under new names, in little memory.

    Raises:
        PushError: if the file is damaged, or has a name that is not LLaVA-Video's.
    """
    with open(source, "rb") as old, open(target, "wb") as new:
        length = int.from_bytes(old.read(LENGTH), "little")
        if not 2 <= length <= min(LONGEST_HEADER, os.fstat(old.fileno()).st_size - LENGTH):
            raise PushError(f"{source} is no safetensors file, or it is cut short: download it again.")
        try:
            header = json.loads(old.read(length))
        except ValueError as error:
            raise PushError(f"{source} has a damaged header ({error}): download it again.") from error
        renamed = {name if name == "__metadata__" else _new_name(name, source): header[name] for name in header}
        content = json.dumps(renamed, separators=(",", ":")).encode()
        content += b" " * (-len(content) % 8)
        new.write(len(content).to_bytes(LENGTH, "little") + content)
        while chunk := old.read(CHUNK):
            new.write(chunk)
            advance(len(chunk))


def _converted(file: Any, hub: Hub) -> Any:
    if is_weights(file.path):
        return RenamedWeights(file)
    if file.path != INDEX:
        return file
    on_disk = hub.fetch(file) if isinstance(file, FileOnHub) else file
    index = json.loads(on_disk.file.read_text(encoding="utf-8"))
    weight_map = {_new_name(name, on_disk.file): shard for name, shard in index["weight_map"].items()}
    return GeneratedFile(INDEX, as_json({**index, "weight_map": weight_map}))


def _new_name(name: str, source: Path) -> str:
    new_name = name
    for pattern, replacement in llava_video_checkpoint().KEY_RENAMINGS.items():
        new_name, count = re.subn(pattern, replacement, name)
        if count:
            break
    if not _NEW_NAMES.fullmatch(new_name) or ".head." in new_name:
        raise PushError(f"{source} has weights called {name}, which LLaVA-Video does not have: use another base.")
    return new_name
