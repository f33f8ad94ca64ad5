"""Runs in each call with a key-value cache: what it tells of a conversation whose later turns go on from it.

Caches are found by their type, since the name of the argument depends on the release of transformers.
"""

from collections.abc import Iterable

from transformers import Cache
from transformers.utils import ModelOutput


def find_caches(values: Iterable) -> list[Cache]:
    """The caches among arguments, or among the fields of an output."""
    values = values.values() if isinstance(values, ModelOutput) else values
    return [value for value in values if isinstance(value, Cache)]


def mark_as_fitted(values: Iterable) -> None:
    """Notes in the caches that their columns are not those of the prompt as the caller wrote it."""
    for cache in find_caches(values):
        cache.holds_fitted_prompt = True


def count_cached_columns(values: Iterable) -> int:
    """Columns of the conversation that the cache among the arguments of `generate` holds; 0 without one.

    Raises:
        ValueError: if they are not columns of the caller's prompt.
    """
    for cache in find_caches(values):
        num_columns = int(cache.get_seq_length())
        if num_columns == 0:  # new, or reset for another conversation
            cache.holds_fitted_prompt = False
        if getattr(cache, "holds_fitted_prompt", False):
            raise ValueError(
                f"The cache holds {num_columns} columns of a prompt that was run with another number of video "
                "placeholders than it was written with, so it cannot tell which columns are new. Make the first "
                "prompt with AOT's processor, of an encoded video (`model.encode_video`) if need be, or pass the "
                "whole conversation, its videos and no cache."
            )
        return num_columns
    return 0
