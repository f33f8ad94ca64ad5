"""Publishing variants: on a Hub over HTTP, with everything that can go wrong there, and to a folder."""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from hub_pushes import (
    BASE,
    TEN,
    TWENTY,
    assert_failed,
    assert_pushed,
    changing_requests,
    files_of,
    leave_out_loading,
    new_hub,
    push,
    run,
    tree,
    weights_of,
)
from hub_server import Fault, HubServer, environment, use_in_this_process
from random_checkpoint import random_model, random_processor
from safetensors import safe_open

from aot_llava_cli.mini import MINI_CLIP
from hub_upload import placing, publisher
from hub_upload.errors import RUN_AGAIN, PushError, redact
from hub_upload.model_card import usage_code
from hub_upload.output_marker import MARKER
from hub_upload.package_code import package_code
from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor

ROOT = Path(__file__).parents[2]

copies_between_repositories = pytest.mark.skipif(
    not publisher.can_copy_between_repositories(),
    reason=f"huggingface_hub {huggingface_hub.__version__} copies within one repository only",
)

# The client's own way to send files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


# The whole way, in processes that know nothing of these tests


@pytest.fixture(scope="module")
def published(base_folder, tmp_path_factory):
    """A folder of two variants pushed by `python -m hub_upload`, and what is told about it."""
    folder = tmp_path_factory.mktemp("published")
    variants = folder / "variants"
    variants.mkdir()
    for name in (TWENTY, TEN):
        shutil.copy(ROOT / f"configuration/{name}.json", variants)
    # torch must not be imported; the program's own exit code is 0.
    program = (
        "import runpy, sys\n"
        "sys.argv[0] = 'hub_upload'\n"
        "try:\n"
        "    runpy.run_module('hub_upload', run_name='__main__', alter_sys=True)\n"
        "finally:\n"
        "    assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    with HubServer() as server:
        server.add_repo(BASE, files_of(base_folder))
        token = server.token("me")
        arguments = ["--base", BASE, "--variant", str(variants), "--repo-id", "me/aot", "--token", token]
        process = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            check=False,
            capture_output=True,
            cwd=ROOT,
            encoding="utf-8",
            env={**os.environ, **environment(server, folder), "PYTHONIOENCODING": "utf-8"},
        )
        assert process.returncode == 0, process.stderr
        assert token not in process.stdout + process.stderr
        server.output = process.stdout
        server.pushed_with = server.requests
        yield server


@copies_between_repositories
def test_in_the_copy_way_no_weights_cross_the_wire(published, base_folder):
    assert "the Hub copies the weights itself" in published.output
    assert published.large_bytes_uploaded() == 0
    assert published.bytes_downloaded("*.safetensors") < 50_000, "their headers alone"
    assert set(published.stored_blobs) == set(weights_of(base_folder).values())


def test_every_variant_has_a_branch_and_main_is_the_papers_default(published, base_folder):
    assert set(published.branches("me/aot")) == {"main", TEN, TWENTY}
    for branch in published.branches("me/aot"):
        config = json.loads(published.read("me/aot", "config.json", branch))
        processor_config = json.loads(published.read("me/aot", "processor_config.json", branch))
        variant = json.loads((ROOT / f"configuration/{TEN if branch == 'main' else branch}.json").read_text())
        assert variant.pop("base_model") == config["aot_base_model"] == BASE
        assert variant.pop("num_frames") == processor_config["num_frames"] == 32
        assert {name: config[name] for name in variant} == variant
        assert config["aot_base_revision"] == published.branches(BASE)["main"]
        assert processor_config["retention_ratio"] == variant["retention_ratio"]
        assert len(published.history("me/aot", branch)) == 2, "it was one commit"


def test_the_weights_are_the_bases_and_the_code_is_the_packages(published, base_folder):
    for branch in published.branches("me/aot"):
        tree = published.tree("me/aot", branch)
        assert {path: tree[path] for path in tree if path.endswith(".safetensors")} == weights_of(base_folder)
        code = {path: published.read("me/aot", path, branch) for path in tree if path.endswith(".py")}
        assert code == package_code()
        expected = {*files_of(base_folder), *code, ".gitattributes"}
        assert set(tree) == expected


def test_it_ends_with_the_address_and_three_lines_that_load_it(published):
    *_, address, _, imports, model, processor = published.output.splitlines()
    assert address == f"{published.endpoint}/me/aot"
    assert imports.startswith("from transformers import")
    assert model == 'model = AutoModelForImageTextToText.from_pretrained("me/aot", trust_remote_code=True)'
    assert processor == 'processor = AutoProcessor.from_pretrained("me/aot", trust_remote_code=True)'
    assert "Verified" in published.output


def test_the_token_is_in_no_published_file(published):
    for branch in published.branches("me/aot"):
        for path in published.tree("me/aot", branch):
            assert b"hf_me_write" not in published.read("me/aot", path, branch)


RUN_CARDS = """
import json, re, sys
for name in ("modeling_aot_llava", "hub_upload", "aot_llava_cli"):
    sys.modules[name] = None  # importing them fails, also where the project is installed
results, sys.stdout = sys.stdout, sys.stderr
for card in sys.argv[1:]:
    with open(card, encoding="utf-8") as file:
        code = re.search(r"```python\\n(.*?)```", file.read(), re.DOTALL)[1]
    scope = {}
    exec(code, scope)
    model, inputs = scope["model"], scope["inputs"]
    placeholders = int((inputs["input_ids"] == model.config.video_token_id).sum())
    generated = scope["output"].shape[1] - inputs["input_ids"].shape[1]
    print(json.dumps([type(model).__module__, placeholders, generated]), file=results)
"""


@pytest.fixture(scope="module")
def answers(published, base_folder, tmp_path_factory):
    """What the cards' code answers in a fresh process with empty caches, by name: modules, placeholders, tokens."""
    folder = tmp_path_factory.mktemp("answers")
    shutil.copy(MINI_CLIP, folder / "clip.mp4")
    codes = {
        "main": published.read("me/aot", "README.md").decode(),
        "twenty": published.read("me/aot", "README.md", TWENTY).decode(),
        "folder": write_old_style_base(base_folder, folder),
        "from Python": push_from_python(published),
    }
    cards = [folder / f"{name}.md" for name in codes]
    for card, code in zip(cards, codes.values()):
        card.write_text(code, encoding="utf-8")
    process = subprocess.run(
        [sys.executable, "-c", RUN_CARDS, *map(str, cards)],
        check=False,
        capture_output=True,
        cwd=folder,
        encoding="utf-8",
        env={
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            **environment(published, folder / "home"),
            "OMP_NUM_THREADS": "1",
            "PYTHONIOENCODING": "utf-8",
        },
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return dict(zip(codes, map(json.loads, process.stdout.splitlines())))


def write_old_style_base(base_folder, folder):
    """Writes the folder of a variant whose base has the processor files of transformers 4; returns its card."""
    old = folder / "old"
    shutil.copytree(base_folder, old)
    new_style = json.loads((old / "processor_config.json").read_text())
    (old / "preprocessor_config.json").write_text(json.dumps(new_style.pop("image_processor")))
    (old / "video_preprocessor_config.json").write_text(json.dumps(new_style.pop("video_processor")))
    del new_style["num_image_tokens"]
    (old / "processor_config.json").write_text(json.dumps(new_style))
    output = folder / "output"
    with pytest.MonkeyPatch.context() as monkeypatch:
        leave_out_loading(monkeypatch)
        assert_pushed(run("--base", old, "--variant", TEN, "--output", output))
    return (output / "README.md").read_text()


def push_from_python(server):
    """`push_to_hub` of model and processor; returns the code that loads what they pushed."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_in_this_process(server, monkeypatch)
        model = random_model(AOTLlavaOnevisionForConditionalGeneration)
        model.push_to_hub("me/from-python", token=server.token("me"))
        processor = random_processor(AOTLlavaOnevisionProcessor, model.config)
        processor.push_to_hub("me/from-python", token=server.token("me"))
    return f"```python\n{usage_code('me/from-python')}\n```"


@pytest.mark.parametrize(
    ("name", "placeholders"), [("main", 627 + 1), ("twenty", 1254 + 1), ("folder", 627 + 1), ("from Python", 627 + 1)]
)
def test_the_cards_code_runs_as_printed_where_this_project_is_not(name, placeholders, answers):
    module, counted, generated = answers[name]
    assert module.startswith("transformers_modules.")
    assert counted == placeholders
    assert 1 <= generated <= 100


def test_push_to_hub_publishes_the_code_too(answers, published):
    tree = published.tree("me/from-python")
    assert {path: published.read("me/from-python", path) for path in tree if path.endswith(".py")} == package_code()


# The ways


@copies_between_repositories
def test_a_dry_run_tells_everything_and_changes_nothing(server, no_loading):
    result = push(server, "--dry-run", variant=ROOT / "configuration")
    assert_pushed(result)
    for part in (
        f"Base      {BASE} at commit {server.branches(BASE)['main']}",
        "Target    me/aot, new and public",
        "the Hub copies the weights itself: none pass through this machine",
        f"main = {TEN}: 6,272 → 627 video tokens of 32 frames, prefill 40.8 TFLOPs → 3.4 TFLOPs",
        "copied on the Hub: 4 files, 1.8 MB",
        "copied within the repository: 36 files",
        "Dry run: nothing was changed.",
    ):
        assert part in result.output
    assert re.search(r"model-00001-of-00004.safetensors +\d+ kB", result.output)
    assert not changing_requests(server)
    assert server.repositories == [BASE]


def test_a_dry_run_needs_no_token(server, no_loading):
    assert_pushed(run("--base", BASE, "--variant", TEN, "--repo-id", "me/aot", "--dry-run", token=""))
    assert not any(request.is_authorized for request in server.requests)


def test_the_base_is_by_default_what_the_variant_was_made_for(server, no_loading):
    result = run("--variant", TEN, "--repo-id", "me/aot", token=server.token("me"))
    assert_pushed(result)
    assert f"Base      {BASE}" in result.output


def test_a_local_base_is_uploaded_once_for_all_branches(server, base_folder, no_loading):
    result = push(server, "--variant", TWENTY, base=base_folder)
    assert_pushed(result)
    assert "the weights are uploaded from the folder, once" in result.output
    sizes = [path.stat().st_size for path in base_folder.glob("*.safetensors")]
    assert server.large_bytes_uploaded() == sum(sizes)
    assert set(server.branches("me/aot")) == {"main", TEN, TWENTY}
    assert json.loads(server.read("me/aot", "config.json"))["aot_base_revision"] is None


@copies_between_repositories
@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"region": "eu"}, "storage region eu"),
        ({"is_on_xet": False}, "has no xet hash"),
    ],
)
def test_where_the_hub_does_not_copy_the_weights_are_uploaded(properties, reason, server, base_folder, no_loading):
    server.add_repo("far/base", files_of(base_folder), **properties)
    result = push(server, base="far/base")
    assert_pushed(result)
    assert "does not copy from far/base" in result.output
    assert reason in result.output
    assert "1.8 MB are downloaded" in result.output
    assert_published(server, base_folder)
    assert server.large_bytes_uploaded() > 1_700_000


@copies_between_repositories
@pytest.mark.parametrize("status", [400, 403, 404, 501])
def test_where_the_hub_refuses_to_copy_the_weights_are_uploaded(status, server, base_folder, no_loading):
    server.fail(Fault.status(status), matching="lfs-files/duplicate")
    result = push(server)
    assert_pushed(result)
    assert f"the Hub answered {status}" in result.output
    assert_published(server, base_folder)


def test_a_huggingface_hub_that_cannot_copy_uploads(server, base_folder, no_loading, monkeypatch):
    monkeypatch.setattr(publisher, "can_copy_between_repositories", lambda: False)
    result = push(server)
    assert_pushed(result)
    assert "this huggingface_hub cannot copy between repositories (update it)" in result.output
    assert "downloaded and uploaded: 9 files" in result.output
    assert_published(server, base_folder)
    assert not server.requests_to("lfs-files/duplicate")


def assert_published(server, base_folder, branch="main"):
    tree = server.tree("me/aot", branch)
    assert {path: tree[path] for path in tree if path.endswith(".safetensors")} == weights_of(base_folder)
    assert set(tree) == {*files_of(base_folder), *package_code(), ".gitattributes"}


def test_one_variant_can_go_to_a_branch_of_its_own(server, base_folder, no_loading):
    result = push(server, "--revision", "ten", "--private")
    assert_pushed(result)
    assert_published(server, base_folder, "ten")
    assert set(server.tree("me/aot")) == {".gitattributes"}
    assert server.repository("me/aot").private
    assert f"{server.endpoint}/me/aot/tree/ten" in result.output
    assert 'from_pretrained("me/aot", revision="ten", trust_remote_code=True)' in result.output


def test_a_new_branch_beside_another_model_starts_empty(server, base_folder, no_loading):
    server.add_repo("me/aot", {"config.json": '{"model_type": "gpt2"}', "vocab.txt": "a"})
    assert_pushed(push(server, "--revision", "ten"))
    assert_published(server, base_folder, "ten")
    assert "vocab.txt" in server.tree("me/aot")


def test_the_revision_of_the_base_is_pinned(server, base_folder, no_loading):
    first = server.branches(BASE)["main"]
    server.commit(BASE, {"generation_config.json": '{"max_length": 7}'})
    assert_pushed(push(server, "--base-revision", first))
    assert json.loads(server.read("me/aot", "config.json"))["aot_base_revision"] == first
    assert server.read("me/aot", "generation_config.json") == (base_folder / "generation_config.json").read_bytes()
    assert f"tree/{first}" in server.read("me/aot", "README.md").decode()
    assert first[:7] in server.history("me/aot")[0].title


def test_only_what_a_model_needs_is_taken_from_the_base(server, base_folder, no_loading):
    server.commit(
        BASE,
        {
            "modeling_evil.py": "raise SystemExit",
            "pytorch_model.bin": b"pickle",
            "pytorch_model.bin.index.json": "{}",
            "onnx/model.onnx": b"\0",
            "checkpoint-5/model.safetensors": b"\0",
            "picture.png": b"\0",
            "LICENSE": "Apache",
            "additional_chat_templates/tool.jinja": "{{ messages }}",
        },
    )
    result = push(server)
    assert_pushed(result)
    added = {"LICENSE", "additional_chat_templates/tool.jinja"}
    assert set(server.tree("me/aot")) == {*files_of(base_folder), *package_code(), *added, ".gitattributes"}
    assert re.search(r"left out: checkpoint-5/model.safetensors, modeling_evil.py, onnx/model.onnx, .*", result.output)


def test_a_file_that_only_the_target_keeps_in_lfs_is_recognised(server, no_loading):
    server.commit(BASE, {"spiece.model": "small"})
    server.hub.repositories[BASE].commits[server.branches(BASE)["main"]].files["spiece.model"] = server.hub.add_file(
        server.repository(BASE), "spiece.txt", "small"
    )
    assert_pushed(push(server))
    assert server.files("me/aot")["spiece.model"].is_lfs
    server.clear()
    assert "was there already" in push(server).output


# Again


def test_a_second_push_changes_nothing(server, no_loading):
    assert_pushed(push(server, "--variant", TWENTY))
    branches = server.branches("me/aot")
    server.clear()
    result = push(server, "--variant", TWENTY)
    assert_pushed(result)
    assert result.output.count("was there already") == 3
    assert "In all    already there" in result.output
    assert not changing_requests(server)
    assert server.branches("me/aot") == branches
    assert [checkpoint.revision for checkpoint in no_loading[-3:]] == list(branches.values())


def test_an_update_moves_only_what_changed(server, tmp_path, no_loading):
    variant = tmp_path / "mine.json"
    variant.write_text(json.dumps({"base_model": BASE, "num_frames": 32}))
    assert_pushed(push(server, variant=variant))
    title = server.history("me/aot")[0].title
    server.commit("me/aot", {"frame_clips.py": "old", "gone.py": "old"}, title=title)
    server.commit("me/aot", {"results.json": "mine", "handler.py": "mine"})
    variant.write_text(json.dumps({"base_model": BASE, "num_frames": 64}))
    server.clear()
    result = push(server, variant=variant)
    assert_pushed(result)
    assert "uploaded: 2 files" in result.output
    assert "deleted: gone.py" in result.output
    tree = server.tree("me/aot")
    assert "gone.py" not in tree
    assert {"results.json", "handler.py"} <= set(tree), "what this command did not write is the publisher's own"
    assert json.loads(server.read("me/aot", "processor_config.json"))["num_frames"] == 64
    assert not server.requests_to("lfs")


def other_shard(base_folder):
    """Name and bytes of the first shard after a training: the last weight is another."""
    shard = sorted(weights_of(base_folder))[0]
    return shard, (base_folder / shard).read_bytes()[:-1] + b"\x01"


def test_a_newer_base_updates_the_variant(server, base_folder, tmp_path, no_loading):
    assert_pushed(push(server))
    shard, content = other_shard(base_folder)
    server.commit(BASE, {shard: content})
    assert_pushed(push(server))
    assert server.tree("me/aot")[shard] == hashlib.sha256(content).hexdigest()


# What is not overwritten


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"config.json": '{"model_type": "gpt2"}'}, "already holds a gpt2 model"),
        ({"config.json": "{"}, "already holds a None model"),
        ({"README.md": "Mine"}, "is not empty and holds no model (but README.md)"),
        (
            {"config.json": '{"model_type": "aot_llava_onevision", "aot_base_model": "some/other"}'},
            f"holds an AOT variant of some/other, not of {BASE}",
        ),
        ({"config.json": '{"model_type": "aot_llava_onevision"}'}, f"AOT variant of another base, not of {BASE}"),
    ],
)
def test_what_is_no_variant_of_the_base_is_overwritten_only_on_demand(files, reason, server, base_folder, no_loading):
    commit = server.add_repo("me/aot", {**files, "other.txt": "other"})
    assert_failed(
        push(server), "me/aot, branch main", reason.replace("README.md", "README.md, other.txt"), "--overwrite"
    )
    assert_failed(push(server, "--dry-run"), "--overwrite")
    assert server.branches("me/aot")["main"] == commit
    result = push(server, "--overwrite")
    assert_pushed(result)
    assert "deleted: other.txt" in result.output
    assert_published(server, base_folder)


def test_a_variant_of_another_local_base_is_not_overwritten(server, base_folder, tmp_path, no_loading):
    assert_pushed(push(server, base=base_folder))
    other = tmp_path / "other"
    shutil.copytree(base_folder, other)
    shard = other / sorted(weights_of(base_folder))[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    assert_failed(push(server, base=other), f"holds an AOT variant of {BASE}, not of {other}")
    assert_pushed(push(server, base=base_folder))


def test_a_variant_that_was_pushed_from_python_is_recognised_by_its_weights(server, tmp_path, no_loading):
    model = random_model(AOTLlavaOnevisionForConditionalGeneration)
    model.save_pretrained(tmp_path / "saved")
    processor = random_processor(AOTLlavaOnevisionProcessor, model.config)
    processor.save_pretrained(tmp_path / "saved")
    server.add_repo("me/aot", files_of(tmp_path / "saved"))
    assert_pushed(push(server, base=tmp_path / "saved"))


# Faults at every request in turn


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


# Single failures, in words


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


# To a folder


def test_a_folder_is_written_whole(server, base_folder, tmp_path, no_loading):
    output = tmp_path / "new" / "variant"
    result = run("--base", base_folder, "--variant", TEN, "--output", output, token="")
    assert_pushed(result)
    assert not server.requests
    assert {path.name for path in output.iterdir()} == {*files_of(base_folder), *package_code(), MARKER}
    assert json.loads((output / MARKER).read_text())["variant"] == TEN
    assert weights_of(output) == weights_of(base_folder)
    assert "Copying: 100%" in result.stderr
    shard = sorted(weights_of(base_folder))[0]
    with safe_open(output / shard, "pt") as weights:
        assert list(weights.keys())
    assert f'from_pretrained("{output}", trust_remote_code=True)' in result.output
    assert [path.name for path in output.parent.iterdir()] == ["variant"]


def test_a_base_on_the_hub_can_be_written_to_a_folder(server, base_folder, tmp_path, no_loading):
    output = tmp_path / "variants"
    arguments = ["--base", BASE, "--variant", TEN, "--variant", TWENTY, "--repo-id", "me/aot", "--output", output]
    result = run(*arguments, token="")
    assert_pushed(result)
    assert sorted(path.name for path in output.iterdir()) == [TEN, TWENTY]
    assert weights_of(output / TWENTY) == weights_of(base_folder)
    # Each may be made anew, and what lies beside them is not touched.
    (output / "notes.txt").write_text("mine")
    assert_failed(run(*arguments, token=""), TEN, "is not empty", "--overwrite")
    assert_pushed(run(*arguments, "--overwrite", token=""))
    assert sorted(path.name for path in output.iterdir()) == [TEN, TWENTY, "notes.txt"]
    assert f'model_id = "me/aot"\nrevision = "{TWENTY}"' in (output / TWENTY / "README.md").read_text()
    assert not changing_requests(server)


def test_a_dry_run_writes_no_folder(base_folder, tmp_path, no_loading):
    result = run("--base", base_folder, "--variant", TEN, "--output", tmp_path / "new", "--dry-run")
    assert_pushed(result)
    assert "Dry run: nothing was written." in result.output
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_config_with_settings_of_aot_is_repaired(tmp_path, no_loading):
    """Earlier versions of the processor wrote them there, where they overrule the variant's."""
    base, output = tmp_path / "base", tmp_path / "variant"
    model = random_model(AOTLlavaOnevisionForConditionalGeneration)
    model.save_pretrained(base)
    random_processor(AOTLlavaOnevisionProcessor, model.config).save_pretrained(base)
    sound = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**sound, "retention_ratio": 0.1, "num_frames": 8}))
    assert_pushed(run("--base", base, "--variant", TWENTY, "--output", output))
    assert json.loads((output / "tokenizer_config.json").read_text()) == sound
    processor = AOTLlavaOnevisionProcessor.from_pretrained(output)
    assert (processor.retention_ratio, processor.num_frames) == (0.2, 32)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_folder_leaves_nothing(error, base_folder, tmp_path, no_loading, monkeypatch):
    def fail(*_):
        raise error

    arguments = ["--base", base_folder, "--variant", TEN, "--output", tmp_path / "new" / "variant"]
    with monkeypatch.context() as patch:
        patch.setattr(placing, "copy", fail)
        result = run(*arguments)
    if isinstance(error, OSError):
        assert_failed(result, "the disk is full", "No space left on device", "larger disk")
    else:
        assert result.exit_code == 130
        assert "every branch and folder is as it was or complete" in result.stderr
    assert not list(tmp_path.iterdir())
    assert_pushed(run(*arguments))


def test_a_folder_that_the_command_wrote_is_replaced_on_demand(base_folder, tmp_path, no_loading):
    output = tmp_path / "variant"
    arguments = ["--base", base_folder, "--variant", TEN, "--output", output]
    output.mkdir()
    assert_pushed(run(*arguments))
    assert_failed(run(*arguments), "is not empty", "--overwrite to replace it")
    (output / "README.md").unlink()
    assert_pushed(run(*arguments, "--overwrite"))
    assert (output / "README.md").exists()
    another = run("--base", base_folder, "--variant", TWENTY, "--output", output, "--overwrite")
    assert_failed(another, f"holds the variant {TEN}, not {TWENTY}", "Give another folder")
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_nothing_is_replaced_but_what_the_command_wrote(dry_run, server, base_folder, tmp_path, no_loading):
    base = shutil.copytree(base_folder, tmp_path / "models" / "base")
    (base / ".git").mkdir()
    (base / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (base / "optimizer.pt").write_text("mine")
    before = tree(tmp_path)
    arguments = ["--base", base, "--variant", TEN, "--overwrite", *dry_run, "--output"]
    assert_failed(run(*arguments, base), "is the base", exit_code=2)
    assert_failed(run(*arguments, base.parent), "holds the base", exit_code=2)
    assert_failed(run(*arguments, base / "variant"), "lies in the base", exit_code=2)
    assert_failed(run("--base", BASE, "--variant", TEN, "--overwrite", *dry_run, "--output", base), "did not write it")
    assert tree(tmp_path) == before
    assert not server.requests


def test_a_base_and_the_hubs_cache_stay_as_they_are_whatever_is_saved_to_the_folder(
    server, base_folder, tmp_path, no_loading
):
    local = shutil.copytree(base_folder, tmp_path / "base")
    for location in (local, BASE):
        output = tmp_path / f"variant-of-{Path(location).name}"
        assert_pushed(run("--base", location, "--variant", TEN, "--output", output, token=""))
        before = tree(local), tree(tmp_path / "cache")
        processor = AOTLlavaOnevisionProcessor.from_pretrained(output)
        processor.chat_template = processor.tokenizer.chat_template = "{{ 'another' }}"
        processor.save_pretrained(output)
        model = AOTLlavaOnevisionForConditionalGeneration.from_pretrained(output)
        model.lm_head.weight.data.zero_()
        model.save_pretrained(output, max_shard_size="600KB")
        assert weights_of(output) != weights_of(local)
        assert (tree(local), tree(tmp_path / "cache")) == before
        # And these weights are the user's now.
        mine = tree(output)
        result = run("--base", location, "--variant", TEN, "--output", output, "--overwrite", token="")
        assert_failed(result, "was changed since", "chat_template.jinja")
        assert tree(output) == mine
    assert any((tmp_path / "cache").rglob("*.safetensors"))


def test_weights_are_linked_on_request(base_folder, tmp_path, no_loading):
    output = tmp_path / "variant"
    arguments = ["--base", base_folder, "--variant", TEN, "--output", output]
    assert_pushed(run(*arguments, "--hard-links"))
    for name, file in files_of(base_folder).items():
        assert (output / name).samefile(file) == name.endswith(".safetensors")
    # Replaced by copies, the links go and the base's files stay.
    assert_pushed(run(*arguments, "--overwrite"))
    assert weights_of(output) == weights_of(base_folder)
    assert not any((output / name).samefile(base_folder / name) for name in weights_of(output))
    assert_failed(
        run("--variant", TEN, "--repo-id", "me/aot", "--hard-links"), "--hard-links is for --output", exit_code=2
    )
