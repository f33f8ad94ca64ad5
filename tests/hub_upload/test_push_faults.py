"""A fault at every request of a push in turn: what is on the Hub is as it was or complete."""

import json
import re

import pytest
from hub_pushes import (
    BASE,
    TWENTY,
    assert_failed,
    assert_pushed,
    leave_out_loading,
    new_hub,
    push,
)
from hub_server import Fault

# The client's own way to send files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def states_of(server):
    """What whoever loads a branch sees."""
    if "me/aot" not in server.repositories:
        return {}
    return {branch: server.tree("me/aot", branch) for branch in server.branches("me/aot")}


WAYS = {
    "set": lambda server, base: push(server, "--variant", TWENTY),
    "copy": lambda server, base: push(server),
    "upload": lambda server, base: push(server, "--revision", TWENTY, base=base, variant=TWENTY),
}


@pytest.fixture(scope="module")
def whole(small_base, tmp_path_factory):
    """The branches after an undisturbed push, by way."""
    states = {}
    for way, push_in_way in WAYS.items():
        with new_hub(small_base, tmp_path_factory.mktemp("cache")) as server, pytest.MonkeyPatch.context() as patch:
            leave_out_loading(patch)
            assert_pushed(push_in_way(server, small_base))
            states[way] = states_of(server)
    return states


# The way, the fault, how often it happens from one request on (None: for good), and the cause that the message names.
FAULTS = {
    "a set, 500": ("set", Fault.status(500), None, "500 Internal Server Error"),
    "a set, lost answer": ("set", Fault.cut(), 1, "never"),
    "copy, 429": ("copy", Fault.status(429, retry_after=7), None, "429 Too Many Requests"),
    "copy, dropped": ("copy", Fault.drop(), None, "connection to the Hub failed"),
    "copy, 401": ("copy", Fault.status(401), None, "401 Unauthorized .Invalid credentials in Authorization header"),
    "copy, wrong hash": (
        "copy",
        Fault.wrong_hash(),
        1,
        "another content|pointed to a file that does not exist|arrived damaged",
    ),
    "upload, 500 once": ("upload", Fault.status(500), 1, "never"),
    "upload, 429 once": ("upload", Fault.status(429, retry_after=7), 1, "never"),
    "upload, 409 once": ("upload", Fault.status(409), 1, "never"),
    "upload, dropped once": ("upload", Fault.drop(), 1, "never"),
    "upload, 401": (
        "upload",
        Fault.status(401),
        None,
        "401 Unauthorized .Invalid credentials in Authorization header",
    ),
    "upload, wrong hash": ("upload", Fault.wrong_hash(), 1, "another content|did not understand the Hub's answer"),
    "upload, damaged bytes": ("upload", Fault.damaged_bytes(), 1, "BadDigest"),
}


@pytest.mark.parametrize(("way", "fault", "times", "cause"), FAULTS.values(), ids=FAULTS)
def test_a_fault_at_any_request_publishes_nothing_half(
    way, fault, times, cause, small_base, whole, tmp_path, no_loading
):
    push_in_way = WAYS[way]
    for number in range(1, 100):
        with new_hub(small_base, tmp_path / str(number)) as server:
            planned = server.fail(fault, at=number, times=times)
            result = push_in_way(server, small_base)
            if not planned.fired:
                assert_pushed(result)
                break
            assert_nothing_is_half(server, whole[way])
            if result.exit_code != 0:
                assert re.search(cause, assert_failed(result))
            assert times == 1 or result.exit_code == 1
            server.clear()
            assert_pushed(push_in_way(server, small_base))
            assert states_of(server) == whole[way], f"after a fault at request {number}"
    assert number > 10


def assert_nothing_is_half(server, whole):
    for branch, files in states_of(server).items():
        assert set(files) == {".gitattributes"} or files == whole[branch]


def test_an_update_is_seen_whole_or_not_at_all(small_base, tmp_path, no_loading):
    variant = tmp_path / "mine.json"
    seen = []
    for number in range(1, 100):
        with new_hub(small_base, tmp_path / str(number)) as server:
            variant.write_text(json.dumps({"base_model": BASE, "num_frames": 32}))
            assert_pushed(push(server, variant=variant))
            old = server.tree("me/aot")
            variant.write_text(json.dumps({"base_model": BASE, "num_frames": 64, "retention_ratio": 0.2}))
            server.clear()
            planned = server.fail(Fault.status(500), at=number, times=None)
            push(server, variant=variant)
            seen.append(server.tree("me/aot") == old)
            server.clear()
            assert_pushed(push(server, variant=variant))
            new = server.tree("me/aot")
            assert {path for path in new if new[path] != old[path]} == {
                "README.md",
                "config.json",
                "processor_config.json",
            }
            if not planned.fired:
                break
    assert seen == sorted(seen, reverse=True), "old until one request, new from there on"
    assert seen[0]
    assert not seen[-1]
