"""The checkpoint that a variant is made of, in a folder or on the Hub: its files, and what its small files say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .base_fields import check_card_size, check_code, check_config, read_card_fields
from .errors import PushError, PushUsageError, in_one_line
from .files import File, FileOnDisk, FileOnHub, GeneratedFile, as_json
from .folder import list_folder
from .hub import Hub
from .names import repo_id_problem, revision_problem, shown
from .package_code import aot_defaults, llava_video_checkpoint
from .private_fields import check_holds_no_secret, without_private_fields
from .safetensors_header import Tensor
from .selection import (
    CONFIGS,
    INDEX,
    OBJECTS,
    REWRITTEN,
    TOKENIZER_CONFIG,
    VOCABULARIES,
    is_weights,
    selected,
    weight_files,
)
from .strict_json import LARGEST, read_object
from .weights import check_index, read_headers, tensors_of

MODEL_TYPES = ("llava_onevision", "aot_llava_onevision")
# Of base models that AOT runs on, and nobody has measured it.
_QWEN_VL = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
NOT_MEASURED = (*_QWEN_VL, *(f"aot_{name}" for name in _QWEN_VL))

_SAVE_AGAIN = "download or save the base again."


@dataclass(frozen=True)
class Base:
    """A checkpoint.

    Attributes:
        location: Hub ID or folder, as the user named it.
        revision: the commit that everything is read from; None for a folder.
        files: what a variant takes over: weights, tokenizer, chat template, licence. All are unchanged, but for small
            configs with fields that are left out: paths and credentials of a machine, and the settings of AOT that an
            earlier version of this project wrote into the tokenizer config.
        left_out: what it does not take over.
        config: `config.json`.
        processor_config: `processor_config.json`; empty where there is none.
        card_fields: licence and language from the model card.
        is_original: whether LLaVA-NeXT wrote it; then both configs are made from its flat one.
        private_fields: names of the fields that are left out because they are nobody's business, by file.
        tensors: type and shape of each of its weights, by name, from the headers.
        originals: its own versions, by path, of the files that are made anew.
    """

    location: str
    revision: str | None
    files: tuple[File, ...]
    left_out: tuple[str, ...]
    config: dict[str, Any]
    processor_config: dict[str, Any]
    card_fields: dict[str, Any]
    is_original: bool = False
    private_fields: dict[str, list[str]] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    originals: Mapping[str, File] = field(default_factory=dict)

    @property
    def is_on_hub(self) -> bool:
        return self.revision is not None

    @property
    def weights(self) -> tuple[File, ...]:
        return tuple(file for file in self.files if is_weights(file.path))

    @property
    def is_quantised(self) -> bool:
        """Whether names and shapes of its weights are a quantiser's, which only that knows."""
        text_config = self.config.get("text_config") or {}
        return any(fields.get("quantization_config") is not None for fields in (self.config, text_config))


def check_base_names(location: str, revision: str | None) -> None:
    """Refuses what can be no base, before anything is asked of the Hub.

    Raises:
        PushError: if it is no folder and cannot be a Hub ID either, or the revision cannot be one.
    """
    if Path(location).is_dir():
        if revision is not None:
            raise PushUsageError(
                f"--base-revision {shown(revision)} is for a base on the Hub, and {location} is a folder."
            )
        return
    problem = repo_id_problem(location)
    if problem:
        raise PushUsageError(
            f"there is no folder {shown(location)}: give the folder of a checkpoint, or a Hub ID like owner/name "
            f"({problem})."
        )
    problem = revision_problem(revision) if revision is not None else None
    if problem:
        raise PushUsageError(f"--base-revision {shown(revision)} can be no branch, tag or commit: {problem}.")


def read_base(location: str, revision: str | None, hub: Hub) -> Base:
    """Reads the base's list of files, its small JSON files and the headers of its weights.

    Raises:
        PushError: if there is no such checkpoint, it is none of LLaVA-OneVision, its weights are damaged or missing,
            or a file that is to be published is not what it should be.
    """
    check_base_names(location, revision)
    if Path(location).is_dir():
        # Not every folder is a checkpoint: of one with all of a disk nothing is listed.
        is_checkpoint = Path(location, "config.json").exists()
        return _Reader(location, None, list_folder(Path(location)) if is_checkpoint else {}, hub).read()
    info = hub.call(
        f"Looking at the base {location}", hub.api.model_info, location, revision=revision, files_metadata=True
    )
    listed = {
        sibling.rfilename: FileOnHub.from_sibling(sibling, location, info.sha) for sibling in info.siblings or ()
    }
    return _Reader(location, info.sha, listed, hub).read()


class _Reader:
    """Reads one checkpoint; `listed` has all of its files by path."""

    def __init__(self, location: str, revision: str | None, listed: Mapping[str, FileOnDisk | FileOnHub], hub: Hub):
        self._location = location
        self._revision = revision
        self._listed = listed
        self._hub = hub
        self._objects: dict[str, dict[str, Any]] = {}

    def read(self) -> Base:
        if "config.json" not in self._listed:
            raise PushError(
                f"{self._location} has no config.json: give the Hub ID or folder of a LLaVA-OneVision checkpoint."
            )
        config, processor_config = self._object("config.json"), self._object("processor_config.json")
        private_fields: dict[str, list[str]] = {}
        config, private_fields["config.json"] = without_private_fields(config)
        processor_config, private_fields["processor_config.json"] = without_private_fields(processor_config)
        is_original = llava_video_checkpoint().is_original(config)
        if is_original:
            config, processor_config = self._read_original(config)
        if config.get("model_type") in NOT_MEASURED:
            raise PushError(
                f"{self._location} is a {config['model_type']} checkpoint, on which AOT is experimental and its "
                "accuracy not known, so it is not published from here: keep the folder that `save_pretrained` writes, "
                "which loads with trust_remote_code (docs/qwen-vl.md)."
            )
        if config.get("model_type") not in MODEL_TYPES:
            raise PushError(
                f"{self._location} is a {in_one_line(config.get('model_type'))} checkpoint, but AOT needs "
                "LLaVA-OneVision or LLaVA-Video, such as llava-hf/llava-onevision-qwen2-7b-ov-hf or "
                "lmms-lab/LLaVA-Video-7B-Qwen2."
            )
        check_config(config, f"config.json of {self._location}")
        check_code(processor_config, f"processor_config.json of {self._location}")
        index, tokenizer_config = self._object(INDEX), self._object(TOKENIZER_CONFIG)
        weights = weight_files(self._location, self._listed.keys(), index)
        headers = read_headers([self._listed[path] for path in weights], self._location, self._hub)
        if INDEX in self._listed and weights != ["model.safetensors"]:
            check_index(index, headers, self._location)
        taken = selected(self._listed.keys(), index, tokenizer_config)
        files = {path: self._taken_over(path, private_fields) for path in taken}
        if is_original:
            files.pop("preprocessor_config.json", None)
            template = llava_video_checkpoint().CHAT_TEMPLATE
            files["chat_template.jinja"] = GeneratedFile("chat_template.jinja", template.encode())
        return Base(
            location=self._location,
            revision=self._revision,
            files=tuple(files[path] for path in sorted(files)),
            left_out=tuple(sorted(set(self._listed) - set(files) - set(REWRITTEN) - {".gitattributes"})),
            config=config,
            processor_config=processor_config,
            card_fields=self._card_fields(),
            is_original=is_original,
            private_fields={path: names for path, names in private_fields.items() if names},
            tensors=tensors_of(headers),
            originals={path: self._listed[path] for path in (*REWRITTEN, *CONFIGS) if path in self._listed},
        )

    def _path(self, path: str) -> Path:
        file = self._listed[path]
        return (self._hub.fetch(file) if isinstance(file, FileOnHub) else file).file

    def _object(self, path: str) -> dict[str, Any]:
        if path not in self._listed:
            return {}
        if path not in self._objects:
            what = f"{path} of {self._location}"
            if self._listed[path].size > LARGEST:
                size = f"{self._listed[path].size:,} bytes"
                raise PushError(f"{what} has {size}, too many for such a file: {_SAVE_AGAIN}")
            file = self._path(path)
            self._objects[path] = read_object(file, what, _SAVE_AGAIN)
            check_holds_no_secret(file.read_bytes(), what)
        return self._objects[path]

    def _taken_over(self, path: str, private_fields: dict[str, list[str]]) -> File:
        file, what = self._listed[path], f"{path} of {self._location}"
        if path in OBJECTS or (path in VOCABULARIES and isinstance(file, FileOnDisk)):
            values = self._object(path)
            if path in CONFIGS:
                check_code(values, what)
                kept, left_out = without_private_fields(values)
                settings = {"num_frames", *aot_defaults()} if path == TOKENIZER_CONFIG else set()
                kept = {name: value for name, value in kept.items() if name not in settings}
                private_fields[path] = left_out
                return file if kept == values else GeneratedFile(path, as_json(kept))
        elif isinstance(file, FileOnDisk) and not is_weights(path):
            check_holds_no_secret(file.read(LARGEST), what)
        return file

    def _read_original(self, config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Config and processor config of an original LLaVA-Video checkpoint, which has no processor."""
        reader = llava_video_checkpoint()
        try:
            fields = {"model_type": MODEL_TYPES[0], **reader.config_of_original(config)}
            return fields, reader.processor_config_of_original(config)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise PushError(f"config.json of {self._location}: {in_one_line(error)}") from error

    def _card_fields(self) -> dict[str, Any]:
        if "README.md" not in self._listed:
            return {}
        what = f"README.md of {self._location}"
        check_card_size(self._listed["README.md"].size, what)
        return read_card_fields(self._path("README.md"), what)
