"""Addresses as browsers take them, answers as servers give them, and nothing of a password in what is said."""

import errno
import gzip
import http.server
import logging
import re
import socket
import sys
import threading
import time
import zlib
from urllib.parse import unquote

import pytest
from numbered_clips import read_number, write_clip

from modeling_aot_llava import video_download, video_sources
from modeling_aot_llava.video_contents import is_text, is_web_page
from modeling_aot_llava.video_download import name_of_address
from modeling_aot_llava.video_limits import VideoLimits
from modeling_aot_llava.video_reading import read_video

PAGE = b"\n<!-- of a portal -->\n<!DOCTYPE html><html><body>Sign in</body></html>"
LOGIN = "Basic am9lOnAvIHdAcmQ="  # joe and p/ w@rd


class Server(http.server.BaseHTTPRequestHandler):
    """What it does depends on the path."""

    content = b""
    requests = ()

    def do_GET(self):
        self.requests.append((unquote(self.path), self.headers.get("Authorization")))
        path, _, target = self.path.partition("?to=")
        if path == "/to":
            self.answer(302, location=unquote(target))
        elif path == "/leaving":
            self.answer(302, location="ftp://joe:p%2F%20w%40rd@host/clip.mp4")
        elif path == "/locked" and self.headers.get("Authorization") != LOGIN:
            self.answer(401)
        elif path == "/gzip":
            self.answer(200, gzip.compress(self.content), content_encoding="gzip")
        elif path == "/deflate":
            self.answer(200, zlib.compress(self.content), content_encoding="deflate")
        elif path == "/brotli":
            self.answer(200, self.content, content_encoding="br")
        elif path == "/twice":
            self.answer(200, gzip.compress(gzip.compress(self.content)), content_encoding="gzip, gzip")
        elif path == "/bomb":
            self.answer(200, gzip.compress(bytes(2**24)), content_encoding="gzip")
        elif path == "/page":
            self.answer(200, PAGE, content_type="text/html")
        elif path == "/nothing":
            self.answer(200)
        elif path == "/slow-headers":
            self.drip(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000)
        elif path == "/slow":
            self.send_response(200)
            self.end_headers()
            self.drip(self.content)
        elif path == "/silent":
            self.stop.wait(20)
        elif unquote(path).endswith("clip.mp4") or path == "/locked":
            self.answer(200, self.content)
        else:
            self.answer(404)

    def drip(self, content):
        for byte in content:
            if self.stop.wait(0.05):
                return
            self.wfile.write(bytes([byte]))
            self.wfile.flush()

    def answer(self, status, content=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    clip = write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", 5)
    stop = threading.Event()
    handler = type("Handler", (Server,), {"content": clip.read_bytes(), "requests": [], "stop": stop})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        stop.set()
        server.shutdown()


@pytest.fixture
def root(server):
    server.RequestHandlerClass.requests.clear()
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def requests(server, root):
    return server.RequestHandlerClass.requests


def assert_read(address, **limits):
    frames, _ = read_video(address, limits=VideoLimits(**limits))
    assert [read_number(frame) for frame in frames] == list(range(5))


def refusal(address, **limits):
    """The one sentence with which an address is refused."""
    with pytest.raises(ValueError, match=r"\.$") as caught:
        read_video(address, limits=VideoLimits(**limits))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(name_of_address(address))
    return message


@pytest.mark.parametrize(
    "path", ["/a clip.mp4", "/münchen/日本 clip.mp4", "/a%20clip.mp4", "/a%2Fb clip.mp4", "/#clip.mp4"]
)
def test_blanks_and_letters_beyond_ascii(path, root, requests):
    if "#" in path:
        assert "HTTP 404" in refusal(root + path)  # what follows is no part of what is asked for
        return
    assert_read(root + path)
    assert requests == [(unquote(path), None)]


def test_hosts_with_letters_beyond_ascii(root, monkeypatch):
    asked = []
    resolve = socket.getaddrinfo

    def spy(host, *args, **options):
        asked.append(host)
        return resolve("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", spy)
    assert_read(root.replace("127.0.0.1", "bücher.example") + "/clip.mp4")
    assert {each.decode() if isinstance(each, bytes) else each for each in asked} == {"xn--bcher-kva.example"}


def test_user_and_password_are_used_and_never_said(root, requests, caplog):
    caplog.set_level(logging.INFO)
    locked = root.replace("://", "://joe:p%2F%20w%40rd@")
    assert_read(locked + "/locked")
    assert requests[-1][1] == LOGIN
    for path in ("/no such thing", "/leaving", "/page", "/nothing"):
        refusal(locked + path)
    wrong = root.replace("://", "://joe:p%2F%20w%40rdly@")
    assert "HTTP 401" in refusal(wrong + "/locked")
    refusal("http://joe:p%2F%20w%40rd@127.0.0.1:9/")
    for text in (*caplog.messages, refusal(locked + "/nothing"), refusal(locked + "/page")):
        assert "w%40rd" not in text
        assert "w@rd" not in text
        assert "joe" not in text


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("http://host/clip.mp4", "http://host/clip.mp4"),
        ("http://host:80/@joe/clip.mp4", "http://…@joe/clip.mp4"),  # or the password might be `80/`
        ("HTTP://joe:secret@host/clip.mp4", "HTTP://…@host/clip.mp4"),
        ("https://secret@host/clip.mp4", "https://…@host/clip.mp4"),
        ("http://joe:sec/ret#1?@host/clip.mp4", "http://…@host/clip.mp4"),
        ("http://joe:sec@ret@host/clip.mp4", "http://…@host/clip.mp4"),
        ("http://joe:sec\nret@host/clip.mp4", "http://…@host/clip.mp4"),
        ("https://host/clip.mp4?signature=secret", "https://host/clip.mp4?…"),
        ("https://host/clip.mp4#token=secret", "https://host/clip.mp4#…"),
    ],
)
def test_what_is_said_of_an_address(address, name):
    assert name_of_address(address) == name == video_sources.name_of(address)


@pytest.mark.parametrize("password", ["sec/ret", "sec#ret", "sec?ret", "sec ret]", "sec[ret"])
def test_a_password_that_must_be_written_otherwise(password):
    message = refusal(f"http://joe:{password}@127.0.0.1:9/clip.mp4")
    assert "sec" not in message
    assert "ret" not in message


@pytest.mark.parametrize(
    "address", ["http://", "http:///clip.mp4", "http://[::1/clip.mp4", "http://a:b/clip.mp4", "http://h/\x01"]
)
def test_addresses_that_are_none(address):
    assert re.search("no valid address: write http://HOST/PATH|cannot be downloaded", refusal(address))


@pytest.mark.parametrize("path", ["/gzip", "/deflate"])
def test_encoded_answers_are_undone(path, root):
    assert_read(root + path)


@pytest.mark.parametrize("path", ["/brotli", "/twice"])
def test_answers_that_cannot_be_undone(path, root):
    assert re.search(r"comes encoded as '(br|gzip, gzip)': download it yourself", refusal(root + path))


def test_bytes_are_counted_after_decoding(root):
    assert "is larger than" in refusal(root + "/bomb", max_bytes=2**20)


def test_a_web_page_is_named_as_such(root):
    assert "is no video: the server sent a web page" in refusal(root + "/page")
    with pytest.raises(ValueError, match="in memory cannot be read as a video, for it is a web page"):
        read_video(PAGE)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_takes_no_more_is_named_as_such(code, root, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, content):
            raise OSError(code, "reason")

        def flush(self):
            self.file.flush()

    download = video_download.download
    monkeypatch.setattr(video_sources, "download", lambda address, file, limits: download(address, Full(file), limits))
    message = refusal(root + "/clip.mp4")
    assert "the disk of /" in message
    assert ("is full, make room" in message) == (code == errno.ENOSPC)
    assert "network" not in message


@pytest.mark.parametrize("path", ["/slow", "/slow-headers", "/silent"])
def test_a_download_takes_no_longer_than_it_may(path, root):
    threads, start = threading.active_count(), time.monotonic()
    assert "is not downloaded in time (max_download_seconds=0.3): raise the limit" in refusal(
        root + path, max_download_seconds=0.3
    )
    assert time.monotonic() - start < 15  # dripping, it would be a minute, and the client waits for half a one
    assert len([each for each in threading.enumerate() if isinstance(each, threading.Timer)]) == 0
    assert threading.active_count() <= threads + 1  # the server's


# --- Redirects --------------------------------------------------------------------------------------


def test_redirects_have_a_limit(root):
    start = root + "/to?to=/to%3Fto=/to%253Fto=/clip.mp4"
    assert_read(start, max_redirects=3)
    assert "redirects more than 2 times, which is max_redirects" in refusal(start, max_redirects=2)


@pytest.mark.parametrize("target", ["ftp://host/clip.mp4", "file:///etc/passwd", "data:,x", "gopher://host/"])
def test_redirects_keep_to_http(target, root):
    assert re.search(r"redirects from http to |cannot be downloaded", refusal(f"{root}/to?to={target}"))


def test_a_password_goes_to_its_own_server_alone(root, requests):
    other = root.replace("127.0.0.1", "localhost")
    locked = root.replace("://", "://joe:p%2F%20w%40rd@")
    assert_read(f"{locked}/to?to=/locked")
    assert_read(f"{locked}/to?to={root}/locked")
    assert "HTTP 401" in refusal(f"{locked}/to?to={other}/locked")
    assert [login for _, login in requests] == [LOGIN, LOGIN, LOGIN, LOGIN, LOGIN, None]


# --- Machines of private networks -------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1", "0.0.0.0", "[::ffff:127.0.0.1]"])
def test_servers_may_refuse_private_addresses(host, root, requests):
    message = refusal(root.replace("127.0.0.1", host) + "/clip.mp4", public_addresses_only=True)
    assert re.search(
        "a machine of a private network, which public_addresses_only refuses|cannot be downloaded", message
    )
    assert not requests


def test_a_redirect_to_a_private_address(root, requests, monkeypatch):
    """And a name that means another machine when it is asked for again: what counts is what is connected to."""
    public = video_download._is_public
    monkeypatch.setattr(video_download, "_is_public", lambda place: len(requests) == 0 or public(place))
    message = refusal(f"{root}/to?to=http://localhost:{root.rpartition(':')[2]}/clip.mp4", public_addresses_only=True)
    assert "a machine of a private network" in message
    assert len(requests) == 1


def test_private_addresses_are_allowed_unless_told_otherwise(root):
    assert_read(root + "/clip.mp4")


@pytest.mark.parametrize(
    ("place", "is_public"),
    [
        ("93.184.216.34", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("2606:2800:220:1::1", True),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff0e::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::", False),
    ],
)
def test_what_is_public(place, is_public):
    assert video_download._is_public(place) is is_public


# --- The clients ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "other"), [("httpx", "httpx2"), ("httpx2", "httpx")])
def test_whichever_client_is_there_serves(name, other, root, requests, monkeypatch):
    pytest.importorskip(name)
    monkeypatch.setitem(sys.modules, other, None)
    assert_read(root.replace("://", "://joe:p%2F%20w%40rd@") + "/to?to=/locked")
    assert_read(root + "/gzip")
    assert "is larger than" in refusal(root + "/bomb", max_bytes=2**20)
    assert "not downloaded in time" in refusal(root + "/slow", max_download_seconds=0.3)
    assert "not downloaded in time" in refusal(root + "/slow-headers", max_download_seconds=0.3)
    assert "redirects from http to ftp" in refusal(root + "/leaving")
    requests.clear()
    assert "a machine of a private network" in refusal(root + "/clip.mp4", public_addresses_only=True)
    assert not requests


def test_a_client_that_is_missing_is_named(root, monkeypatch):
    for name in ("httpx", "httpx2"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="needs httpx: run `pip install httpx`"):
        read_video(root + "/clip.mp4")


@pytest.mark.parametrize(
    ("content", "page", "text"),
    [
        (b"", False, False),
        (b"plain text\r\n\t", False, True),
        ("ümläut".encode() * 1000, False, True),
        (b"\xff\xfe\x00", False, False),
        (b"<html>", True, True),
        (b"\xef\xbb\xbf <!DOCTYPE HTML>", True, True),
        (b'<?xml version="1.0"?><html lang="de">', True, True),
        (b"<svg>", False, True),
        (b"<htmlx>", False, True),
    ],
)
def test_what_is_no_video(content, page, text):
    assert is_web_page(content) is page
    assert is_text(content) is text
