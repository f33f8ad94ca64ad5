"""Publishing variants: on a Hub over HTTP, in every way, and again."""

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
    assert_published,
    assert_pushed,
    changing_requests,
    files_of,
    leave_out_loading,
    push,
    run,
    weights_of,
)
from hub_server import Fault, HubServer, environment, use_in_this_process
from random_checkpoint import random_model, random_processor

from aot_llava_cli.mini import MINI_CLIP
from hub_upload import publisher
from hub_upload.model_card import usage_code
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
