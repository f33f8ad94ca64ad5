"""What of a base goes up, what stays, and that everything that goes up was looked at."""

import json
import os
import re

import pytest
import torch
from hub_pushes import BASE, assert_failed, assert_pushed, changing_requests, push
from safetensors import safe_open
from safetensors.torch import save_file

from hub_upload.package_code import package_code

# The client's own way to send files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "hf_" + "Ab1" * 11
MADE = {"config.json", "processor_config.json", "README.md", ".gitattributes", *package_code()}


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


# By name


READ = {
    "generation_config.json": "{}",
    "preprocessor_config.json": "{}",
    "video_preprocessor_config.json": "{}",
    "tokenizer_config.json": "{}",
    "tokenizer.json": "{}",
    "vocab.json": "{}",
    "merges.txt": "",
    "special_tokens_map.json": "{}",
    "added_tokens.json": "{}",
    "chat_template.jinja": "",
    "chat_template.json": "{}",
    "additional_chat_templates/tool_use.jinja": "",
    "LICENSE": "text",
    "LICENSE-APACHE.txt": "text",
    "NOTICE": "text",
}
NOT_READ = {
    "token.json": TOKEN,
    "credentials.json": "{}",
    ".env": f"HF_TOKEN={TOKEN}",
    ".cache/huggingface/token": TOKEN,
    "trainer_state.json": "{}",
    "training_args.bin": "",
    "optimizer.pt": "",
    "optimizer.safetensors": "",
    "adapter_model.safetensors": "",
    "adapter_config.json": "{}",
    "model-00001-of-00002.safetensors": "left over",
    "model.safetensors.index.json": "[",
    "pytorch_model.bin": "",
    "notes.txt": "",
    "requirements.txt": "",
    "passwords.model": "",
    "LICENSE_KEY.txt": "",
    "license_token.json": "",
    "tokenizer.4.json": "{}",
    "config.json.bak": "",
    "additional_chat_templates/secret.json": "",
    "additional_chat_templates/a/b.jinja": "",
    "checkpoint-500/model.safetensors": "",
    "runs/events.out": "",
}


def test_what_transformers_reads_goes_up_and_nothing_else(small_server, small_base, copy_of, no_loading):
    base = copy_of(small_base)
    write(base, {**READ, **NOT_READ})
    (base / "model.safetensors.index.json").unlink()
    result = push(small_server, base=base)
    assert_pushed(result)
    assert set(small_server.tree("me/aot")) == {*READ, "model.safetensors", *MADE}
    left_out = result.output.split("left out: ")[1].splitlines()[0].split(", ")
    assert set(left_out) == {name for name in NOT_READ if name[0] != "."} - {"model.safetensors.index.json"}


def test_a_tokenizer_config_may_name_a_newer_tokenizer_and_no_other_file(
    small_base, small_server, copy_of, no_loading
):
    base = copy_of(small_base)
    names = ["tokenizer.json", "tokenizer.4.json", "token.json", "../tokenizer.5.json", 7]
    write(base, {"tokenizer_config.json": json.dumps({"fast_tokenizer_files": names})})
    write(base, {"tokenizer.4.json": "{}", "tokenizer.5.json": "{}", "token.json": TOKEN})
    assert_pushed(push(small_server, base=base))
    tree = set(small_server.tree("me/aot"))
    assert {name for name in tree if re.match(r"token(\.|i)", name)} == {"tokenizer_config.json", "tokenizer.4.json"}


# Links


@pytest.mark.parametrize("name", ["LICENSE", "tokenizer.json", "config.json", "model.safetensors", "notes.txt"])
def test_a_link_that_leaves_the_folder_is_refused(name, small_server, small_base, copy_of, tmp_path, no_loading):
    base = copy_of(small_base)
    (tmp_path / "outside").write_text("{}")
    (base / name).unlink(missing_ok=True)
    (base / name).symlink_to("../outside")
    assert_failed(push(small_server, base=base), f"{name} in {base} is a link to ../outside", "the file itself")
    assert not changing_requests(small_server)


def test_links_to_folders_hidden_files_and_nothing_are_no_way_out(small_server, small_base, copy_of, no_loading):
    base = copy_of(small_base)
    outside = base.parent / "outside"
    write(outside, {"a.jinja": "secret"})
    (base / "additional_chat_templates").symlink_to(outside)
    assert_failed(push(small_server, base=base), "additional_chat_templates in", "is a link")
    (base / "additional_chat_templates").rename(base / "runs")
    write(base, {".env": "secret"})
    (base / "LICENSE").symlink_to(".env")
    assert_failed(push(small_server, base=base), "LICENSE in", "is a link to .env")
    (base / "LICENSE").unlink()
    (base / "tokenizer.json").symlink_to("../gone")
    assert_failed(push(small_server, base=base), "tokenizer.json in", "is a link")
    (base / "tokenizer.json").unlink()
    write(base, {"kept/weights": (base / "model.safetensors").read_bytes()})
    (base / "model.safetensors").unlink()
    (base / "model.safetensors").symlink_to("kept/weights")
    result = push(small_server, base=base)
    assert_pushed(result)
    assert "left out: kept/weights" in result.output
    assert "secret" not in str(small_server.tree("me/aot"))


def cached(small_base, cache, blobs="blobs"):
    """The small base as huggingface_hub's cache has it."""
    repository = cache / "models--a--b"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(small_base.iterdir())):
        name = f"{number:040}"
        (repository / "blobs" / name).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../{blobs}/{name}")
    return snapshot


def test_the_caches_own_links_are_followed(small_server, small_base, tmp_path, no_loading):
    snapshot = cached(small_base, tmp_path / "hub")
    # Newer releases keep blobs that several repositories have in one place.
    blob = (snapshot / "model.safetensors").resolve()
    shared = tmp_path / "hub" / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(f"../../blobs/ab/{'ab' * 32}")
    assert_pushed(push(small_server, base=snapshot))
    tree = small_server.tree("me/aot")
    assert {"model.safetensors", "tokenizer_config.json"} <= set(tree)


def test_what_only_looks_like_the_cache_is_refused(small_server, small_base, tmp_path, no_loading):
    snapshot = cached(small_base, tmp_path)
    other = cached(small_base, tmp_path / "other")
    (snapshot / "LICENSE").symlink_to(os.readlink(snapshot / "config.json").replace("0000", "secret"))
    write(snapshot.parents[1], {"blobs/" + os.path.basename(os.readlink(snapshot / "LICENSE")): "secret"})
    assert_failed(push(small_server, base=snapshot), "LICENSE in", "is a link")
    (snapshot / "LICENSE").unlink()
    blob = (snapshot / "tokenizer_config.json").resolve()
    blob.unlink()
    blob.symlink_to((other / "tokenizer_config.json").resolve())
    assert_failed(push(small_server, base=snapshot), "tokenizer_config.json in", "is a link")


# What stands in the files


def test_paths_names_and_credentials_stay_here(small_server, small_base, copy_of, no_loading):
    base = copy_of(small_base)
    config = json.loads((base / "config.json").read_text())
    config["_name_or_path"] = "alice/private-run"
    config["text_config"] |= {"_name_or_path": "/home/alice/qwen", "auth_token": "x", "my_cache": "/home/alice/cache"}
    tokenizer = json.loads((base / "tokenizer_config.json").read_text())
    places = {"name_or_path": "../run-7", "special_tokens_map_file": "C:\\Users\\alice\\map.json"}
    write(base, {"config.json": json.dumps(config), "tokenizer_config.json": json.dumps({**tokenizer, **places})})
    write(base, {"generation_config.json": '{"max_length": 7, "use_auth_token": "y"}'})
    result = push(small_server, base=base)
    assert_pushed(result)
    assert "name_or_path, special_tokens_map_file of tokenizer_config.json" in result.output
    for path in small_server.tree("me/aot"):
        assert b"alice" not in small_server.read("me/aot", path)
    assert json.loads(small_server.read("me/aot", "tokenizer_config.json")) == tokenizer
    assert json.loads(small_server.read("me/aot", "generation_config.json")) == {"max_length": 7}
    assert "auth_token" not in small_server.read("me/aot", "config.json").decode()
    assert str(base) not in str(small_server.history("me/aot")[0].title)
    assert base.name not in small_server.history("me/aot")[0].title


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config.json": json.dumps({"note": TOKEN})},
        {"config.json": json.dumps({"model_type": "llava_onevision", "note": {"deep": [TOKEN]}})},
        {"chat_template.jinja": f"{{# {TOKEN} #}}"},
        {"LICENSE": "-----BEGIN RSA PRIVATE KEY-----\nabc"},
        {"tokenizer.json": json.dumps({"model": TOKEN})},
    ],
    ids=lambda files: next(iter(files)),
)
def test_what_looks_like_a_token_is_not_published(files, small_server, small_base, copy_of, no_loading):
    base = copy_of(small_base)
    write(base, files)
    line = assert_failed(push(small_server, base=base), next(iter(files)), "looks like a token or a private key")
    assert TOKEN not in line
    assert not changing_requests(small_server)


JSON_FILES = ["config.json", "processor_config.json", "tokenizer_config.json", "generation_config.json"]
JSON_FILES += ["preprocessor_config.json", "video_preprocessor_config.json", "special_tokens_map.json", "vocab.json"]
JSON_FILES += ["added_tokens.json", "chat_template.json", "tokenizer.json", "model.safetensors.index.json"]


@pytest.mark.parametrize("name", JSON_FILES)
def test_malformed_json_in_any_file_is_one_sentence(name, small_server, small_base, copy_of, no_loading):
    base = copy_of(small_base)
    for content in (
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"a":' + b"1" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
        b'{"a":1,"a":2}',
    ):
        write(base, {name: content})
        assert_failed(push(small_server, base=base), f"{name} of {base} ", "save the base again")
    assert not changing_requests(small_server)


def test_malformed_json_of_a_base_on_the_hub_is_one_sentence(small_server, no_loading):
    small_server.commit(BASE, {"generation_config.json": "[" * 100_000})
    assert_failed(push(small_server), f"generation_config.json of {BASE} is nested too deeply")


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("config.json", {"vision_config": [1]}, "`vision_config` is [1], but it must be an object"),
        ("config.json", {"text_config": "x"}, "`text_config` is 'x'"),
        ("config.json", {"vision_config": {"image_size": 1, "patch_size": 0}}, "`patch_size` of `vision_config` is 0"),
        ("config.json", {"text_config": {"num_hidden_layers": 10**9}}, "an integer from 1 to 10,000"),
        ("config.json", {"custom_pipelines": {"a": {"impl": "code.A"}}}, "`custom_pipelines`"),
        ("config.json", {"transformers_weights": "other.safetensors"}, "'other.safetensors' as weights"),
        ("processor_config.json", {"auto_map": ["code.A"]}, "names code of its own (['code.A'])"),
        ("tokenizer_config.json", {"auto_map": "code.A"}, "names code of its own (code.A)"),
        ("generation_config.json", {"auto_map": {"a": "code.A"}}, "names code of its own (code.A)"),
    ],
)
def test_values_of_another_kind_are_one_sentence(name, values, reason, small_server, small_base, copy_of, no_loading):
    base = copy_of(small_base)
    old = json.loads((base / name).read_text()) if (base / name).exists() else {}
    write(base, {name: json.dumps({**old, **values})})
    assert_failed(push(small_server, base=base), name, reason)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ("license: [[a]]", "`license` that is no text"),
        ("license_link: 7", "`license_link` that is no text"),
        ("language: {a: b}", "`language` that is no text"),
        ("license: " + "[" * 2000, "cannot be read"),
        ("? [a, b]\n: c", "cannot be read"),
        ("[a, b]", "cannot be read"),
    ],
)
def test_metadata_of_another_kind_is_one_sentence(metadata, reason, small_server, small_base, copy_of, no_loading):
    base = copy_of(small_base)
    write(base, {"README.md": f"---\n{metadata}\n---\n"})
    assert_failed(push(small_server, base=base), f"the metadata in README.md of {base}", reason, "correct it")


# Weights


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
SHARD = "model-00001-of-00002.safetensors"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"model.safetensors": POINTER}, "is a Git LFS pointer in place of the file: fetch it with `git lfs pull`"),
        ({"model.safetensors": b"\xffgarbage" * 9}, "is no safetensors file"),
        ({"model.safetensors": None}, "has no weights"),
        ({"model.safetensors": None, SHARD: b""}, "has shards of weights, but no model.safetensors.index.json"),
        ({"model.safetensors": None, "adapter_model.safetensors": b""}, "holds an adapter alone"),
        ({"model.safetensors": None, "adapter_config.json": b"{}"}, "holds an adapter alone"),
        ({"model.safetensors": None, "consolidated.safetensors": b""}, "but consolidated.safetensors: rename it"),
    ],
)
def test_weights_that_are_none_are_refused(files, reason, small_server, small_base, copy_of, no_loading):
    base = copy_of(small_base)
    for name, content in files.items():
        (base / name).unlink(missing_ok=True)
        if content is not None:
            write(base, {name: content})
    assert_failed(push(small_server, base=base), reason, str(base))
    assert not changing_requests(small_server)


@pytest.fixture
def shards(small_base, copy_of):
    """A base in two shards, `a` in the first and `b` in the second; its index can be changed."""
    base = copy_of(small_base)
    (base / "model.safetensors").unlink()
    for number, name in enumerate("ab", start=1):
        save_file({name: torch.ones(3)}, base / f"model-{number:05}-of-00002.safetensors")

    def write_index(weight_map):
        write(base, {"model.safetensors.index.json": json.dumps({"weight_map": weight_map})})

    write_index({"a": SHARD, "b": SHARD.replace("1", "2", 1)})
    return base, write_index


@pytest.mark.parametrize(
    ("weight_map", "reason"),
    [
        (None, "has no `weight_map`"),
        ([], "has no `weight_map`"),
        ({"a": 7}, "a is in 7, which is no file"),
        ({"a": "../model.safetensors"}, "'../model.safetensors', which is no file of the checkpoint"),
        ({"a": SHARD}, None),
        ({"a": SHARD, "b": "model-00003-of-00003.safetensors"}, "its index names model-00003-of-00003.safetensors"),
        ({"a": SHARD, "b": SHARD}, f"says that {SHARD} has b"),
        ({"c": SHARD}, f"says that {SHARD} has c"),
    ],
)
def test_an_index_says_what_is_there(weight_map, reason, shards, small_server, no_loading):
    base, write_index = shards
    write_index(weight_map)
    result = push(small_server, base=base)
    if reason is None:
        assert_pushed(result)
        assert f"left out: {SHARD.replace('1', '2', 1)}" in result.output
    else:
        assert_failed(result, "of", str(base), reason)


def test_a_name_in_two_shards_is_refused(shards, small_server, no_loading):
    base, _ = shards
    save_file({"a": torch.ones(3), "b": torch.ones(3)}, base / SHARD)
    assert_failed(push(small_server, base=base), f"{base} has b in two files")


def test_of_a_base_on_the_hub_headers_alone_come_down(small_server, tmp_path, no_loading):
    large = tmp_path / "model.safetensors"
    save_file({f"weight.{number}": torch.zeros(100_000) for number in range(200)}, large)
    small_server.commit(BASE, {"model.safetensors": large})
    assert_pushed(push(small_server, "--dry-run"))
    with safe_open(large, "pt"):
        header = int.from_bytes(large.read_bytes()[:8], "little")
    assert header < small_server.bytes_downloaded("*.safetensors") <= header + 8192 < 30_000
    assert no_loading[0].weights.keys() == {f"weight.{number}" for number in range(200)}


@pytest.mark.parametrize("content", [b"\xff" * 5000, POINTER.encode(), b"\x10\0\0\0\0\0\0\0{}"])
def test_damaged_weights_on_the_hub_are_refused(content, small_server, no_loading):
    small_server.commit(BASE, {"model.safetensors": content})
    assert_failed(push(small_server), f"model.safetensors of {BASE} is ")
    assert not changing_requests(small_server)
