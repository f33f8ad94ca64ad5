"""What stands in small files and is nobody's business: paths of a machine, names of users, credentials."""

import re
from typing import Any

from .errors import PushError

# Where the checkpoint once lay.
_PLACES = re.compile(r"_?name_or_path|(special_tokens_map|tokenizer|vocab|merges|added_tokens|spm|chat_template)_file")
_CREDENTIALS = re.compile(
    r"(?i)(.*_)?(auth_?token|hf_?token|access_?token|api_?token|api_?key|access_?key|secret(_key)?|password|passwd"
    r"|credentials?|private_?key)"
)
_LOCAL_PATH = re.compile(
    r"(~|/(home|root|Users|mnt|media|data|workspace|scratch|tmp|var|opt|srv|content|kaggle|work))/\S.*"
)
_WINDOWS_PATH = re.compile(r"([A-Za-z]:[\\/]|\\\\)\S.*|file://.*")
_SECRET = re.compile(
    rb"\bhf_[A-Za-z0-9]{20,}|\bsk-(?:proj-|ant-[a-z0-9]+-)?[A-Za-z0-9_]{32,}|\bgh[pousr]_[A-Za-z0-9]{30,}"
    rb"|\bAKIA[0-9A-Z]{16}\b"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)


def without_private_fields(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The fields that may be seen, at any depth, and the names of those that are left out."""
    left_out: list[str] = []
    kept = _without(values, left_out)
    return kept, sorted(set(left_out))


def check_holds_no_secret(content: bytes, what: str) -> None:
    """Refuses what looks like a token or a private key.

    Raises:
        PushError: which does not repeat it.
    """
    found = _SECRET.search(content)
    if found:
        kind = found[0][:4].decode("ascii", "replace")
        raise PushError(
            f"{what} holds what looks like a token or a private key (it begins with {kind!r}): take it out, and make "
            "it invalid where it was issued."
        )


def _without(value: Any, left_out: list[str]) -> Any:
    if isinstance(value, list):
        return [_without(item, left_out) for item in value]
    if not isinstance(value, dict):
        return value
    private = [name for name, item in value.items() if _is_private(name, item)]
    left_out += private
    return {name: _without(item, left_out) for name, item in value.items() if name not in private}


def _is_private(name: str, value: Any) -> bool:
    if _CREDENTIALS.fullmatch(name) and value is not None:
        return True
    if not isinstance(value, str):
        return False
    return bool(_PLACES.fullmatch(name) or _LOCAL_PATH.fullmatch(value) or _WINDOWS_PATH.fullmatch(value))
