"""Runs on loading and in each call: keywords that nothing reads, which transformers would let pass without a word."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .error_texts import show

# How alike a keyword and a setting are: 1 if they are the same. `retention_rate` and `retention_ratio` are 0.90.
LEAST_LIKENESS = 0.75


def check_keywords(
    given: Mapping[str, Any], known: Iterable[str], own: Collection[str], is_strict: bool = False
) -> None:
    """Refuses keywords that are unknown and much like one of our own settings; or all unknown ones.

    The others pass, unless it is strict: transformers may hand on keywords that do not exist yet, and this code stays
    as it was published.

    Args:
        given: the keywords; one for a kind of input, such as `videos_kwargs`, has a dict of others.
        known: those that mean something.
        own: our settings.

    Raises:
        TypeError: naming the keyword, and what was meant or what there is.
    """
    known = {*known, *own}
    inner = [
        keywords for name, keywords in given.items() if name.endswith("_kwargs") and isinstance(keywords, Mapping)
    ]
    for name in [name for keywords in (given, *inner) for name in keywords if name not in known]:
        meant = _most_alike(name, own)
        if meant:
            raise TypeError(f"unexpected keyword {show(name)}: did you mean `{meant}`?")
        if is_strict:
            raise TypeError(
                f"unexpected keyword {show(name)}: leave it out. Settings of a video are {', '.join(own)}."
            )


def keywords_of_call(processor: Any) -> set[str]:
    """All that a call of this processor, or of this class of processors, reads."""
    kinds = processor.valid_processor_kwargs.__annotations__
    parts = [getattr(processor, part, None) for part in ("image_processor", "video_processor")]
    typed = [*kinds.values(), *(getattr(part, "valid_kwargs", None) for part in parts)]
    names = {name for kind in typed for name in getattr(kind, "__annotations__", {})}
    return {*kinds, *names, "common_kwargs"}


def _most_alike(name: str, names: Iterable[str]) -> str | None:
    """The name that is spelt much like this one, or has all of its words, as `retention_ratio` those of `ratio`."""
    alike = difflib.get_close_matches(name, names, 1, LEAST_LIKENESS)
    words = set(name.split("_"))
    return next(iter(alike), None) or next((other for other in names if words <= set(other.split("_"))), None)
