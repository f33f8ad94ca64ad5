"""Variants written to a folder instead of the Hub."""

import errno
import json
import shutil
from pathlib import Path

import pytest
from hub_pushes import (
    BASE,
    TEN,
    TWENTY,
    assert_failed,
    assert_pushed,
    changing_requests,
    files_of,
    run,
    tree,
    weights_of,
)
from random_checkpoint import random_model, random_processor
from safetensors import safe_open

from hub_upload import placing
from hub_upload.output_marker import MARKER
from hub_upload.package_code import package_code
from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor

# The client's own way to send files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


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
