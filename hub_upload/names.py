"""Names of repositories, branches and revisions, by the Hub's rules and git's: checked before the first request."""

import re

from huggingface_hub.utils import HFValidationError, validate_repo_id

from .errors import in_one_line

MAIN = "main"
LONGEST_BRANCH = 200

# What git's check-ref-format refuses anywhere in a name.
_NOT_IN_REFS = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def repo_id_problem(repo_id: object) -> str | None:
    """Why this is no repository's ID, `owner/name`; None if it is one."""
    if not isinstance(repo_id, str) or repo_id.count("/") != 1:
        return "it must be a Hub ID, `owner/name`"
    if not repo_id.isascii():
        return "it must be a Hub ID of letters from a to z, digits, `-`, `_` and `.`"
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        return (
            "it must be a Hub ID, `owner/name`, of letters, digits, `-`, `_` and `.`, without `--` or `..`, that does "
            "not begin or end with `-` or `.` nor end with `.git`, and has 96 characters at most on each side"
        )
    owner, name = repo_id.split("/")
    if any(part[0] in "-." or part[-1] in "-." for part in (owner, name)) or max(len(owner), len(name)) > 96:
        return "neither owner nor name may begin or end with `-` or `.`, and each has 96 characters at most"
    return None


def branch_problem(branch: str) -> str | None:
    """Why a branch cannot be called like this; None if it can."""
    problem = revision_problem(branch)
    if problem:
        return problem
    if branch.startswith("refs/") or branch == "HEAD":
        return "that names another kind of reference, not a branch"
    if _COMMIT.fullmatch(branch):
        return "that is what a commit is called"
    return None


def revision_problem(revision: str) -> str | None:
    """Why no branch, tag or commit can be called like this; None if one can."""
    try:
        length = len(revision.encode())
    except UnicodeEncodeError:
        return "it holds bytes that are no UTF-8"
    if not 1 <= length <= LONGEST_BRANCH:
        return f"it must have from 1 to {LONGEST_BRANCH} bytes"
    found = _NOT_IN_REFS.search(revision)
    if found:
        return f"git allows no {found[0]!r} in it"
    if revision.startswith(("-", "/")) or revision.endswith(("/", ".")) or revision == "@":
        return "for git it must not begin with `-` or `/`, nor end with `/` or `.`, nor be `@`"
    if any(part.startswith(".") or part.endswith(".lock") for part in revision.split("/")):
        return "for git no part of it may begin with `.` or end with `.lock`"
    if not revision.isprintable():
        return "it holds characters that cannot be shown"
    return None


def shown(name: object) -> str:
    """A name as a message quotes it."""
    return in_one_line(name if isinstance(name, str) and name.isprintable() and name else repr(name))
