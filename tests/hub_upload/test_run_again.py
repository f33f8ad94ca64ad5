"""That the same command may be run again is said where that helps, and only there."""

import huggingface_hub
import pytest
from hub_pushes import assert_failed, push
from hub_server import Fault

from hub_upload.errors import printable

# The client's own way to send files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

AGAIN = "un the same command again"


@pytest.mark.parametrize(
    ("status", "helps"),
    [
        *((status, False) for status in (400, 401, 402, 403, 404, 405, 410, 413, 451, 501)),
        *((status, True) for status in (408, 409, 412, 422, 429, 500, 502, 503, 504)),
    ],
)
def test_an_answer_of_the_hub(status, helps, small_server, no_loading):
    small_server.fail(Fault.status(status), matching="/commit/main", times=None)
    line = assert_failed(push(small_server), f"the Hub answered {status}")
    assert (AGAIN in line) == helps


def test_bytes_that_arrive_damaged(small_server, small_base, no_loading):
    small_server.fail(Fault.damaged_bytes(), matching="PUT /storage/upload")
    assert AGAIN in assert_failed(push(small_server, base=small_base), "BadDigest")


@pytest.mark.parametrize(
    "error", [ValueError("no such thing"), FileNotFoundError(2, "gone"), PermissionError(13, "no")]
)
def test_what_is_wrong_on_this_machine(error, small_server, no_loading, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", fail)
    line = assert_failed(push(small_server), "Publishing me/aot, branch main:", str(error))
    assert AGAIN not in line


def test_what_would_steer_a_terminal_is_shown(small_server, no_loading):
    name = "\x1b]0;title\x07\x1b[2J.txt"
    assert printable(f"a\n{name}\u202e") == "a\n\\x1b]0;title\\x07\\x1b[2J.txt\\u202e"
    base = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
    small_server.hub.add_files(small_server.repository(base), "main", {name: "x"}, "add")
    result = push(small_server)
    assert "\\x1b[2J.txt" in result.output
    assert "\x1b" not in result.output
