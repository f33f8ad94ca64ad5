"""What a base's config, processor files and model card may say for a variant to be made of it."""

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

from .errors import PushError, in_one_line
from .package_code import auto_map

LONGEST_CARD = 1 << 20
MOST_LAYERS = 10_000
_CARD_TEXTS = ("license", "license_name", "license_link")
# In the metadata of a card there are no more languages than this.
_MOST_LANGUAGES = 500


def check_config(config: dict[str, Any], what: str) -> None:
    """Checks the shape of what is read here; the config class itself checks the rest.

    Raises:
        PushError: if a part is no object, or names code or weights that are not published.
    """
    for name in ("text_config", "vision_config", "quantization_config"):
        if not isinstance(config.get(name, {}), (dict, type(None))):
            raise PushError(
                f"{what}: `{name}` is {in_one_line(repr(config[name]))}, but it must be an object, {{...}}."
            )
    vision = config.get("vision_config") or {}
    for name in ("image_size", "patch_size"):
        if name in vision and not _is_count(vision[name]):
            value = in_one_line(repr(vision[name]))
            raise PushError(f"{what}: `{name}` of `vision_config` is {value}, but it must be an integer from 1.")
    for part in ("text_config", "vision_config"):
        layers = (config.get(part) or {}).get("num_hidden_layers", 1)
        # A config of more takes all memory before it can be compared with the weights.
        if not _is_count(layers) or layers > MOST_LAYERS:
            told = f"`num_hidden_layers` of `{part}` is {in_one_line(repr(layers))}"
            raise PushError(f"{what}: {told}, but it must be an integer from 1 to {MOST_LAYERS:,}.")
    weights = config.get("transformers_weights")
    if weights is not None and weights != "model.safetensors":
        raise PushError(
            f"{what} has transformers load {in_one_line(repr(weights))} as weights, which is not published: rename "
            "the file to model.safetensors and take `transformers_weights` out."
        )
    if config.get("custom_pipelines"):
        raise PushError(f"{what} names code of its own (`custom_pipelines`), which is not published: take that out.")


def check_code(values: dict[str, Any], what: str) -> None:
    """A variant's users trust this project's code, not what a base may have loaded from elsewhere.

    Raises:
        PushError: if `auto_map`, here or in a part, names other code than the processor's.
    """
    codes = [values.get("auto_map"), *(part.get("auto_map") for part in values.values() if isinstance(part, dict))]
    own = list(auto_map().AUTO_MAP_OF_PROCESSOR.values())
    for code in codes:
        if code and (not isinstance(code, dict) or list(code.values()) != own):
            named = code.values() if isinstance(code, dict) else [code]
            told = in_one_line(", ".join(map(str, named)))
            raise PushError(f"{what} names code of its own ({told}), which is not published: use a base without it.")


def check_card_size(size: int, what: str) -> None:
    """Refuses a card that no one reads, before it is downloaded."""
    if size > LONGEST_CARD:
        raise PushError(f"{what} has {size:,} bytes, and a card has {LONGEST_CARD:,} at most: shorten it.")


def read_card_fields(path: Path, what: str) -> dict[str, Any]:
    """Licence and language from the metadata of a model card.

    Raises:
        PushError: if the metadata cannot be read, or these fields are none.
    """
    try:
        metadata = ModelCard.load(path, ignore_metadata_errors=True).data
        fields = {name: metadata.get(name) for name in (*_CARD_TEXTS, "language")}
    except (ValueError, TypeError, yaml.YAMLError, RecursionError, AttributeError) as error:
        reason = in_one_line(error)
        raise PushError(f"the metadata in {what} cannot be read ({reason}): correct it.") from error
    return {name: _as_text(value, name, what) for name, value in fields.items() if value is not None}


def _as_text(value: Any, name: str, what: str) -> str | list[str]:
    if isinstance(value, list) and name in ("license", "language") and len(value) <= _MOST_LANGUAGES:
        texts = [part for part in value if not isinstance(part, list)]
        if len(texts) == len(value):
            return [_as_text(part, name, what) for part in texts]
    if value is False and name == "language":
        return "no"  # Norwegian, which YAML takes for a truth value
    if not isinstance(value, str) or len(value) > 1000:
        raise PushError(f"the metadata in {what} has a `{name}` that is no text: correct it.")
    return value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1 << 20
