"""Runs where a video is an http(s) address: downloads it within limits, and tells no password in the address."""

from __future__ import annotations

import errno
import importlib
import ipaddress
import re
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from .error_texts import shorten
from .video_contents import is_web_page
from .video_limits import VideoLimits

_SECONDS_WITHOUT_ANSWER = 30
_REMEDIES = {
    401: "it needs a login: write http://USER:PASSWORD@HOST, or download it yourself and give the file",
    403: "the server does not allow it: download it yourself and give the file",
    404: "check the address",
    410: "the video is gone, give another address",
    429: "the server wants fewer requests: wait a while",
}
_DISK_IS_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # IPv4 seen through IPv6, RFC 6052


def name_of_address(address: str) -> str:
    """What messages call an address: what may be secret in it, user, password and query, is left out."""
    # Also where the password has letters in it that must be written otherwise, as slashes.
    shown = re.sub(r"^([a-z]+://)(?:[^/?#@:]*:.*|[^/?#]*)@", r"\1…@", address, flags=re.IGNORECASE | re.DOTALL)
    return shorten(re.sub(r"([?#]).+", r"\1…", shown, flags=re.DOTALL))


def download(address: str, file: BinaryIO, limits: VideoLimits) -> None:
    """Fills the file with what is at the http or https address.

    Raises:
        ImportError: there is no HTTP client.
        ValueError: it is no valid address, cannot be downloaded, is a web page or empty, or goes beyond a limit.
    """
    client_library = _http_client()
    transfer = _Transfer(name_of_address(address), limits)
    try:
        with transfer.within_time(), _follow(client_library, address, transfer) as answer:
            _store(answer, file, transfer, client_library.TransportError)
    except client_library.InvalidURL:
        raise ValueError(
            f"{transfer.name} is no valid address: write http://HOST/PATH, and letters like / and @ in a password as "
            "%2F and %40."
        ) from None
    except client_library.HTTPError as error:
        reason = shorten(" ".join(str(error).split())) or type(error).__name__
        raise transfer.failure(f"cannot be downloaded ({reason}): check the address and the network") from error
    except OSError as error:
        place = f"the disk of {tempfile.gettempdir()}"
        if error.errno in _DISK_IS_FULL:
            raise ValueError(f"{transfer.name} cannot be downloaded: {place} is full, make room there.") from error
        raise ValueError(f"{transfer.name} cannot be written to {place} ({error.strerror}): look there.") from error


def _http_client() -> Any:
    """The client that huggingface_hub, and so transformers, brings: httpx2 from its version 2, httpx before."""
    for name in ("httpx2", "httpx"):
        with suppress(ImportError):
            return importlib.import_module(name)
    raise ImportError("Downloading videos needs httpx: run `pip install httpx`.")


class _Transfer:
    """One download, with its limits and the connection that it runs over."""

    def __init__(self, name: str, limits: VideoLimits):
        self.name = name
        self.limits = limits
        self._connection: Any = None
        self._is_late = False

    @contextmanager
    def within_time(self) -> Iterator[None]:
        """Cuts the connection when the time is up: no timeout of the client's is one for all of a transfer."""
        timer = threading.Timer(self.limits.max_download_seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            self._connection = None

    def watch(self, event: str, details: dict[str, Any]) -> None:
        """A trace function of the client's: what it connected to, before anything is sent."""
        if not event.endswith(("connect_tcp.complete", "start_tls.complete")):
            return
        stream = details["return_value"]
        self._connection = stream.get_extra_info("socket")
        if self.limits.public_addresses_only and event.endswith("connect_tcp.complete"):
            place = stream.get_extra_info("server_addr")[0]
            if not _is_public(place):
                stream.close()
                raise ValueError(
                    f"{self.name} is not downloaded: it leads to {place}, a machine of a private network, which "
                    "public_addresses_only refuses."
                )
        if self._is_late:
            self._cut()

    def failure(self, reason: str) -> ValueError:
        """What went wrong: the time, if it was up, whatever the client made of that."""
        if self._is_late:
            limit = f"max_download_seconds={self.limits.max_download_seconds:g}"
            reason = f"is not downloaded in time ({limit}): raise the limit, or download it and give the file"
        return ValueError(f"{self.name} {reason}.")

    def check_size(self, size: int) -> None:
        """Raises ValueError if these are more bytes than a video may have."""
        if size > self.limits.max_bytes:
            raise too_large(self.name, self.limits.max_bytes, "download it and give the file")

    def check_time(self) -> None:
        """Raises ValueError if the time is up."""
        if self._is_late:
            raise self.failure("")

    def _cut(self) -> None:
        self._is_late = True
        connection = self._connection
        if connection is not None:
            with suppress(OSError):  # it is closed already
                connection.shutdown(socket.SHUT_RDWR)


def too_large(name: str, max_bytes: int, remedy: str) -> ValueError:
    """The error of a video of more bytes than it may have."""
    return ValueError(f"{name} is larger than {max_bytes / 2**30:g} GiB, which is max_bytes: {remedy}, or raise it.")


@contextmanager
def _follow(client_library: Any, address: str, transfer: _Transfer) -> Iterator[Any]:
    """The answer at the end of all redirects."""
    url, user = _without_user(client_library.URL(address))
    uses_proxies = not transfer.limits.public_addresses_only
    with client_library.Client(timeout=_SECONDS_WITHOUT_ANSWER, trust_env=uses_proxies) as client:
        for _ in range(transfer.limits.max_redirects + 1):
            request = client.build_request(
                "GET",
                url,
                headers={"User-Agent": "aot-llava", "Accept-Encoding": "identity"},
                extensions={"trace": transfer.watch},
            )
            answer = client.send(request, stream=True, auth=user)
            try:
                if answer.next_request is None:
                    _check_answer(answer, transfer)
                    yield answer
                    return
                url, user = _next_place(answer, url, user, transfer)
            finally:
                answer.close()
    raise ValueError(
        f"{transfer.name} is not downloaded: it redirects more than {transfer.limits.max_redirects} times, which is "
        "max_redirects; check the address."
    )


def _without_user(url: Any) -> tuple[Any, tuple[str, str] | None]:
    """The address that may be logged, and user and password."""
    return url.copy_with(userinfo=b""), (url.username, url.password) if url.userinfo else None


def _next_place(answer: Any, url: Any, user: Any, transfer: _Transfer) -> tuple[Any, tuple[str, str] | None]:
    following, next_user = _without_user(answer.next_request.url)
    is_downgrade = url.scheme == "https" and following.scheme == "http"
    if following.scheme not in ("http", "https") or is_downgrade:
        raise ValueError(
            f"{transfer.name} is not downloaded: it redirects from {url.scheme} to "
            f"{name_of_address(str(following))}; download it yourself and give the file."
        )
    is_same_server = (url.scheme, url.host, url.port) == (following.scheme, following.host, following.port)
    return following, next_user or (user if is_same_server else None)


def _check_answer(answer: Any, transfer: _Transfer) -> None:
    if not answer.is_success:
        remedy = _REMEDIES.get(answer.status_code, "try again later, or give the file")
        status = shorten(f"HTTP {answer.status_code} {answer.reason_phrase}")
        raise transfer.failure(f"cannot be downloaded ({status}): {remedy}")
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "deflate", ""):
        raise transfer.failure(f"comes encoded as {shorten(encoding)!r}: download it yourself and give the file")


def _store(answer: Any, file: BinaryIO, transfer: _Transfer, transport_error: type[Exception]) -> None:
    promised = int(answer.headers.get("Content-Length") or 0)
    transfer.check_size(promised)
    stored = 0
    try:
        for chunk in answer.iter_bytes():
            transfer.check_time()
            if stored == 0 and is_web_page(chunk):
                raise ValueError(
                    f"{transfer.name} is no video: the server sent a web page; give the address of the file itself."
                )
            stored += len(chunk)
            transfer.check_size(stored)
            file.write(chunk)
    except transport_error as error:
        whole = f" of {promised:,}" if promised else ""
        reason = f"broke off after {answer.num_bytes_downloaded:,}{whole} bytes: try again"
        raise transfer.failure(reason) from error
    file.flush()
    transfer.check_time()
    if stored == 0:
        raise transfer.failure("is empty: check the address")


def _is_public(place: str) -> bool:
    """Whether this IP address is one of the internet; of an IPv6 one that stands for an IPv4 one, whether that is."""
    address = ipaddress.ip_address(place.partition("%")[0])
    if address.version == 6:
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _TRANSLATED:
            inner.append(ipaddress.IPv4Address(int(address) % 2**32))
        if any(each is not None and not _is_public(str(each)) for each in inner):
            return False
        if address.ipv4_mapped is not None:
            return True
    return address.is_global and not address.is_multicast
