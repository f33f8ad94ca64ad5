"""The tests' Hub behaves as the real one towards the real huggingface_hub client."""

import hashlib
import inspect
import os
import subprocess
import sys
import warnings
from contextlib import suppress

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session

from hub_server import Fault, HubServer, environment, retry_at_once, use_in_this_process

WEIGHTS = b"\0weights" * 5000
CARD = "---\nlicense: apache-2.0\nlanguage:\n- en\n- zh\n---\n# A model\n"

copies_between_repositories = pytest.mark.skipif(
    "src_repo_id" not in inspect.signature(CommitOperationCopy).parameters,
    reason=f"huggingface_hub {huggingface_hub.__version__} copies within one repository only",
)

# The client's own way to send files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def server(monkeypatch):
    with HubServer() as server:
        use_in_this_process(server, monkeypatch)
        yield server


@pytest.fixture
def api(server):
    """The client of a user who may write."""
    return HfApi(endpoint=server.endpoint, token=server.token("me"))


@pytest.fixture
def stranger(server):
    """The client of somebody else."""
    return HfApi(endpoint=server.endpoint, token=server.token("stranger"))


@pytest.fixture
def anonymous(server):
    """The client of nobody."""
    return HfApi(endpoint=server.endpoint, token=False)


@pytest.fixture
def base(server):
    """The commit of a seeded repository."""
    files = {"README.md": CARD, "config.json": b'{"model_type": "base"}', "nested/model.safetensors": WEIGHTS}
    return server.add_repo("base/model", files)


@pytest.fixture
def repo(api):
    return api.create_repo("me/model").repo_id


@pytest.fixture
def waits(monkeypatch):
    """The pauses before repeated requests, which take no time here."""
    return retry_at_once(monkeypatch)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def add(path, content=b"text"):
    return CommitOperationAdd(path, content)


def commit(api, repo, *operations, **options):
    return api.create_commit(repo, operations, commit_message="Change", **options).oid


def copy_from_base(path="nested/model.safetensors", **options):
    source = {"src_repo_id": "base/model", "src_repo_type": "model", **options}
    return CommitOperationCopy(src_path_in_repo=path, path_in_repo=path.split("/")[-1], **source)


# Accounts and repositories


def test_whoami(server):
    server.add_organization("lab", ["me"])
    api = HfApi(endpoint=server.endpoint)
    answer = api.whoami(token=server.token("me", role="read"))
    assert (answer["name"], answer["auth"]["accessToken"]["role"]) == ("me", "read")
    assert [organization["name"] for organization in answer["orgs"]] == ["lab"]


def test_wrong_and_revoked_tokens(server):
    api = HfApi(endpoint=server.endpoint)
    token = server.token("me")
    server.revoke(token)
    for wrong in (token, "hf_unknown"):
        with pytest.raises(HfHubHTTPError, match="Invalid user token") as caught:
            api.whoami(token=wrong)
        assert caught.value.response.status_code == 401
        with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header"):
            api.create_repo("me/model", token=wrong)
    assert server.repositories == []


def test_create_repo(server, api):
    url = api.create_repo("me/model", private=True)
    assert (url, url.repo_id) == (f"{server.endpoint}/me/model", "me/model")
    assert server.repository("me/model").private
    assert list(server.tree("me/model")) == [".gitattributes"]
    assert api.create_repo("me/model", exist_ok=True).repo_id == "me/model"
    with pytest.raises(HfHubHTTPError, match="You already created this model repo") as caught:
        api.create_repo("me/model")
    assert caught.value.response.status_code == 409


def test_repositories_are_made_in_ones_own_namespaces(server, api):
    server.add_organization("lab", ["me"])
    api.create_repo("lab/model")
    assert api.create_repo("model").repo_id == "me/model"
    with pytest.raises(HfHubHTTPError, match='under the namespace "you"'):
        api.create_repo("you/model")
    with pytest.raises(HfHubHTTPError, match='under the namespace "me"'):
        api.create_repo("me/other", token=server.token("me", role="read"))
    assert server.repositories == ["lab/model", "me/model"]


def test_delete_repo(server, api, repo):
    api.delete_repo(repo)
    assert server.repositories == []
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(repo)
    api.delete_repo(repo, missing_ok=True)


def test_model_info(api, base):
    info = api.model_info("base/model", files_metadata=True)
    files = {file.rfilename: file for file in info.siblings}
    assert (info.id, info.sha, info.private, info.gated) == ("base/model", base, False, False)
    assert (info.card_data.license, info.card_data.language) == ("apache-2.0", ["en", "zh"])
    assert set(files) == {".gitattributes", "README.md", "config.json", "nested/model.safetensors"}
    weights = files["nested/model.safetensors"]
    assert (weights.size, weights.lfs.size, weights.lfs.sha256) == (len(WEIGHTS), len(WEIGHTS), sha256(WEIGHTS))
    assert files["config.json"].lfs is None
    assert api.model_info("base/model", revision=base).siblings[0].size is None


def test_what_is_not_there(server, api, anonymous, base, tmp_path):
    for client in (api, anonymous):
        for name in ("base/other", "other"):
            with pytest.raises(RepositoryNotFoundError):
                client.model_info(name)
        with pytest.raises(RevisionNotFoundError):
            client.model_info("base/model", revision="v2")
        with pytest.raises(EntryNotFoundError):
            client.hf_hub_download("base/model", "other.json", cache_dir=tmp_path)
        with pytest.raises(EntryNotFoundError):
            list(client.list_repo_tree("base/model", "other"))
    assert not api.repo_exists("base/other")
    assert not api.revision_exists("base/model", "v2")
    assert not api.file_exists("base/model", "other.json")
    assert list(tmp_path.glob("**/.no_exist/*/other.json"))


def test_private_repositories_are_hidden(server, api, stranger, anonymous, tmp_path):
    server.add_repo("me/secret", {"config.json": b"{}"}, private=True, readers=["friend"])
    assert api.model_info("me/secret").private
    assert HfApi(endpoint=server.endpoint, token=server.token("friend")).model_info("me/secret")
    for client, status in ((stranger, 404), (anonymous, 401)):
        with pytest.raises(RepositoryNotFoundError) as caught:
            client.model_info("me/secret")
        assert caught.value.response.status_code == status
        with pytest.raises(RepositoryNotFoundError):
            client.hf_hub_download("me/secret", "config.json", cache_dir=tmp_path)


def test_gated_repositories_show_names_and_no_contents(server, stranger, anonymous, tmp_path):
    server.add_repo("base/gated", {"config.json": b"{}"}, gated="manual", readers=["friend"])
    friend = HfApi(endpoint=server.endpoint, token=server.token("friend"))
    assert friend.hf_hub_download("base/gated", "config.json", cache_dir=tmp_path / "friend")
    assert friend.auth_check("base/gated") is None
    for client, status in ((stranger, 403), (anonymous, 401)):
        assert client.model_info("base/gated").gated == "manual"
        with pytest.raises(GatedRepoError, match="restricted") as caught:
            client.hf_hub_download("base/gated", "config.json", cache_dir=tmp_path / "other")
        assert caught.value.response.status_code == status
        with pytest.raises(GatedRepoError):
            client.auth_check("base/gated")


# Branches and listings


def test_branches(server, api, repo):
    first = commit(api, repo, add("a.txt"))
    second = commit(api, repo, add("b.txt"))
    api.create_branch(repo, branch="variants/small", revision=first)
    api.create_branch(repo, branch="copy")
    assert server.branches(repo) == {"main": second, "variants/small": first, "copy": second}
    refs = api.list_repo_refs(repo).branches
    assert {branch.name: branch.target_commit for branch in refs} == server.branches(repo)
    with pytest.raises(HfHubHTTPError, match="Reference already exists: refs/heads/copy") as caught:
        api.create_branch(repo, branch="copy")
    assert caught.value.response.status_code == 409
    api.create_branch(repo, branch="copy", exist_ok=True)
    with pytest.raises(RevisionNotFoundError):
        api.create_branch(repo, branch="other", revision="nowhere")
    commit(api, repo, add("c.txt"), revision="variants/small")
    assert set(server.tree(repo, "variants/small")) == {".gitattributes", "a.txt", "c.txt"}
    assert set(server.tree(repo)) == {".gitattributes", "a.txt", "b.txt"}
    api.delete_branch(repo, branch="copy")
    assert set(server.branches(repo)) == {"main", "variants/small"}


def test_history(server, api, repo):
    first, second = (commit(api, repo, add(name)) for name in ("a.txt", "b.txt"))
    ids = [item.commit_id for item in api.list_repo_commits(repo)]
    assert ids == [item.id for item in server.history(repo)]
    assert ids[:2] == [second, first]
    assert [item.title for item in server.history(repo)] == ["Change", "Change", "initial commit"]


@pytest.mark.parametrize("page_size", [2, 1000])
def test_trees(server, api, base, page_size):
    server.settings.page_size = page_size
    flat = {entry.path: entry for entry in api.list_repo_tree("base/model")}
    assert set(flat) == {".gitattributes", "README.md", "config.json", "nested"}
    entries = list(api.list_repo_tree("base/model", recursive=True, expand=True))
    assert [entry.path for entry in entries] == [*flat, "nested/model.safetensors"]
    weights = entries[-1]
    assert (weights.lfs.sha256, weights.size, weights.last_commit.oid) == (sha256(WEIGHTS), len(WEIGHTS), base)
    assert [entry.path for entry in api.list_repo_tree("base/model", "nested")] == ["nested/model.safetensors"]


def test_paths_info(api, base):
    folder, weights = api.get_paths_info("base/model", ["nested", "nested/model.safetensors", "missing"])
    assert folder.path == "nested"
    assert weights.lfs.sha256 == sha256(WEIGHTS)


# Uploads


def test_small_files_travel_in_the_commit(server, api, repo):
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=repo)
    assert server.read(repo, "config.json") == b"{}"
    assert not server.files(repo)["config.json"].is_lfs
    assert server.large_bytes_uploaded() == 0


def test_large_files_travel_once(server, api, repo, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    for path in ("a.safetensors", "b.safetensors"):
        api.upload_file(path_or_fileobj=tmp_path / "model.safetensors", path_in_repo=path, repo_id=repo)
    assert server.tree(repo)["b.safetensors"] == sha256(WEIGHTS)
    assert server.large_bytes_uploaded() == len(WEIGHTS)
    assert server.stored_blobs == {sha256(WEIGHTS): len(WEIGHTS)}
    (upload,) = server.requests_to("^PUT /storage/")
    assert not upload.is_authorized


@pytest.mark.parametrize("size", [1000, 1001, 1999])
def test_larger_files_travel_in_parts(server, api, repo, size, tmp_path):
    server.settings.multipart_above, server.settings.part_size = 999, 500
    content = os.urandom(size)
    (tmp_path / "model.bin").write_bytes(content)
    api.upload_file(path_or_fileobj=tmp_path / "model.bin", path_in_repo="model.bin", repo_id=repo)
    assert server.read(repo, "model.bin") == content
    assert server.large_bytes_uploaded() == size
    assert len(server.requests_to("^PUT /storage/part/")) == -(-size // 500)


def test_upload_folder(server, api, repo, tmp_path):
    files = {"config.json": b"{}", "code.py": b"pass", "nested/model.safetensors": WEIGHTS, "image": b"\0binary"}
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    api.upload_folder(repo_id=repo, folder_path=tmp_path)
    tree = server.files(repo)
    assert {path: tree[path].sha256 for path in files} == {path: sha256(content) for path, content in files.items()}
    assert {path for path, file in tree.items() if file.is_lfs} == {"nested/model.safetensors", "image"}
    assert len(server.history(repo)) == 2


def test_empty_files_and_a_card(server, api, repo):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        commit(api, repo, add("README.md", CARD.encode()), add("model.safetensors", b""))
    assert server.read(repo, "model.safetensors") == b""
    assert ModelCard.load(repo).data.license == "apache-2.0"
    with pytest.raises(ValueError, match="not closed"):
        commit(api, repo, add("README.md", b"---\nlicense: mit\n"))


def test_unchanged_files_make_no_commit(server, api, repo):
    first = commit(api, repo, add("a.txt"), add("model.safetensors", WEIGHTS))
    assert commit(api, repo, add("a.txt"), add("model.safetensors", WEIGHTS)) == first
    assert server.history(repo)[0].id == first


def test_the_repository_says_what_is_ignored_and_what_is_large(server, api, repo):
    commit(api, repo, add(".gitignore", b"# never\n*.log\nprivate/\n"), add(".gitattributes", b"*.txt filter=lfs\n"))
    commit(api, repo, add("a.log"), add("private/a.md"), add("a.txt"), add("a.md"))
    files = server.files(repo)
    assert set(files) == {".gitignore", ".gitattributes", "a.txt", "a.md"}
    assert files["a.txt"].is_lfs


def test_deletions(server, api, repo):
    commit(api, repo, add("a.txt"), add("b.txt"), add("nested/a.txt"), add("nested/b.txt"))
    commit(api, repo, CommitOperationDelete("a.txt"), CommitOperationDelete("nested/"))
    assert set(server.tree(repo)) == {".gitattributes", "b.txt"}
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist"):
        commit(api, repo, add("c.txt"), CommitOperationDelete("a.txt"))
    assert set(server.tree(repo)) == {".gitattributes", "b.txt"}


def test_a_commit_can_name_its_parent(server, api, repo):
    parent = server.branches(repo)["main"]
    head = commit(api, repo, add("a.txt"), parent_commit=parent)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as caught:
        commit(api, repo, add("b.txt"), parent_commit=parent)
    assert caught.value.response.status_code == 412
    commit(api, repo, add("b.txt"), parent_commit=head[:7])


def test_one_commit_of_two_wins(server, api, repo):
    """Two clients that know the same state: the second is told, and what it brought is not there."""
    parent = server.branches(repo)["main"]
    server.commit(repo, {"theirs.txt": b"text"})
    with pytest.raises(HfHubHTTPError, match="412"):
        commit(api, repo, add("ours.txt"), parent_commit=parent)
    assert set(server.tree(repo)) == {".gitattributes", "theirs.txt"}


def test_who_may_commit(server, api, repo, stranger, anonymous):
    head = server.branches(repo)
    reader = HfApi(endpoint=server.endpoint, token=server.token("me", role="read"))
    for client, message in ((stranger, "create_pr=1"), (reader, "must use a write token")):
        with pytest.raises(HfHubHTTPError, match=message) as caught:
            commit(client, repo, add("a.txt"))
        assert caught.value.response.status_code == 403
    with pytest.raises(RepositoryNotFoundError):
        commit(anonymous, repo, add("a.txt"))
    with pytest.raises(RepositoryNotFoundError):
        commit(api, "me/other", add("a.txt"))
    with pytest.raises(RevisionNotFoundError):
        commit(api, repo, add("a.txt"), revision="other")
    assert server.branches(repo) == head


def test_a_commit_names_only_files_that_arrived(server, api, repo):
    operation = add("model.safetensors", WEIGHTS)
    operation._upload_mode, operation._is_uploaded = "lfs", True
    with pytest.raises(BadRequestError, match="pointer pointed to a file that does not exist"):
        commit(api, repo, add("a.txt"), operation)
    assert list(server.tree(repo)) == [".gitattributes"]


# Copies


def test_copies_within_a_repository(server, api, repo, tmp_path):
    first = commit(api, repo, add("a.safetensors", WEIGHTS), add("a.txt"))
    api.create_branch(repo, branch="variant", revision=server.history(repo)[-1].id)
    server.clear()
    copies = [CommitOperationCopy(f"a.{kind}", f"b.{kind}", src_revision=first) for kind in ("safetensors", "txt")]
    commit(api, repo, *copies, revision="variant")
    assert server.tree(repo, "variant")["b.safetensors"] == sha256(WEIGHTS)
    assert server.read(repo, "b.txt", "variant") == b"text"
    assert (server.large_bytes_uploaded(), server.bytes_downloaded("*.safetensors")) == (0, 0)
    assert server.bytes_downloaded() == len(b"text")
    assert len(server.stored_blobs) == 1


@copies_between_repositories
def test_copies_between_repositories(server, api, repo, base):
    commit(api, repo, copy_from_base(src_revision=base), copy_from_base("config.json"), add("new.json"))
    assert server.tree(repo)["model.safetensors"] == sha256(WEIGHTS)
    assert server.read(repo, "config.json") == server.read("base/model", "config.json")
    assert (server.large_bytes_uploaded(), server.bytes_downloaded("*.safetensors")) == (0, 0)
    assert server.stored_blobs == {sha256(WEIGHTS): len(WEIGHTS)}


@copies_between_repositories
def test_copies_that_the_hub_refuses(server, api, repo, base):
    from huggingface_hub.errors import FileDuplicationError

    server.add_repo("base/far", {"model.safetensors": WEIGHTS}, region="eu")
    server.add_repo("base/gated", {"model.safetensors": WEIGHTS}, gated=True)
    server.add_repo("base/old", {"model.safetensors": WEIGHTS}, is_on_xet=False)
    refusals = {
        "base/far": (FileDuplicationError, "storage region eu"),
        "base/gated": (GatedRepoError, "restricted"),
        "base/old": (ValueError, "no xet hash"),
        "base/none": (RepositoryNotFoundError, "404"),
    }
    for source, (error, message) in refusals.items():
        with pytest.raises(error, match=message):
            commit(api, repo, add("a.txt"), copy_from_base("model.safetensors", src_repo_id=source))
    with pytest.raises(EntryNotFoundError, match="file is missing"):
        commit(api, repo, copy_from_base("missing.safetensors"))
    assert list(server.tree(repo)) == [".gitattributes"]


# Downloads


def test_downloads(server, anonymous, base, tmp_path):
    path = anonymous.hf_hub_download("base/model", "nested/model.safetensors", cache_dir=tmp_path)
    with open(path, "rb") as file:
        assert file.read() == WEIGHTS
    assert path.endswith(f"snapshots/{base}/nested/model.safetensors")
    assert server.bytes_downloaded("*.safetensors") == len(WEIGHTS)


def test_the_storage_gets_no_token(server, api, base, tmp_path):
    api.hf_hub_download("base/model", "nested/model.safetensors", cache_dir=tmp_path)
    (download,) = server.requests_to("/storage/download/")
    (resolve,) = server.requests_to("/resolve/")
    assert (resolve.is_authorized, download.is_authorized) == (True, False)


def test_snapshots(server, anonymous, base, tmp_path):
    server.commit("base/model", {"config.json": b"{}"}, deleted=["README.md"])
    for revision, expected in ((base, b'{"model_type": "base"}'), ("main", b"{}")):
        folder = anonymous.snapshot_download("base/model", revision=revision, cache_dir=tmp_path)
        with open(os.path.join(folder, "config.json"), "rb") as file:
            assert file.read() == expected
    assert server.bytes_downloaded("*.safetensors") == len(WEIGHTS)


def test_a_process_of_its_own(server, base, tmp_path):
    code = "import huggingface_hub; print(huggingface_hub.snapshot_download('base/model'))"
    variables = {**os.environ, **environment(server, tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    with open(os.path.join(result.stdout.strip(), "nested", "model.safetensors"), "rb") as file:
        assert file.read() == WEIGHTS
    assert result.stdout.startswith(str(tmp_path))


def test_the_list_of_coding_agents_is_no_counted_request(server, api, base):
    server.clear()
    assert get_session().get(f"{server.endpoint}/api/agent-harnesses").json() == {
        "standardEnvVars": [],
        "harnesses": {},
    }
    api.model_info("base/model")
    assert [request.path for request in server.requests] == ["/api/models/base/model"]


# Faults


@pytest.mark.parametrize("code", [500, 502, 503, 429])
def test_the_client_repeats_uploads_that_fail_for_a_while(server, api, repo, waits, code):
    server.clear()
    planned = server.fail(Fault.status(code, retry_after=7 if code == 429 else None), matching="^PUT", times=2)
    commit(api, repo, add("model.safetensors", WEIGHTS))
    assert planned.fired == 2
    assert waits == ([8.0, 8.0] if code == 429 else [1, 2])
    assert server.tree(repo)["model.safetensors"] == sha256(WEIGHTS)


def test_faults_that_stay(server, api, repo, waits):
    server.fail(Fault.status(503), matching="^PUT", times=None)
    with pytest.raises(RuntimeError, match=r"Error while uploading 'model\.safetensors'") as caught:
        commit(api, repo, add("model.safetensors", WEIGHTS))
    assert caught.value.__cause__.response.status_code == 503
    assert len(server.requests_to("^PUT")) == 6
    assert list(server.tree(repo)) == [".gitattributes"]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 413])
def test_statuses_that_the_client_does_not_repeat(server, api, repo, waits, code):
    server.fail(Fault.status(code, message="because of the test"), matching="/preupload/", times=None)
    with pytest.raises(HfHubHTTPError, match="because of the test") as caught:
        commit(api, repo, add("a.txt"))
    assert caught.value.response.status_code == code
    assert waits == []


def test_an_upload_whose_connection_drops_is_repeated(server, api, repo, waits):
    planned = [server.fail(fault, matching="^PUT") for fault in (Fault.drop(), Fault.cut())]
    commit(api, repo, add("model.safetensors", WEIGHTS * 100))
    assert [fault.fired for fault in planned] == [1, 1]
    assert waits == [1, 2]
    assert server.tree(repo)["model.safetensors"] == sha256(WEIGHTS * 100)


def test_a_commit_whose_answer_is_lost_is_there(server, api, repo, waits):
    server.fail(Fault.cut(), matching="/commit/")
    with pytest.raises(Exception, match=r"closed connection|disconnected"):
        commit(api, repo, add("a.txt"))
    assert server.read(repo, "a.txt") == b"text"


def test_a_download_that_is_cut_goes_on_where_it_ended(server, anonymous, base, waits, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    server.fail(Fault.cut(), matching="/storage/download/")
    path = anonymous.hf_hub_download("base/model", "nested/model.safetensors", cache_dir=tmp_path)
    with open(path, "rb") as file:
        assert file.read() == WEIGHTS
    assert server.bytes_downloaded() == len(WEIGHTS)
    assert [request.status for request in server.requests_to("/storage/download/")] == [200, 206]


def test_slow_answers_are_right(server, api, repo):
    server.fail(Fault.slow(0.01), times=None)
    commit(api, repo, add("a.txt"))
    assert {request.fault for request in server.requests[1:]} == {"slow"}


def test_damaged_uploads_are_refused(server, api, repo):
    server.fail(Fault.damaged_bytes(), matching="^PUT")
    with pytest.raises(RuntimeError) as caught:
        commit(api, repo, add("model.safetensors", WEIGHTS))
    assert "BadDigest" in str(caught.value.__cause__)
    assert server.stored_blobs == {}
    commit(api, repo, add("model.safetensors", WEIGHTS))
    assert server.stored_blobs == {sha256(WEIGHTS): len(WEIGHTS)}


def test_downloads_can_be_damaged_on_the_way_and_in_the_store(server, anonymous, base, tmp_path):
    server.fail(Fault.damaged_bytes(), matching="/storage/download/")
    for name in ("way", "sound", "store"):
        if name == "store":
            server.damage("base/model", "nested/model.safetensors")
        path = anonymous.hf_hub_download("base/model", "nested/model.safetensors", cache_dir=tmp_path / name)
        with open(path, "rb") as file:
            assert (file.read() == WEIGHTS) == (name == "sound")
    assert server.tree("base/model")["nested/model.safetensors"] == sha256(WEIGHTS)


def test_the_hub_can_tell_wrong_hashes(server, api, base):
    server.fail(Fault.wrong_hash(), matching="^GET /api/models/base/model")
    told = [api.model_info("base/model", files_metadata=True).siblings[-1].lfs.sha256 for _ in range(2)]
    assert told[0] != sha256(WEIGHTS)
    assert told[1] == sha256(WEIGHTS)


FAULTS = [Fault.status(500), Fault.status(429, retry_after=0), Fault.drop(), Fault.status(401), Fault.wrong_hash()]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_commit_that_fails_at_any_request_is_all_or_nothing(server, api, base, waits, fault):
    def push(repo):
        api.create_repo(repo, exist_ok=True)
        api.create_branch(repo, branch="variant", exist_ok=True)
        commit(api, repo, add("a.txt"), add("model.safetensors", WEIGHTS), revision="variant")

    server.clear()
    push("me/clean")
    whole = set(server.tree("me/clean", "variant"))
    for number in range(1, len(server.requests) + 1):
        repo = f"me/model-{number}"
        server.clear()
        planned = server.fail(fault, at=number)
        with suppress(Exception):
            push(repo)
        assert planned.fired == 1
        if repo in server.repositories:
            trees = [set(server.tree(repo, branch)) for branch in server.branches(repo)]
            assert all(tree in ({".gitattributes"}, whole) for tree in trees)
        push(repo)
        assert server.tree(repo, "variant") == server.tree("me/clean", "variant")


def test_requests_are_recorded(server, api, anonymous, repo):
    server.clear()
    anonymous.model_info(repo)
    commit(api, repo, add("a.txt"))
    assert [request.number for request in server.requests] == list(range(1, len(server.requests) + 1))
    info, *_, last = server.requests
    assert (info.method, info.path, info.is_authorized, info.status) == ("GET", "/api/models/me/model", False, 200)
    assert (last.method, last.path, last.is_authorized) == ("POST", "/api/models/me/model/commit/main", True)
    assert last.bytes_received > 0
    assert last.bytes_sent > 0


def test_a_hub_that_is_down_looks_like_an_empty_cache(server, api, waits, tmp_path):
    server.fail(Fault.status(500), times=None)
    with pytest.raises(LocalEntryNotFoundError):
        api.hf_hub_download("base/model", "config.json", cache_dir=tmp_path)


def test_a_squashed_history_is_one_commit(server, api):
    server.add_repo("me/model", {"a.txt": "first"}, branches={"other": {"b.txt": "b"}})
    server.commit("me/model", {"a.txt": "second"})
    old = [commit.id for commit in server.history("me/model")]
    api.super_squash_history("me/model")
    (commit,) = api.list_repo_commits("me/model")
    assert commit.title.startswith("Super-squash branch")
    assert server.read("me/model", "a.txt") == b"second"
    assert server.read("me/model", "b.txt", "other") == b"b"
    with pytest.raises(RevisionNotFoundError):
        api.model_info("me/model", revision=old[0])
