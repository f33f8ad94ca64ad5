"""Loads repositories without their weights, as a user's process would; reads and writes JSON lines.

A program of its own, started with empty caches: it imports torch, which the push itself does without.
"""

import json
import sys

# Kept from libraries that print.
answers, sys.stdout = sys.stdout, sys.stderr


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(_try_to_load(json.loads(line))), file=answers, flush=True)


def _try_to_load(request: dict) -> dict:
    try:
        return _load(**request)
    except Exception as error:
        return {"error": f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"}


def _load(location: str, revision: str | None, num_frames: int) -> dict:
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


if __name__ == "__main__":
    main()
