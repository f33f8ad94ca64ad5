"""Listens on the loopback and answers: hands each request to its endpoint, unless a fault is planned for it."""

import re
import socket
import sys
import time
import traceback
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from . import errors, routes
from .accounts import Account
from .faults import Fault, FaultPlan
from .hub import Hub
from .recording import RecordedRequest, Recording
from .wire import BodyCutShortError, FileResponse, Request, Response, error_response, flip_first_byte

SHA256 = re.compile(r"\b[0-9a-f]{64}\b")


class HttpFront(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    hub: Hub

    def __init__(self, recording: Recording, faults: FaultPlan):
        self.recording = recording
        self.faults = faults
        self.crashes: list[str] = []
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request, client_address):
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        """Clients that hang up are no news; anything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            self.crashes.append(traceback.format_exc())

    def close_everything(self) -> None:
        """Also the connections that clients keep open."""
        self.server_close()
        for connection in list(self._connections):
            hang_up(connection)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def answer(self) -> None:
        front = self.server
        address = urlsplit(self.path)
        is_authorized = "Authorization" in self.headers
        record = front.recording.arrival(self.command, address.path, address.query, is_authorized)
        fault = front.faults.take(record)
        record.fault = str(fault) if fault else None
        kind = fault.kind if fault else None
        if kind == "drop":
            return self._hang_up()
        request = Request(self.headers, self.rfile, record, is_damaged=kind == "damaged_bytes")
        try:
            response = _failed(fault) if kind == "status" else _respond(front, request)
            request.drain()
            if kind == "slow":
                time.sleep(fault.seconds)
            if kind == "wrong_hash":
                _tell_wrong_hashes(response)
            self._send(response, record, is_damaged=kind == "damaged_bytes", is_cut=kind == "cut")
        except (BodyCutShortError, ConnectionError):
            self._hang_up()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def _send(self, response: Response, record: RecordedRequest, is_damaged: bool, is_cut: bool) -> None:
        record.status = response.status
        status = HTTPStatus(response.status)
        headers = {"Content-Length": str(response.size), **response.headers}
        lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
        has_body = response.size > 0 and self.command != "HEAD"
        self.wfile.write(head[: len(head) // 2] if is_cut and not has_body else head)
        if has_body:
            self._send_body(response, record, is_damaged, stop=response.size // 2 if is_cut else response.size)
        if is_cut:
            self._hang_up()

    def _send_body(self, response: Response, record: RecordedRequest, is_damaged: bool, stop: int) -> None:
        for chunk in response.chunks():
            if is_damaged and isinstance(response, FileResponse):
                chunk, is_damaged = flip_first_byte(chunk), False
            chunk = chunk[: stop - record.bytes_sent]
            record.bytes_sent += len(chunk)
            self.wfile.write(chunk)

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
        hang_up(self.connection)

    def log_message(self, *_) -> None:
        """The requests are recorded, not printed."""


def hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # the other side may be faster
        connection.shutdown(socket.SHUT_RDWR)


def _respond(front: HttpFront, request: Request) -> Response:
    hub = front.hub
    try:
        endpoint, parts = routes.find(request.record.method, request.record.path)
        request.account = _account(hub, request)
        return endpoint(hub, request, **parts)
    except errors.HubError as error:
        return error_response(error)
    except ConnectionError:
        raise
    except Exception:
        front.crashes.append(f"{request.record}\n{traceback.format_exc()}")
        return error_response(errors.HubError(500, "Internal Server Error"))


def _account(hub: Hub, request: Request) -> Account | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    account = hub.accounts.of_token(token)
    if scheme and account is None:
        raise errors.invalid_token()
    return account


def _failed(fault: Fault) -> Response:
    return error_response(errors.HubError(fault.code, fault.message, fault.error_code), fault.headers)


def _tell_wrong_hashes(response: Response) -> None:
    def another(match: re.Match) -> str:
        return ("1" if match[0][0] == "0" else "0") + match[0][1:]

    addresses = ("Location", "Link")
    response.headers = {
        name: value if name in addresses else SHA256.sub(another, value) for name, value in response.headers.items()
    }
    if not isinstance(response, FileResponse):
        response.body = SHA256.sub(another, response.body.decode()).encode()
