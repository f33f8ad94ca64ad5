"""What was asked of the server, in the order of arrival."""

import threading
from dataclasses import dataclass

# Sent at most once a day and home folder, to learn which coding agents there are: it would shift the numbers.
UNCOUNTED = "/api/agent-harnesses"


@dataclass
class RecordedRequest:
    """One request. `number` counts from 1, `path` is as it came, without the query; bytes are those of the bodies."""

    number: int
    method: str
    path: str
    query: str
    is_authorized: bool
    status: int | None = None
    bytes_received: int = 0
    bytes_sent: int = 0
    fault: str | None = None
    file_received: str | None = None  # sha256 of the large file whose bytes came in
    file_sent: str | None = None  # path in its repository of the file whose bytes went out

    def __str__(self) -> str:
        fault = f" ({self.fault})" if self.fault else ""
        return f"{self.number}. {self.method} {self.path} -> {self.status}{fault}"


class Recording:
    def __init__(self):
        self.requests: list[RecordedRequest] = []
        self._lock = threading.Lock()

    def arrival(self, method: str, path: str, query: str, is_authorized: bool) -> RecordedRequest:
        with self._lock:
            request = RecordedRequest(len(self.requests) + 1, method, path, query, is_authorized)
            if path == UNCOUNTED:
                request.number = 0
            else:
                self.requests.append(request)
            return request

    def clear(self) -> None:
        with self._lock:
            self.requests.clear()
