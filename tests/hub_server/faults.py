"""What goes wrong, and when."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from .recording import RecordedRequest

MESSAGES = {
    400: "Bad request",
    401: "Invalid credentials in Authorization header",
    403: "Forbidden",
    404: "Not found",
    409: "Another conflicting operation is in progress",
    412: "A commit has happened since. Please refresh and try again.",
    413: "Payload too large",
    429: "We had to rate limit you, please retry later",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@dataclass(frozen=True)
class Fault:
    """One way in which a request fails."""

    kind: str
    code: int = 0
    message: str = ""
    error_code: str | None = None
    retry_after: int | None = None
    seconds: float = 0

    @classmethod
    def status(
        cls, code: int, message: str | None = None, retry_after: int | None = None, error_code: str | None = None
    ) -> "Fault":
        """Nothing is done and the answer is this status, with `Retry-After` and the Hub's `X-Error-Code` if given."""
        return cls("status", code, message or MESSAGES.get(code, "Failed"), error_code, retry_after)

    @classmethod
    def drop(cls) -> "Fault":
        """Nothing is done and the connection is closed before the body is read."""
        return cls("drop")

    @classmethod
    def cut(cls) -> "Fault":
        """What was asked is done, and the connection closed in the middle of the answer."""
        return cls("cut")

    @classmethod
    def slow(cls, seconds: float) -> "Fault":
        """The answer is right and late."""
        return cls("slow", seconds=seconds)

    @classmethod
    def damaged_bytes(cls) -> "Fault":
        """The first byte of a file that comes in or goes out is flipped; no other request is changed."""
        return cls("damaged_bytes")

    @classmethod
    def wrong_hash(cls) -> "Fault":
        """Every sha256 that the answer tells, in its headers or its JSON, is another one."""
        return cls("wrong_hash")

    def __str__(self) -> str:
        return f"status {self.code}" if self.kind == "status" else self.kind

    @property
    def headers(self) -> dict[str, str]:
        """The Hub tells in two ways when to come back; older clients read only `RateLimit`."""
        if self.retry_after is None:
            return {}
        return {"Retry-After": str(self.retry_after), "RateLimit": f'"api";r=0;t={self.retry_after}'}


@dataclass
class PlannedFault:
    fault: Fault
    at: int
    matching: Callable[[RecordedRequest], object]
    times: int | None
    fired: int = 0

    def applies_to(self, request: RecordedRequest) -> bool:
        is_due = request.number >= self.at and (self.times is None or self.fired < self.times)
        return is_due and bool(self.matching(request))


class FaultPlan:
    def __init__(self):
        self._planned: list[PlannedFault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault, at: int, matching, times: int | None) -> PlannedFault:
        if isinstance(matching, str):
            pattern = re.compile(matching)
            planned = PlannedFault(
                fault, at, lambda request: pattern.search(f"{request.method} {request.path}"), times
            )
        else:
            planned = PlannedFault(fault, at, matching or (lambda request: True), times)
        with self._lock:
            self._planned.append(planned)
        return planned

    def take(self, request: RecordedRequest) -> Fault | None:
        """The fault that this request meets; it counts as fired."""
        with self._lock:
            for planned in self._planned:
                if request.number and planned.applies_to(request):
                    planned.fired += 1
                    return planned.fault
            return None

    def clear(self) -> None:
        with self._lock:
            self._planned.clear()
