"""Which files of a checkpoint are published: by name those that transformers can ask for, and nothing else."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from .errors import PushError, in_one_line

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATES = "additional_chat_templates"

# Made anew for a variant.
REWRITTEN = ("config.json", "processor_config.json", "README.md")
# Small files of fields; they are parsed before they are published.
CONFIGS = (
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    TOKENIZER_CONFIG,
)
_OTHER_JSON = ("chat_template.json", "special_tokens_map.json", "added_tokens.json")
# Large, and JSON as well: parsed where they lie on this machine.
VOCABULARIES = ("tokenizer.json", "vocab.json")
OBJECTS = (*CONFIGS, *_OTHER_JSON)
_OTHERS = (
    "chat_template.jinja",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
)
_BY_NAME = frozenset((*OBJECTS, *VOCABULARIES, *_OTHERS))
# Like tokenizer.4.0.json, which a tokenizer config may name for newer transformers.
_VERSIONED_TOKENIZER = re.compile(r"tokenizer\.\d+(\.\d+)*\.json")
_TEMPLATE = re.compile(rf"{TEMPLATES}/[\w-]+\.jinja")
_LICENCE = re.compile(
    r"(?i)(licen[cs]es?|notice|copying|use[-_]policy)"
    r"([-_. ](apache|mit|bsd|[al]?gpl|mpl|cc|by|nc|sa|isc|openrail|qwen|tongyi|llama|gemma|siglip|model|code|agreement"
    r"|community|research|third[-_]party|v?\d+))*(\.(txt|md|rst))?"
)
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


def is_weights(path: str) -> bool:
    """Whether the file holds weights in the one format that is published."""
    return path.endswith(".safetensors")


def is_adapter(path: str) -> bool:
    """Whether transformers would take the file for an adapter, and so load something else than the weights."""
    return path in _ADAPTERS


def is_loadable(path: str) -> bool:
    """Whether transformers' loaders can ask for a file of this name: config, tokenizer, template, weights, licence."""
    is_weight = path in (WEIGHTS, INDEX) or bool(_SHARD.fullmatch(path))
    return path in REWRITTEN or is_weight or _is_described(path, path)


def selected(listed: Collection[str], index: Mapping[str, Any], tokenizer_config: Mapping[str, Any]) -> list[str]:
    """The paths that a variant takes over, sorted; what is made anew for it is not among them.

    Args:
        listed: all paths of the checkpoint.
        index: its `model.safetensors.index.json`; empty where there is none.
        tokenizer_config: its `tokenizer_config.json`, likewise.
    """
    weights = {WEIGHTS} if WEIGHTS in listed else {INDEX, *index.get("weight_map", {}).values()}
    tokenizers = _versioned_tokenizers(tokenizer_config)
    return sorted(path for path in listed if path in weights or _is_described(path, *tokenizers))


def weight_files(location: str, listed: Collection[str], index: Mapping[str, Any]) -> list[str]:
    """The files with the weights that transformers would load.

    Raises:
        PushError: if there are none, or not all; the message says what there is instead.
    """
    if WEIGHTS in listed:
        return [WEIGHTS]
    if INDEX in listed and any(_SHARD.fullmatch(path) for path in listed):
        shards = _shards_of(index, location)
        missing = [shard for shard in shards if shard not in listed]
        if missing:
            named = in_one_line(", ".join(missing))
            raise PushError(f"{location} is incomplete: its index names {named}. Download or save it again.")
        return shards
    raise PushError(f"{location} {_what_instead([path for path in listed if '/' not in path])}")


def _is_described(path: str, *tokenizers: str) -> bool:
    if path in _BY_NAME or _TEMPLATE.fullmatch(path) or _LICENCE.fullmatch(path):
        return True
    return path in tokenizers and bool(_VERSIONED_TOKENIZER.fullmatch(path))


def _versioned_tokenizers(tokenizer_config: Mapping[str, Any]) -> list[str]:
    named = tokenizer_config.get("fast_tokenizer_files")
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


def _shards_of(index: Mapping[str, Any], location: str) -> list[str]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise PushError(f"{INDEX} of {location} has no `weight_map` from names to files: save the checkpoint again.")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not re.fullmatch(r"[\w.-]+\.safetensors", shard) or shard.startswith("."):
            raise PushError(
                f"{INDEX} of {location} says that {in_one_line(name)} is in {in_one_line(repr(shard))}, which is no "
                "file of the checkpoint: save it again."
            )
    return sorted(set(weight_map.values()))


def _what_instead(top_level: list[str]) -> str:
    if any(_SHARD.fullmatch(path) for path in top_level):
        return f"has shards of weights, but no {INDEX} that says what is in them: download or save it again."
    if any(map(is_adapter, top_level)):
        return (
            "holds an adapter alone, and no weights of the model: merge it (PEFT's `merge_and_unload`), save the "
            "model (`save_pretrained`) and push that."
        )
    others = sorted(filter(is_weights, top_level))
    if others:
        return (
            f"has no {WEIGHTS}, by which transformers loads weights, but {in_one_line(', '.join(others))}: rename it."
        )
    if any(path.endswith(_PICKLES) for path in top_level):
        return (
            "has its weights as pickles alone, which can run code when they are loaded and are not published. Save it "
            "as safetensors (from_pretrained, then save_pretrained; or "
            "https://huggingface.co/spaces/safetensors/convert) and push that."
        )
    return "has no weights: there is no .safetensors file in it."
