"""Runs when this code is loaded: the transformers that it needs."""

from transformers.utils.versions import require_version

MINIMUM_VERSION = "5.20"


def check_transformers() -> None:
    """Raises `ImportError` with the version found and the one needed, where transformers is too old."""
    requirement = f"transformers>={MINIMUM_VERSION}"
    require_version(requirement, f"AOT needs it: run `pip install --upgrade '{requirement}'`.")
