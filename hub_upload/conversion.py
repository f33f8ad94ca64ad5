"""The weights of an original LLaVA-Video checkpoint under transformers' names, which the stock class and vLLM read.

A safetensors file is the length of its header, the header as JSON, and the data; places in the header count from where
the data begins. So only the header is made anew, and the data is streamed behind it: no tensor is read.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .base import Base
from .errors import PushError, in_one_line
from .files import CHUNK, FileOnDisk, FileOnHub, GeneratedFile, as_json, target_in
from .hub import Hub
from .package_code import llava_video_checkpoint
from .safetensors_header import METADATA, BadHeaderError, header_bytes, read_header
from .selection import INDEX, is_weights
from .strict_json import read_object

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
        PushError: if it is no original LLaVA-Video checkpoint, has a name that is not LLaVA-Video's, or two that
            become one.
    """
    if not base.is_original:
        raise PushError(f"--convert is for original LLaVA-Video checkpoints, and {base.location} is none.")
    names = _new_names(base.tensors, base.location)
    return dataclasses.replace(
        base,
        files=tuple(_converted(file, hub) for file in base.files),
        tensors={names[name]: tensor for name, tensor in base.tensors.items()},
    )


def rename_keys(source: Path, target: Path, advance: Callable[[int], object] = lambda _: None) -> None:
    """Copies a safetensors file under new names, in little memory; nothing is written of one that is damaged.

    Raises:
        PushError: if the file is damaged, has a name that is not LLaVA-Video's, or two that become one.
    """
    with open(source, "rb") as old:

        def read(first: int, count: int) -> bytes:
            old.seek(first)
            return old.read(count)

        try:
            header = read_header(read, os.fstat(old.fileno()).st_size)
        except BadHeaderError as error:
            raise PushError(f"{source} {error}.") from error
        names = {METADATA: METADATA, **_new_names(header.tensors, source)}
        old.seek(header.length)
        with open(target, "wb") as new:
            new.write(header_bytes({names[name]: value for name, value in header.values.items()}))
            while chunk := old.read(CHUNK):
                new.write(chunk)
                advance(len(chunk))


def _converted(file: Any, hub: Hub) -> Any:
    if is_weights(file.path):
        return RenamedWeights(file)
    if file.path != INDEX:
        return file
    on_disk = hub.fetch(file) if isinstance(file, FileOnHub) else file
    index = read_object(on_disk.file, str(on_disk.file), "download or save it again.")
    names = _new_names(index["weight_map"], on_disk.file)
    weight_map = {names[name]: shard for name, shard in index["weight_map"].items()}
    return GeneratedFile(INDEX, as_json({**index, "weight_map": weight_map}))


def _new_names(names: Iterable[str], source: Path | str) -> dict[str, str]:
    """The name in the model of each name in the file."""
    new_names = {name: _new_name(name, source) for name in names}
    olds = {new: old for old, new in new_names.items()}
    for old, new in new_names.items():
        if olds[new] != old:
            both = in_one_line(f"{old} and {olds[new]}")
            raise PushError(
                f"{source} has {both}, which are the same weights under transformers' names: save it again."
            )
    return new_names


def _new_name(name: str, source: Path | str) -> str:
    new_name = name
    for pattern, replacement in llava_video_checkpoint().KEY_RENAMINGS.items():
        new_name, count = re.subn(pattern, replacement, name)
        if count:
            break
    if not _NEW_NAMES.fullmatch(new_name) or ".head." in new_name:
        raise PushError(
            f"{source} has weights called {in_one_line(name)}, which LLaVA-Video does not have: use another base."
        )
    return new_name
