"""Pushing to the tests' Hub in this process: the base, the command, and what is expected of it."""

import hashlib
import re
from contextlib import contextmanager

import huggingface_hub
import pytest
from hub_server import HubServer, retry_at_once, use_in_this_process
from typer.testing import CliRunner

from aot_llava_cli.__main__ import app
from hub_upload import hub as hub_module
from hub_upload import publisher
from hub_upload import push as push_module
from hub_upload.operating_point import OperatingPoint
from hub_upload.package_code import package_code

BASE = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
CARD = "---\nlicense: apache-2.0\nlanguage:\n- en\n- zh\npipeline_tag: image-text-to-text\n---\n# The base\n"
TEN, TWENTY = "llava-onevision-7b-10-uniform", "llava-onevision-7b-20-uniform"
POINT = OperatingPoint(32, 6272, 627, 1, 1, True, 28, 3584, 18944)


def files_of(folder):
    return {path.name: path for path in folder.iterdir()}


def tree(folder):
    """The content of every file, or where it links to."""
    paths = [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return {path: path.readlink() if path.is_symlink() else path.read_bytes() for path in paths}


def weights_of(folder):
    """The sha256 of every file with weights."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


@contextmanager
def new_hub(base_folder, cache):
    """A Hub with the base on it, which this process talks to, without waiting and with a cache of its own."""
    with HubServer() as server, pytest.MonkeyPatch.context() as monkeypatch:
        use_in_this_process(server, monkeypatch)
        waits = retry_at_once(monkeypatch)
        monkeypatch.setattr(hub_module, "time", huggingface_hub.utils._http.time)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(cache / "no-token"))
        server.waits = waits
        server.add_repo(BASE, files_of(base_folder))
        yield server


def leave_out_loading(monkeypatch):
    """Leaves out the fresh process that imports torch, where it is not what is tested; returns what it was asked."""
    asked = []

    def load_without_weights(checkpoints, api):
        asked.extend(checkpoints)
        return [POINT] * len(checkpoints)

    for module in (push_module, publisher):
        monkeypatch.setattr(module, "load_without_weights", load_without_weights)
    return asked


def run(*arguments, token="hf_me_write_secret"):
    """Runs `aot-llava push` in this process."""
    arguments = ["push", *map(str, arguments)]
    return CliRunner().invoke(app, arguments, prog_name="aot-llava", env={"HF_TOKEN": token})


def push(server, *arguments, base=BASE, variant=TEN, repo_id="me/aot", role="write"):
    """Pushes the 10 % variant of the base to me/aot, unless told otherwise."""
    arguments = ["--base", base, "--variant", variant, "--repo-id", repo_id, *arguments]
    result = run(*arguments, token=server.token("me", role))
    assert not re.search(r"hf_me_\w+_secret|Traceback", result.output)
    return result


def assert_failed(result, *parts, exit_code=1):
    """It ended with one line on stderr that has these parts."""
    assert result.exit_code == exit_code, result.output
    last_line = result.stderr.splitlines()[-1]
    for part in ("aot-llava: ", *parts):
        assert part in last_line
    return last_line


def assert_pushed(result):
    assert result.exit_code == 0, result.output


def changing_requests(server):
    return [request for request in server.requests if request.method not in ("GET", "HEAD")]


def assert_published(server, base_folder, branch="main"):
    """me/aot has the base's files and weights, and the package's code."""
    files = server.tree("me/aot", branch)
    assert {path: files[path] for path in files if path.endswith(".safetensors")} == weights_of(base_folder)
    assert set(files) == {*files_of(base_folder), *package_code(), ".gitattributes"}
