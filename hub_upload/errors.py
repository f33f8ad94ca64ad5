"""What can go wrong with the Hub, in words: the cause, the remedy, and whether to try again."""

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass

from huggingface_hub import errors as hub_errors


class PushError(ValueError):
    """Ends a push; the message is one line that names the cause and the remedy."""


class PushUsageError(PushError):
    """What the command line says can never work, so that the program ends with 2."""


class DamagedDownloadError(OSError):
    """What came down has another hash than the Hub told."""


@dataclass(frozen=True)
class Diagnosis:
    """Why a request failed and what helps; `wait` is what the Hub asked for, in seconds."""

    cause: str
    remedy: str
    is_transient: bool = False
    wait: float | None = None


LONGEST_LINE = 400

RUN_AGAIN = "Run the same command again: it goes on where it stopped."

_REMEDIES = {
    400: "The Hub does not take this as it is: an update of huggingface_hub may help.",
    401: "Log in with `hf auth login`, or give a valid token with --token.",
    402: "The account needs a plan that allows this: see https://huggingface.co/pricing.",
    403: "Use a token with write permission for the target (https://huggingface.co/settings/tokens), or another "
    "--repo-id.",
    404: "Check the spelling; a private or gated repository also needs a token that may see it.",
    408: RUN_AGAIN,
    409: "Somebody else is changing the repository: run the same command again when they are done.",
    412: "Somebody else is changing the branch: run the same command again when they are done.",
    413: "A file is larger than the Hub takes: save the base in smaller shards "
    '(`model.save_pretrained(folder, max_shard_size="5GB")`) and push that folder.',
    422: "The Hub did not get the bytes that it was told to expect: run the same command again.",
    451: "The Hub may not give this out.",
    429: "Wait a few minutes and run the same command again: it goes on where it stopped.",
}
_TRANSIENT_STATUS = {408, 409, 412, 425, 429, 500, 502, 503, 504}
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def diagnose(error: BaseException) -> Diagnosis:
    """Explains any exception; an unknown one is its own cause."""
    chain = list(_chain(error))
    for known in chain:
        if isinstance(known, hub_errors.OfflineModeIsEnabled):
            return Diagnosis("HF_HUB_OFFLINE is set", "Unset it: a push needs the Hub.")
        if isinstance(known, hub_errors.GatedRepoError):
            repo_url = re.sub(r"/(resolve|api/models)/.*", "", str(known.response.url))
            return Diagnosis(
                f"{_describe(known)}, the repository is gated",
                f"Accept its conditions on its page on the Hub ({repo_url}) and log in with `hf auth login`.",
            )
        if isinstance(known, hub_errors.HfHubHTTPError):
            return _diagnose_status(known)
        if isinstance(known, OSError) and known.errno in _DISK_FULL:
            return Diagnosis(
                f"the disk is full ({known})",
                "Free some space, or let HF_HOME (downloads) or --output name a larger disk. " + RUN_AGAIN,
            )
        if isinstance(known, DamagedDownloadError):
            return Diagnosis(str(known), RUN_AGAIN, is_transient=True)
    for known in chain:
        # httpx's errors, whichever httpx this huggingface_hub uses, and the sockets' own.
        if isinstance(known, (hub_errors.HTTPError, ConnectionError, TimeoutError)):
            cause = in_one_line(known) or type(known).__name__
            return Diagnosis(
                f"the connection to the Hub failed ({cause})", f"Check the network. {RUN_AGAIN}", is_transient=True
            )
    if isinstance(error, (ValueError, OSError)):
        # Of this machine, or of what was asked for: it would be the same again.
        return Diagnosis(in_one_line(error), "")
    told = f"{type(chain[-1]).__name__}: {in_one_line(chain[-1])}"
    return Diagnosis(f"huggingface_hub did not understand the Hub's answer ({told})", RUN_AGAIN)


def is_refused_copy(error: BaseException) -> bool:
    """Whether the Hub, or this huggingface_hub, does not copy files from the base on the server's side."""
    for known in _chain(error):
        if isinstance(known, getattr(hub_errors, "FileDuplicationError", ())):
            return True
        if isinstance(known, hub_errors.HfHubHTTPError):
            status, path = known.response.status_code, known.response.request.url.path
            is_refusal = 400 <= status < 500 and status != 401 and status not in _TRANSIENT_STATUS
            return path.endswith("/lfs-files/duplicate") and (is_refusal or status == 501)
        if isinstance(known, ValueError) and "Cannot duplicate LFS file" in str(known):
            return True
    return False


def redact(text: str, token: str | None) -> str:
    """The text without the token, and without anything that looks like one."""
    if token:
        text = text.replace(token, "***")
    return re.sub(r"\bhf_[A-Za-z0-9]{20,}", "***", text)


def _diagnose_status(error: hub_errors.HfHubHTTPError) -> Diagnosis:
    status = error.response.status_code
    remedy = _REMEDIES.get(status)
    if isinstance(error, hub_errors.RevisionNotFoundError):
        remedy = "There is no such branch, tag or commit: check the revision."
    elif isinstance(error, hub_errors.RepositoryNotFoundError):
        remedy = _REMEDIES[404]
    elif status == 400 and "digest" in _describe(error).lower():
        remedy = _REMEDIES[422]
    elif remedy is None and status in _TRANSIENT_STATUS:
        remedy = f"The Hub has a problem (https://status.huggingface.co). {RUN_AGAIN}"
    elif remedy is None:
        remedy = "If the Hub has a problem, https://status.huggingface.co tells; otherwise update huggingface_hub."
    return Diagnosis(_describe(error), remedy, status in _TRANSIENT_STATUS, _retry_after(error))


def _describe(error: hub_errors.HfHubHTTPError) -> str:
    """Like `the Hub answered 403 Forbidden (you may not) to POST /api/repos/create`."""
    response = error.response
    told = response.headers.get("X-Error-Message") or error.server_message
    reason = " ".join(str(part) for part in (response.status_code, response.reason_phrase) if part)
    told = f" ({in_one_line(told)})" if told and told.strip() != response.reason_phrase else ""
    return f"the Hub answered {reason}{told} to {response.request.method} {response.request.url.path}"


def in_one_line(told: object) -> str:
    """A value or an error as text in one line, of which too long a one loses its middle."""
    line = printable(" ".join(str(told).split()))
    half = LONGEST_LINE // 2
    return line if len(line) <= LONGEST_LINE else f"{line[:half]}…{line[-half:]}"


def printable(text: str) -> str:
    """The text with what would steer a terminal made visible; line breaks stay."""
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", _escape, text)


def _escape(match: re.Match) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _retry_after(error: hub_errors.HfHubHTTPError) -> float | None:
    try:
        return max(0.0, float(error.response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
