"""What stands on a branch is replaced without a question only where it can be had again."""

import huggingface_hub
import pytest
import torch
from hub_pushes import BASE, TWENTY, assert_failed, assert_pushed, changing_requests, push
from safetensors.torch import save

from hub_upload.package_code import package_code

# The client's own way to send files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

FINE_TUNED = save({"weights": torch.arange(1250.0) + 1})
EDITS = {
    "weights": {"model.safetensors": FINE_TUNED},
    "config": {"config.json": f'{{"model_type": "aot_llava_onevision", "aot_base_model": "{BASE}"}}'},
    "code": {"modeling_aot_llava.py": "edited"},
    "tokenizer": {"tokenizer_config.json": "{}"},
    "an adapter": {"adapter_config.json": "{}", "adapter_model.safetensors": FINE_TUNED},
    "an index": {"model.safetensors.index.json": "{}"},
    "other weights": {"consolidated.safetensors": FINE_TUNED},
}
KEPT = {"handler.py": "mine", "results.csv": "mine", "onnx/model.safetensors": FINE_TUNED, "requirements.txt": "x"}


@pytest.fixture
def published(small_server, no_loading):
    """A Hub on which the variant was pushed to me/aot."""
    assert_pushed(push(small_server))
    small_server.clear()
    return small_server


def assert_nothing_changed(server, tree):
    assert server.tree("me/aot") == tree
    assert not changing_requests(server)


@pytest.mark.parametrize("files", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_what_this_command_did_not_write_is_asked_for(files, arguments, published):
    published.commit("me/aot", files)
    tree = published.tree("me/aot")
    line = assert_failed(push(published, *arguments, variant=TWENTY), "me/aot, branch main,", "--overwrite")
    sizes = {"weights": "model.safetensors (5.1 kB)", "code": "modeling_aot_llava.py (6 B)"}
    assert all(name in line for name in files)
    assert next((size for size in sizes.values() if size.split()[0] in files), "would lose") in line
    assert "un the same command again" not in line
    assert_nothing_changed(published, tree)
    result = push(published, "--overwrite", variant=TWENTY)
    assert_pushed(result)
    assert "lost by --overwrite: " in result.output
    told = result.output.split("lost by --overwrite: ")[1]
    assert all(name in told for name in files)
    tree = published.tree("me/aot")
    assert not {"adapter_config.json", "consolidated.safetensors", "model.safetensors.index.json"} & set(tree)
    published.clear()
    assert "was there already" in push(published, variant=TWENTY).output


@pytest.mark.parametrize("arguments", [(), ("--overwrite",)])
def test_files_of_the_publishers_own_are_kept(arguments, published):
    published.commit("me/aot", {**KEPT, "handler.py": "first"}, title="AOT and mine")
    published.commit("me/aot", KEPT)
    kept = {path: published.tree("me/aot")[path] for path in KEPT}
    result = push(published, *arguments, variant=TWENTY)
    assert_pushed(result)
    tree = published.tree("me/aot")
    assert {path: tree[path] for path in KEPT} == kept
    assert TWENTY in published.read("me/aot", "README.md").decode()


def test_a_card_that_was_edited_is_kept_until_it_may_go(published):
    published.commit("me/aot", {"README.md": "# By hand"})
    result = push(published, variant=TWENTY)
    assert_pushed(result)
    assert "README.md is kept as you edited it." in result.output
    assert published.read("me/aot", "README.md") == b"# By hand"
    assert b'"retention_ratio": 0.2' in published.read("me/aot", "config.json")
    assert "was there already" in push(published, variant=TWENTY).output
    result = push(published, "--overwrite", variant=TWENTY)
    assert_pushed(result)
    assert "lost by --overwrite: README.md (9 B)" in result.output
    assert TWENTY in published.read("me/aot", "README.md").decode()


def test_weights_of_a_folder_are_not_replaced_by_the_stock_ones(small_server, small_base, copy_of, no_loading):
    """This command wrote them, but they are nowhere else."""
    base = copy_of(small_base)
    (base / "model.safetensors").write_bytes(FINE_TUNED)
    assert_pushed(push(small_server, base=base))
    tree = small_server.tree("me/aot")
    small_server.clear()
    assert_failed(push(small_server), "would lose model.safetensors (5.1 kB)", "--overwrite")
    assert_nothing_changed(small_server, tree)
    assert_pushed(push(small_server, base=base, variant=TWENTY))


def test_stock_weights_that_the_base_no_longer_has_are_asked_for(published):
    """They are replaced without a question as long as the recorded commit of the base has them."""
    newer = save({"weights": torch.ones(7)})
    published.commit(BASE, {"model.safetensors": newer})
    assert_pushed(push(published))
    published.commit(BASE, {"model.safetensors": save({"weights": torch.ones(8)})})
    published.squash(BASE)
    assert_failed(push(published), "would lose model.safetensors", "--overwrite")


def test_after_a_squash_nobody_knows_who_wrote_what(published):
    published.squash("me/aot")
    tree = published.tree("me/aot")
    assert_pushed(push(published))
    assert_failed(push(published, variant=TWENTY), "would lose config.json", "--overwrite")
    assert published.tree("me/aot") == tree
    assert_pushed(push(published, "--overwrite", variant=TWENTY))


def test_what_came_since_the_look_is_not_lost(published, monkeypatch):
    """Somebody's weights arrive between the look and the commit: the Hub refuses, and the second look asks."""
    published.commit("me/aot", {"README.md": "# By hand"})
    create_commit = huggingface_hub.HfApi.create_commit

    def commit_late(*arguments, **options):
        monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", create_commit)
        published.commit("me/aot", {"model.safetensors": FINE_TUNED})
        return create_commit(*arguments, **options)

    for arguments, reason in (((), "--overwrite"), (("--overwrite",), "was changed by somebody while this ran")):
        monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", commit_late)
        result = push(published, *arguments, variant=TWENTY)
        assert_failed(result, "would lose model.safetensors (5.1 kB)", reason)
        assert published.read("me/aot", "model.safetensors") == FINE_TUNED
        stock = published.read(BASE, "model.safetensors")
        published.commit("me/aot", {"model.safetensors": stock})


def test_another_model_goes_as_a_whole_and_is_told_before(small_server, no_loading):
    small_server.add_repo("me/aot", {"config.json": '{"model_type": "gpt2"}', "pytorch_model.bin": b"\0" * 3000})
    line = assert_failed(push(small_server), "already holds a gpt2 model", "--overwrite", "pytorch_model.bin (3.0 kB)")
    assert "It would lose config.json" in line
    result = push(small_server, "--overwrite", "--dry-run")
    assert "lost by --overwrite: config.json (22 B), pytorch_model.bin (3.0 kB)" in result.output
    assert_pushed(push(small_server, "--overwrite"))
    assert "pytorch_model.bin" not in small_server.tree("me/aot")


@pytest.mark.parametrize("config", ["[1]", "null", "[" * 100_000, '{"model_type": ["a"]}', '{"a": NaN}'])
def test_a_config_there_that_is_none_is_no_traceback(config, small_server, no_loading):
    small_server.add_repo("me/aot", {"config.json": config})
    assert_failed(push(small_server), "already holds a", "--overwrite")


# --private


def test_private_is_never_public(small_server, no_loading):
    small_server.add_repo("me/aot")
    for arguments in ((), ("--dry-run",), ("--revision", "x"), ("--variant", TWENTY)):
        assert_failed(push(small_server, "--private", *arguments), "me/aot is public, and --private was given")
    assert set(small_server.tree("me/aot")) == {".gitattributes"}
    small_server.repository("me/aot").private = True
    result = push(small_server, "--private")
    assert_pushed(result)
    assert "which exists and is private" in result.output


@pytest.mark.parametrize("private", [False, True])
def test_a_repository_that_appears_meanwhile_is_private_or_stays_empty(private, small_server, no_loading):
    """It is made between the look and the creation."""

    def appear(request):
        if (
            request.method == "POST"
            and request.path == "/api/repos/create"
            and "me/aot" not in small_server.repositories
        ):
            small_server.add_repo("me/aot", private=private)
        return False

    small_server.fail(None, matching=appear)
    result = push(small_server, "--private")
    if private:
        assert_pushed(result)
        return
    assert_failed(result, "me/aot is public, and --private was given: nothing was published")
    assert set(small_server.tree("me/aot")) == {".gitattributes"}
    assert not small_server.requests_to("preupload|lfs|commit/")


@pytest.mark.parametrize("moment", ["GET /api/models/me/aot/revision/main", "preupload", "lfs/objects/batch"])
def test_a_repository_that_is_made_public_meanwhile_gets_nothing(moment, small_server, small_base, no_loading):
    def reveal(request):
        if moment in f"{request.method} {request.path}" and "me/aot" in small_server.repositories:
            small_server.repository("me/aot").private = False
        return False

    small_server.fail(None, matching=reveal)
    assert_failed(push(small_server, "--private", base=small_base), "me/aot is public", "nothing was published")
    assert set(small_server.tree("me/aot")) == {".gitattributes"}


def test_what_was_made_public_at_the_last_moment_is_said(small_server, no_loading):
    def reveal(request):
        if "/commit/" in request.path:
            small_server.repository("me/aot").private = False
        return False

    small_server.fail(None, matching=reveal)
    assert_failed(push(small_server, "--private"), "me/aot is public", "its files can be seen", "Make it private")


# New branches where the history was squashed


def test_a_new_branch_in_a_squashed_repository_is_refused_or_right(published, small_base):
    """It could only begin with what the first commit holds."""
    published.squash("me/aot")
    before = published.branches("me/aot")
    for arguments in ((), ("--dry-run",)):
        line = assert_failed(push(published, "--revision", "x", *arguments), "was squashed", "--overwrite")
        assert "un the same command again" not in line
    assert published.branches("me/aot") == before
    published.commit("me/aot", {"handler.py": "main's"})
    assert_pushed(push(published, "--overwrite", "--revision", "x", variant=TWENTY))
    expected = {"config.json", "processor_config.json", "tokenizer_config.json", "model.safetensors", "README.md"}
    assert set(published.tree("me/aot", "x")) == {*expected, *package_code(), ".gitattributes"}
    assert "handler.py" in published.tree("me/aot")


def test_a_repository_that_began_with_a_card_is_not_squashed(small_server, no_loading, monkeypatch):
    """The Hub's page for new repositories writes one; a run that ends there can be repeated."""
    small_server.add_repo("me/aot", {"README.md": "---\nlicense: mit\n---\n"})
    small_server.squash("me/aot")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.HfApi, "create_commit", interrupted)
        assert push(small_server, "--revision", "x").exit_code == 130
    assert set(small_server.tree("me/aot", "x")) == {".gitattributes", "README.md"}
    assert_pushed(push(small_server, "--revision", "x"))
    assert "config.json" in small_server.tree("me/aot", "x")
