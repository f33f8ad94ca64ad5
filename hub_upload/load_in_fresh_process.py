"""Loads repositories without their weights, as a user's process would; reads and writes JSON lines.

A program of its own, started with empty caches: it imports torch, which the push itself does without. Of the weights
it is told names, types and shapes, and holds them against the model that the config describes, on the meta device.
"""

import json
import re
import sys

# Kept from libraries that print.
answers, sys.stdout = sys.stdout, sys.stderr

# Types that a model's parameters are loaded from unless a quantiser has made them.
FLOATS = ("F64", "F32", "F16", "BF16")
# Constants that older releases saved with the weights; no release reads them.
SAVED_CONSTANTS = r"(^|\.)(position_ids|inv_freq)$"


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(_try_to_load(json.loads(line))), file=answers, flush=True)


def _try_to_load(request: dict) -> dict:
    try:
        return _load(**request)
    except Exception as error:
        return {"error": f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"}


def _load(location: str, revision: str | None, num_frames: int, weights: dict | None, tower: dict | None) -> dict:
    from transformers import AutoConfig
    from transformers.dynamic_module_utils import get_class_from_dynamic_module
    from transformers.utils import cached_file

    config = AutoConfig.from_pretrained(location, revision=revision, trust_remote_code=True)
    with open(cached_file(location, "processor_config.json", revision=revision), encoding="utf-8") as file:
        processor_config = json.load(file)
    for name in {*config.auto_map.values(), *processor_config["auto_map"].values()}:
        get_class_from_dynamic_module(name, location, revision=revision)
    plan_token_budget = get_class_from_dynamic_module("token_budget.plan_token_budget", location, revision=revision)
    budget = plan_token_budget(config, num_frames)
    if weights is not None:
        name = config.auto_map["AutoModelForImageTextToText"]
        _check_weights(get_class_from_dynamic_module(name, location), config, weights, tower or {})
    text_config, all_tokens = config.text_config, num_frames * config.pooled_grid_size**2
    return {
        "num_frames": num_frames,
        "tokens_before": all_tokens,
        "tokens_after": budget.num_video_tokens,
        "newlines_before": config.count_newlines(num_frames, is_compressed=False),
        "newlines_after": config.count_newlines(num_frames, is_compressed=budget.num_video_tokens < all_tokens),
        "has_fixed_token_count": config.has_fixed_token_count,
        "num_layers": text_config.num_hidden_layers,
        "hidden_size": text_config.hidden_size,
        "intermediate_size": text_config.intermediate_size,
    }


def _check_weights(model_class: type, config: object, weights: dict, tower: dict) -> None:
    """Raises a `ValueError` if `from_pretrained` would miss weights, or leave some unread."""
    import torch

    for name, value in tower.items():
        setattr(config.vision_config, name, value)
    for part in (config.text_config, config.vision_config):
        # Each layer has weights of its own: a config that promises more need not be built to be refused.
        if part.num_hidden_layers > len(weights):
            raise ValueError(
                f"the config has {part.num_hidden_layers:,} layers, and there are {len(weights):,} weights"
            )
    with torch.device("meta"):
        model = model_class(config)
    model.tie_weights()
    expected = model.state_dict()
    names = _names_in_the_model(model, expected, weights)
    _check_shapes(expected, names, weights)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    there = {id(parameters[name]) for name in names if name in parameters}
    missing = [name for name in expected if name not in names and id(parameters.get(name)) not in there]
    if missing:
        raise ValueError(f"the weights lack {_some(missing)}, which the model needs")


def _names_in_the_model(model: object, expected: dict, weights: dict) -> dict:
    """The name in the file of each name in the model, as transformers translates them when it loads."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import rename_source_key

    renamings, prefix, names = get_model_conversion_mapping(model), model.base_model_prefix, {}
    ignored = [*(model._keys_to_ignore_on_load_unexpected or ()), SAVED_CONSTANTS]
    for name in weights:
        new, _ = rename_source_key(name, renamings, [], prefix, expected)
        if new not in expected and name in expected:
            new = name
        if new not in expected and any(re.search(pattern, new) for pattern in ignored):
            continue
        if new not in expected:
            raise ValueError(f"the weights have {name}, which the model has no place for")
        if new in names:
            raise ValueError(f"the weights have {names[new]} and {name}, which are one in the model")
        names[new] = name
    return names


def _check_shapes(expected: dict, names: dict, weights: dict) -> None:
    for new, name in names.items():
        dtype, shape = weights[name]
        if list(expected[new].shape) != shape:
            wanted = list(expected[new].shape)
            raise ValueError(f"the weights have {name} of shape {shape}, but the config asks for {wanted}")
        if dtype not in FLOATS:
            raise ValueError(f"the weights have {name} of type {dtype}, but it must be one of {', '.join(FLOATS)}")


def _some(names: list) -> str:
    rest = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


if __name__ == "__main__":
    main()
