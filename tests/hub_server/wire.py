"""Requests and responses as the endpoints see them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

from . import errors
from .accounts import Account
from .recording import RecordedRequest
from .storage import CHUNK


class BodyCutShortError(ConnectionError):
    """The client went away before its body was complete."""


@dataclass
class Request:
    headers: object
    stream: object
    record: RecordedRequest
    is_damaged: bool = False
    account: Account | None = None

    def __post_init__(self):
        self.query = {name: values[-1] for name, values in parse_qs(self.record.query).items()}
        self._body = self._chunked() if "chunked" in self.headers.get("Transfer-Encoding", "") else self._sized()

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("1", "true")

    def body_chunks(self) -> Iterator[bytes]:
        for chunk in self._body:
            self.record.bytes_received += len(chunk)
            yield chunk

    def file_chunks(self) -> Iterator[bytes]:
        """The body as the bytes of a file, which a fault may have damaged on their way."""
        for chunk in self.body_chunks():
            yield flip_first_byte(chunk) if self.is_damaged else chunk
            self.is_damaged = False

    def body(self) -> bytes:
        return b"".join(self.body_chunks())

    def json(self) -> dict:
        try:
            return json.loads(self.body())
        except ValueError as error:
            raise errors.bad_request(f"Invalid JSON: {error}") from error

    def json_lines(self) -> list[dict]:
        try:
            return [json.loads(line) for line in self.body().splitlines() if line.strip()]
        except ValueError as error:
            raise errors.bad_request(f"Invalid JSON: {error}") from error

    def form(self) -> dict[str, list[str]]:
        return parse_qs(self.body().decode(), keep_blank_values=True)

    def drain(self) -> None:
        """Reads what nobody asked for, so that the next request on this connection begins where it should."""
        for _ in self.body_chunks():
            pass

    def _sized(self) -> Iterator[bytes]:
        remaining = int(self.headers.get("Content-Length") or 0)
        while remaining:
            chunk = self.stream.read1(min(remaining, CHUNK))
            if not chunk:
                raise BodyCutShortError
            remaining -= len(chunk)
            yield chunk

    def _chunked(self) -> Iterator[bytes]:
        while size := int(self._line(), 16):
            chunk = self.stream.read(size)
            if len(chunk) < size:
                raise BodyCutShortError
            self._line()
            yield chunk
        self._line()

    def _line(self) -> bytes:
        line = self.stream.readline()
        if not line:
            raise BodyCutShortError
        return line.strip() or b""


@dataclass
class Response:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.body)

    def chunks(self) -> Iterator[bytes]:
        if self.body:
            yield self.body


@dataclass
class FileResponse(Response):
    """A part of a stored file, from `start` up to `stop`."""

    path: Path = Path()
    start: int = 0
    stop: int = 0

    @property
    def size(self) -> int:
        return self.stop - self.start

    def chunks(self) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            file.seek(self.start)
            remaining = self.size
            while remaining:
                chunk = file.read(min(remaining, CHUNK))
                remaining -= len(chunk)
                yield chunk


def json_response(value: object, status: int = 200, **headers: str) -> Response:
    return Response(status, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8", **headers})


def error_response(error: errors.HubError, headers: dict[str, str] | None = None) -> Response:
    response = json_response({"error": error.message, **error.details}, error.status)
    response.headers.update({**error.headers, **(headers or {})})
    return response


def flip_first_byte(chunk: bytes) -> bytes:
    return bytes([chunk[0] ^ 0xFF]) + chunk[1:]
