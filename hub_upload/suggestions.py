"""What somebody meant who mistyped a name."""

import difflib
import re
from collections.abc import Iterable

MOST = 2


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A sentence that names what is most like the given name, with a blank before it; nothing where nothing is."""
    known = list(known)
    meant = difflib.get_close_matches(given, known, MOST)
    # `--ratio` is spelt little like `--retention-ratio`.
    meant = meant or [name for name in known if _words(given) & _words(name)][:MOST]
    return f" Did you mean {' or '.join(meant)}?" if meant else ""


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower()))
