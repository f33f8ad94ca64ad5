"""What can go wrong in a push, each in words, and without a word of the token."""

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import pytest
from hub_pushes import (
    BASE,
    TEN,
    TWENTY,
    assert_failed,
    assert_published,
    assert_pushed,
    changing_requests,
    files_of,
    push,
    run,
)
from hub_server import Fault

from hub_upload import publisher
from hub_upload.errors import RUN_AGAIN, PushError, redact
from hub_upload.package_code import package_code

# The client's own way to send files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def test_the_hub_is_asked_again_when_it_wants_to_be(server, no_loading):
    server.fail(Fault.status(429, retry_after=7), matching="POST .*/commit/")
    server.fail(Fault.status(503), matching="whoami", times=2)
    result = push(server)
    assert_pushed(result)
    assert [wait for wait in server.waits if wait in (1, 2, 7)] == [1, 2, 7]
    assert "Checking the token: the Hub answered 503" in result.stderr
    assert "Trying again in 7 s (1 of 4)." in result.stderr


def test_a_wait_of_hours_is_not_waited(server, no_loading):
    server.fail(Fault.status(429, retry_after=7200), matching="whoami", times=None)
    assert_failed(push(server), "429 Too Many Requests", "Wait a few minutes", RUN_AGAIN.split(": ")[1])
    assert not server.waits


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "hf auth login"), (403, "write permission"), (404, "spelling"), (413, "max_shard_size"), (500, "status.")],
)
def test_each_refusal_has_its_remedy(status, remedy, server, no_loading):
    server.fail(Fault.status(status), matching="/commit/main", times=None)
    line = assert_failed(push(server), f"Publishing me/aot, branch main: the Hub answered {status}", remedy)
    assert "POST /api/models/me/aot/commit/main" in line


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"base": "no/body"}, ["Looking at the base no/body", "404 Not Found", "spelling"]),
        ({"repo_id": "you/aot"}, ["Creating you/aot", "403 Forbidden", "namespace", "another --repo-id"]),
        ({"role": "read"}, ["Creating me/aot", "403 Forbidden", "write permission"]),
        ({"base": "gated/base"}, ["gated/base", "gated", "Accept its conditions"]),
    ],
)
def test_what_the_user_got_wrong_is_named(arguments, parts, server, base_folder, no_loading):
    server.add_repo("gated/base", files_of(base_folder), gated="manual")
    assert_failed(push(server, **arguments), *parts)
    assert not [name for name in server.repositories if name.endswith("/aot")]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"base": "./missing"}, ["there is no folder ./missing", "Hub ID"]),
        ({"repo_id": "aot"}, ["--repo-id aot is no repository", "owner/name"]),
        ({"variant": "nothing"}, ["there is no variant nothing"]),
        ({"variant": "llava-onevision-7b-10-unifrom"}, ["Did you mean 'llava-onevision-7b-10-uniform'?"]),
    ],
)
def test_wrong_usage_ends_with_2_as_in_the_other_commands(arguments, parts, server, no_loading):
    assert_failed(push(server, **arguments), *parts, exit_code=2)
    assert not server.requests


def test_arguments_that_contradict_each_other_are_named(server, base_folder, tmp_path, no_loading):
    two = push(server, "--variant", TWENTY, "--revision", "x")
    assert_failed(two, "--revision x names one branch, but 2 variants", exit_code=2)
    of_folder = push(server, "--base-revision", "x", base=base_folder)
    assert_failed(of_folder, "--base-revision x is for a base on the Hub", exit_code=2)
    assert_failed(run("--variant", TEN), "--repo-id is missing", "--output", exit_code=2)
    assert_failed(run("--variant", TEN, "--repo-id", "me/aot", token=""), "there is no token", "hf auth login")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert_failed(run("--variant", TEN, "--output", tmp_path / "full"), "is not empty", "--overwrite")
    nothing = run("--variant", "nothing", "--repo-id", "me/aot", token="")
    assert_failed(nothing, "there is no variant nothing", exit_code=2)


def test_an_output_that_cannot_be_written_is_named_before_the_base_is_looked_at(server, tmp_path, no_loading):
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "variant"
    result = run("--variant", TEN, "--output", output)
    assert_failed(result, f"--output {output} cannot be written", "another folder", exit_code=2)
    assert not server.requests
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"config.json": '{"model_type": "qwen2"}'}, ["qwen2", "LLaVA-OneVision"]),
        ({"config.json": '{"model_type": "qwen3_vl"}'}, ["qwen3_vl", "experimental", "save_pretrained"]),
        ({"config.json": '{"model_type": "qwen2_vl"}'}, ["qwen2_vl", "experimental", "save_pretrained"]),
        ({"config.json": '{"model_type": "aot_qwen3_vl_moe"}'}, ["aot_qwen3_vl_moe", "not published"]),
        ({"config.json": '{"model_type": "aot_qwen2_5_vl"}'}, ["aot_qwen2_5_vl", "not published"]),
        ({"config.json": "{"}, ["config.json of", "is not JSON"]),
        ({"config.json": None}, ["has no config.json"]),
        ({"README.md": "---\na: [\n---\n"}, ["metadata in README.md", "cannot be read", "correct it"]),
        (
            {"tokenizer_config.json": '{"auto_map": {"AutoTokenizer": ["evil/repo--code.Tokenizer", null]}}'},
            ["tokenizer_config.json of", "names code of its own", "evil/repo--code.Tokenizer"],
        ),
        (
            {"processor_config.json": '{"image_processor": {"auto_map": {"AutoImageProcessor": "code.Images"}}}'},
            ["processor_config.json of", "code.Images"],
        ),
        ({"model-00002-of-00004.safetensors": None}, ["is incomplete", "model-00002-of-00004.safetensors"]),
        ({"*.safetensors": None}, ["has no weights"]),
        (
            {"*.safetensors": None, "pytorch_model.bin": "x"},
            ["pickles alone", "save_pretrained", "safetensors/convert"],
        ),
    ],
)
def test_a_base_that_cannot_be_published_is_refused(change, parts, server, base_folder, tmp_path, no_loading):
    base = tmp_path / "base"
    shutil.copytree(base_folder, base)
    for name, content in change.items():
        for path in [*base.glob(name)]:
            path.unlink()
        if content is not None:
            (base / name).write_text(content)
    assert_failed(push(server, base=base), str(base), *parts)
    assert not changing_requests(server)


def test_a_wrong_value_is_found_before_anything_moves(server, tmp_path):
    """The check is the config's own, in a fresh process."""
    variant = tmp_path / "mine.json"
    variant.write_text(json.dumps({"base_model": BASE, "num_frames": 32, "num_anchors": 730}))
    result = push(server, variant=variant)
    assert_failed(result, "variant mine: `num_anchors` is 730", "from 1 to 729, the patches of a frame")
    assert not changing_requests(server)


def test_a_variant_for_another_base_is_pointed_out(server, no_loading):
    result = push(server, variant="llava-onevision-0.5b-10-uniform")
    assert_pushed(result)
    assert "was made for llava-hf/llava-onevision-qwen2-0.5b-ov-hf" in result.stderr


def test_what_does_not_load_after_the_push_is_said_to_be_published(server, no_loading, monkeypatch):
    """The one failure that comes too late to keep it from the Hub."""

    def load_without_weights(checkpoints, _):
        raise PushError(f"{checkpoints[0].name}: OSError: it did not come down")

    with monkeypatch.context() as patch:
        patch.setattr(publisher, "load_without_weights", load_without_weights)
        assert_failed(push(server), "me/aot, branch main, was published but does not load: OSError: it did not come")
    result = push(server)
    assert_pushed(result)
    assert "was there already" in result.output


def test_damage_on_the_hub_is_found_after_the_push(server, no_loading):
    server.fail(
        Fault.wrong_hash(), matching=lambda request: re.search("revision/[0-9a-f]{40}$", request.path), times=None
    )
    line = assert_failed(push(server), "was published but has another content than it should in model-00001-of-00004")
    assert line.endswith("run the same command again, which replaces what is wrong.")


def test_a_download_that_is_damaged_is_downloaded_again(server, base_folder, no_loading, monkeypatch):
    monkeypatch.setattr(publisher, "can_copy_between_repositories", lambda: False)
    damaged = server.fail(Fault.damaged_bytes(), matching="GET /storage/download")
    result = push(server)
    assert_pushed(result)
    assert damaged.fired == 1
    assert "arrived damaged" in result.stderr
    assert_published(server, base_folder)


def test_a_file_that_was_edited_in_the_cache_is_left_there(server, no_loading, monkeypatch):
    monkeypatch.setattr(publisher, "can_copy_between_repositories", lambda: False)
    assert_pushed(push(server))
    (weights, *_) = Path(huggingface_hub.constants.HF_HUB_CACHE).rglob("snapshots/*/model-00001-of-00004.safetensors")
    edited = weights.read_bytes()[:-4] + b"mine"
    weights.resolve().write_bytes(edited)
    line = assert_failed(push(server, repo_id="me/another"), "huggingface_hub's cache", "was changed or damaged there")
    assert weights.resolve().name in line
    assert weights.read_bytes() == edited


def test_somebody_elses_commit_in_between_is_not_lost(server, base_folder, no_loading):
    """The branch moves between the look at it and the commit: the Hub refuses, and everything is looked at again."""
    assert_pushed(push(server))
    server.commit("me/aot", {"token_budget.py": "old"}, title=server.history("me/aot")[0].title)
    create_commit = huggingface_hub.HfApi.create_commit
    with pytest.MonkeyPatch.context() as monkeypatch:

        def commit_late(*arguments, **options):
            monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", create_commit)
            server.commit("me/aot", {"results.csv": "theirs"})
            return create_commit(*arguments, **options)

        monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", commit_late)
        result = push(server)
    assert_pushed(result)
    assert "412 Precondition Failed" in result.stderr
    tree = server.tree("me/aot")
    assert "results.csv" in tree
    assert server.read("me/aot", "token_budget.py") == package_code()["token_budget.py"]


def test_control_c_publishes_nothing_half(server, no_loading, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.HfApi, "create_commit", interrupted)
        result = push(server)
    assert result.exit_code == 130
    assert "every branch is as it was or complete. Run the same command again" in result.stderr
    assert set(server.tree("me/aot")) == {".gitattributes"}
    assert_pushed(push(server))


def test_offline_mode_is_named(server, no_loading, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.utils.close_session()
    assert_failed(push(server), "HF_HUB_OFFLINE is set", "Unset it")
    huggingface_hub.utils.close_session()


# The token


def test_a_hub_that_repeats_the_token_does_not_make_us_repeat_it(server, no_loading):
    token = server.token("me")
    server.fail(Fault.status(403, f"{token} may not"), matching="/commit/", times=None)
    line = assert_failed(push(server), "403 Forbidden (*** may not)")
    assert token not in line


def test_what_looks_like_a_token_is_hidden_too():
    text = "Bearer hf_abcdefghijklmnopqrstuvwxyz0123 and hf_hub_download"
    assert redact(text, None) == "Bearer *** and hf_hub_download"


def test_a_token_with_a_line_break_is_not_shown(server, no_loading):
    line = assert_failed(run("--variant", TEN, "--repo-id", "me/aot", "--token", "hf_abc\nhf_def"), "copy it again")
    assert "abc" not in line
