"""Names of repositories and branches are checked before the first request, by the Hub's rules and git's."""

import shutil
import subprocess

import pytest
from hub_pushes import TEN, assert_failed, push, run
from hub_server import HubServer
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_upload.names import branch_problem, repo_id_problem, revision_problem

BAD_IDS = ["aot", "a/b/c", "me/a--b", "me/a..b", "-me/a", "me/a.git", "me/.a", "me/a-", "mé/a", "me/ä", "me/a b", "/a"]
BAD_IDS += ["me/", "me/a\n", f"me/{'a' * 97}", "https://hub/me/a", "", "me/a@x"]
BAD_BRANCHES = [
    "a..b",
    "a b",
    "a~1",
    "a^",
    "a:b",
    "a?",
    "a*",
    "a[0]",
    "a\\b",
    ".a",
    "a.",
    "a/",
    "/a",
    "a//b",
    "a.lock",
]
BAD_BRANCHES += [
    "a.lock/b",
    "a/.b",
    "@",
    "a@{1}",
    "-a",
    "a\x1bb",
    "a\x7f",
    "HEAD",
    "refs/pr/1",
    "a" * 40,
    "a" * 300,
    "",
]
BAD_BRANCHES += ["a\u202eb", "a\udcffb"]


@pytest.mark.parametrize("repo_id", BAD_IDS)
def test_what_is_no_repository_is_refused_before_the_first_request(repo_id):
    with HubServer() as server:
        line = assert_failed(push(server, repo_id=repo_id), "is no repository: give owner/name", exit_code=2)
        assert "un the same command again" not in line
        assert not server.requests


@pytest.mark.parametrize("branch", BAD_BRANCHES)
def test_what_can_be_no_branch_is_refused_before_the_first_request(branch):
    with HubServer() as server:
        line = assert_failed(push(server, f"--revision={branch}"), "--revision", "can be no branch", exit_code=2)
        assert "un the same command again" not in line
        assert line.isprintable()
        assert not server.requests


def test_bases_and_their_revisions_are_checked_too(tmp_path):
    with HubServer() as server:
        assert_failed(push(server, base="me/a--b"), "there is no folder me/a--b", "Hub ID", exit_code=2)
        assert_failed(
            push(server, "--base-revision", "main~1"), "--base-revision main~1", "git allows no '~'", exit_code=2
        )
        variant = tmp_path / "mine.json"
        variant.write_text('{"base_model": "me/a--b", "num_frames": 8}')
        assert_failed(run("--variant", variant, "--repo-id", "me/aot"), "mine.json: `base_model` is 'me/a--b'")
        variant = tmp_path / "a..b.json"
        variant.write_text('{"base_model": "me/a", "num_frames": 8}')
        assert_failed(run("--variant", variant, "--repo-id", "me/aot"), "its name becomes a branch")
        assert_failed(
            push(server, "--variant", TEN.replace("10", "15"), "--revision", "x"), "names one branch", exit_code=2
        )
        assert not server.requests


@pytest.mark.parametrize("name", ["main", "v1.0", "a/b", "ä", "x-10_y"])
def test_good_names_are_taken(name):
    assert branch_problem(name) is None
    assert repo_id_problem("Foo-BAR_foo.bar123/a_b.c-1") is None
    assert revision_problem("refs/pr/1") is None
    assert revision_problem("a" * 40) is None


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the witness")
@settings(max_examples=60)
@given(st.text(alphabet="ab.@{/~ -\\:lock\x7f", min_size=1, max_size=8))
def test_git_takes_every_branch_that_is_taken_here(name):
    if branch_problem(name) is None:
        subprocess.run(["git", "check-ref-format", "--branch", name], check=True, capture_output=True)
