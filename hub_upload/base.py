"""The checkpoint that a variant is made of, in a folder or on the Hub: its files, and what its small files say."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

from .errors import PushError, PushUsageError, in_one_line
from .files import File, FileOnDisk, FileOnHub, GeneratedFile, as_json, is_weights
from .hub import Hub
from .package_code import aot_defaults, auto_map, llava_video_checkpoint

MODEL_TYPES = ("llava_onevision", "aot_llava_onevision")

# Made anew for a variant.
_REWRITTEN = ("config.json", "processor_config.json", "README.md")
# What transformers reads beside these. Code is not among them: a variant's code is this project's.
_READ_BY_TRANSFORMERS = (".safetensors", ".json", ".jinja", ".txt", ".model")
_LICENCE = re.compile(r"(?i)(licen[cs]e|notice)([-_.].*)?")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_TOKENIZER_CONFIG = "tokenizer_config.json"
# Where transformers looks for the names of code to load.
_MAY_NAME_CODE = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    _TOKENIZER_CONFIG,
)
_CARD_FIELDS = ("license", "license_name", "license_link", "language")


@dataclass(frozen=True)
class Base:
    """A checkpoint.

    Attributes:
        location: Hub ID or folder, as the user named it.
        revision: the commit that everything is read from; None for a folder.
        files: what a variant takes over: weights, tokenizer, chat template, licence. All are unchanged, but for a
            tokenizer config into which an earlier version of this project wrote settings of AOT: it goes without them.
        left_out: what it does not take over.
        config: `config.json`.
        processor_config: `processor_config.json`; empty where there is none.
        card_fields: licence and language from the model card.
        is_original: whether LLaVA-NeXT wrote it; then both configs are made from its flat one.
    """

    location: str
    revision: str | None
    files: tuple[File, ...]
    left_out: tuple[str, ...]
    config: dict[str, Any]
    processor_config: dict[str, Any]
    card_fields: dict[str, Any]
    is_original: bool = False

    @property
    def is_on_hub(self) -> bool:
        return self.revision is not None

    @property
    def weights(self) -> tuple[File, ...]:
        return tuple(file for file in self.files if is_weights(file.path))


def read_base(location: str, revision: str | None, hub: Hub) -> Base:
    """Reads the base's list of files and its small JSON files; weights stay where they are.

    Raises:
        PushError: if there is no such checkpoint, it is none of LLaVA-OneVision, or it has no safetensors.
    """
    if Path(location).is_dir():
        if revision is not None:
            raise PushUsageError(f"--base-revision {revision} is for a base on the Hub, and {location} is a folder.")
        return _read_base(location, None, _list_folder(Path(location)), lambda file: file.file)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", location) or location.startswith("."):
        raise PushUsageError(
            f"there is no folder {location}: give the folder of a checkpoint, or a Hub ID like owner/name."
        )
    info = hub.call(
        f"Looking at the base {location}", hub.api.model_info, location, revision=revision, files_metadata=True
    )
    listed = {
        sibling.rfilename: FileOnHub.from_sibling(sibling, location, info.sha) for sibling in info.siblings or ()
    }
    return _read_base(location, info.sha, listed, lambda file: hub.fetch(file).file)


def _read_base(location: str, revision: str | None, listed: dict[str, Any], path_of: Callable[[Any], Path]) -> Base:
    if "config.json" not in listed:
        raise PushError(f"{location} has no config.json: give the Hub ID or folder of a LLaVA-OneVision checkpoint.")

    def read_json(name: str) -> dict[str, Any]:
        return _parse_json(path_of(listed[name]), f"{name} of {location}") if name in listed else {}

    config, processor_config = read_json("config.json"), read_json("processor_config.json")
    is_original = llava_video_checkpoint().is_original(config)
    if is_original:
        config, processor_config = _read_original(config, location)
        listed = {name: file for name, file in listed.items() if name != "preprocessor_config.json"}
        template = llava_video_checkpoint().CHAT_TEMPLATE
        listed["chat_template.jinja"] = GeneratedFile("chat_template.jinja", template.encode())
    if config.get("model_type") not in MODEL_TYPES:
        raise PushError(
            f"{location} is a {in_one_line(config.get('model_type'))} checkpoint, but AOT needs LLaVA-OneVision or "
            "LLaVA-Video, such as llava-hf/llava-onevision-qwen2-7b-ov-hf or lmms-lab/LLaVA-Video-7B-Qwen2."
        )
    _check_weights(location, listed, read_json("model.safetensors.index.json"))
    for name in _MAY_NAME_CODE:
        _check_names_no_code(f"{name} of {location}", read_json(name))
    tokenizer_config = read_json(_TOKENIZER_CONFIG)
    settings = {"num_frames", *aot_defaults()} & tokenizer_config.keys()
    if settings:
        rest = {name: value for name, value in tokenizer_config.items() if name not in settings}
        listed = {**listed, _TOKENIZER_CONFIG: GeneratedFile(_TOKENIZER_CONFIG, as_json(rest))}
    taken = [path for path in sorted(listed) if _is_taken_over(path)]
    return Base(
        location=location,
        revision=revision,
        files=tuple(listed[path] for path in taken),
        left_out=tuple(sorted(set(listed) - set(taken) - set(_REWRITTEN) - {".gitattributes"})),
        config=config,
        processor_config=processor_config,
        card_fields=_read_card_fields(path_of(listed["README.md"]), location) if "README.md" in listed else {},
        is_original=is_original,
    )


def _read_original(config: dict[str, Any], location: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and processor config of an original LLaVA-Video checkpoint, which has no processor."""
    reader = llava_video_checkpoint()
    try:
        fields = {"model_type": MODEL_TYPES[0], **reader.config_of_original(config)}
        return fields, reader.processor_config_of_original(config)
    except ValueError as error:
        raise PushError(f"config.json of {location}: {in_one_line(error)}") from error


def _list_folder(folder: Path) -> dict[str, FileOnDisk]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    paths = {path.relative_to(folder).as_posix(): path for path in files}
    # Hidden folders are huggingface_hub's and git's.
    return {name: FileOnDisk.at(name, path) for name, path in paths.items() if not re.search(r"(^|/)\.", name)}


def _is_taken_over(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    if folder == "additional_chat_templates":
        return name.endswith(".jinja")
    is_read = name.endswith(_READ_BY_TRANSFORMERS) and not name.endswith(".bin.index.json")
    return not folder and path not in _REWRITTEN and bool(is_read or _LICENCE.fullmatch(name))


def _check_weights(location: str, listed: Iterable[str], index: dict[str, Any]) -> None:
    top_level = [path for path in listed if "/" not in path]
    if not any(is_weights(path) for path in top_level):
        if any(path.endswith(_PICKLES) for path in top_level):
            raise PushError(
                f"{location} has its weights as pickles alone, which can run code when they are loaded and are not "
                "published. Save it as safetensors (from_pretrained, then save_pretrained; or "
                "https://huggingface.co/spaces/safetensors/convert) and push that."
            )
        raise PushError(f"{location} has no weights: there is no .safetensors file in it.")
    missing = sorted(set(index.get("weight_map", {}).values()) - set(top_level))
    if missing:
        raise PushError(f"{location} is incomplete: its index names {', '.join(missing)}. Download or save it again.")


def _check_names_no_code(what: str, values: dict[str, Any]) -> None:
    """A variant's users trust this project's code, not what a base may have loaded from elsewhere."""
    codes = [values.get("auto_map"), *(part.get("auto_map") for part in values.values() if isinstance(part, dict))]
    for code in codes:
        if code and list(code.values()) != list(auto_map().AUTO_MAP_OF_PROCESSOR.values()):
            named = in_one_line(", ".join(map(str, code.values())))
            raise PushError(f"{what} names code of its own ({named}), which is not published: use a base without it.")


def _parse_json(path: Path, what: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PushError(f"{what} is not JSON ({error}): download or save the base again.") from error
    if not isinstance(values, dict):
        raise PushError(f"{what} is no JSON object: download or save the base again.")
    return values


def _read_card_fields(path: Path, location: str) -> dict[str, Any]:
    try:
        metadata = ModelCard.load(path, ignore_metadata_errors=True).data.to_dict()
    except (ValueError, yaml.YAMLError) as error:
        reason = in_one_line(error)
        raise PushError(f"the metadata in README.md of {location} cannot be read ({reason}): correct it.") from error
    return {name: metadata[name] for name in _CARD_FIELDS if name in metadata}
