"""Runs in `generate`: its options that concern a video, or a prompt which is not run as it was written."""

import copy
from dataclasses import dataclass
from typing import Any

import transformers
from transformers import GenerationConfig


@dataclass(frozen=True)
class GenerationOptions:
    """Where an option may stand, first come first served: keywords, the call's config, the model's."""

    keywords: dict[str, Any]
    config_of_call: GenerationConfig | None
    config_of_model: GenerationConfig

    def get(self, name: str) -> Any:
        """The option's value; None where nobody set it."""
        configs = (self.config_of_call, self.config_of_model)
        given = (self.keywords.get(name), *(getattr(config, name, None) for config in configs))
        return next((value for value in given if value is not None), None)

    def with_prompt_shortened(self, num_removed: int) -> tuple[GenerationConfig | None, dict[str, Any]]:
        """The call's config and keywords for a prompt with fewer columns than the caller's.

        `max_length` and `min_length` count the caller's prompt, so they shrink with it: each where it stands. What
        stands in the model's config alone is given with the call, whose config is copied.
        """
        config, keywords = copy.copy(self.config_of_call), dict(self.keywords)
        for name in ("max_length", "min_length"):
            length = self.get(name)
            if not length:
                continue
            shorter = max(0, length - num_removed)
            if config is None or keywords.get(name) is not None:
                keywords[name] = shorter
            else:
                setattr(config, name, shorter)
        return config, keywords


def check_chunked_prefill(options: GenerationOptions) -> None:
    """Raises `ValueError` where transformers would drop the encoded video."""
    chunk_size = options.get("prefill_chunk_size")
    release = tuple(map(int, transformers.__version__.split(".")[:2]))
    if chunk_size is not None and release < (5, 23):
        raise ValueError(
            f"`prefill_chunk_size={chunk_size}` beside a video needs transformers 5.23 or newer, but this is "
            f"{transformers.__version__}, which would answer without the video: update it, or leave the option out."
        )
