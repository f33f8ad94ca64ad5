"""Writing a folder: where it may stand, what it may replace, and what is left when a run is stopped."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import huggingface_hub
import pytest

from hub_upload import output_place, placing
from hub_upload.errors import PushError
from hub_upload.files import FileOnDisk, GeneratedFile
from hub_upload.output_folder import check_output, claim_output
from hub_upload.output_marker import MARKER
from hub_upload.output_place import check_place
from hub_upload.placing import place_files

HERE = Path(__file__).parent
OLD, NEW = ({"a.txt": content, "below/b.txt": content} for content in ("old", "new"))


def write(path, content="new", variant="variant", base=None, overwrite=True, meanwhile=lambda: None):
    """Writes a folder as a push does; returns what the user was told."""
    files = [GeneratedFile("a.txt", content.encode()), GeneratedFile("below/b.txt", content.encode())]
    told = []
    with claim_output(path, variant, base, overwrite, told.append) as output:
        meanwhile()
        output.write(lambda folder: place_files(files, folder, hard_links=False))
    return told


def content(folder):
    """What stands in a folder, but for the marker: the text of files, and what else there is."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
        if path.name != MARKER and not (path.name == "below" and not path.is_symlink())
    }


# Where


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A base among other models, a working directory, a home and the Hub's cache."""
    for folder in ("models/base/below", "models/other", "work/now", "homes/me", "caches/hub/models--x", "links"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "models/base/config.json").write_text("{}")
    (tmp_path / "links/base").symlink_to(tmp_path / "models/base")
    (tmp_path / "links/models").symlink_to(tmp_path / "models")
    (tmp_path / "links/gone").symlink_to(tmp_path / "gone")
    (tmp_path / "links/file").write_text("mine")
    os.mkfifo(tmp_path / "links/pipe")
    monkeypatch.chdir(tmp_path / "work/now")
    monkeypatch.setenv("HOME", str(tmp_path / "homes/me"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "caches/hub"))
    return tmp_path


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("models/base", "is the base"),
        ("models/base/below", "lies in the base"),
        ("models/base/new/one", "lies in the base"),
        ("models", "holds the base"),
        ("models/other/../base", "is the base"),
        ("links/base/new", "lies in the base"),
        ("links/models/base", "is the base"),
        ("links/models/../models", "holds the base"),
        ("links/base", "is a symbolic link"),
        ("links/gone", "is a symbolic link"),
        ("links/file", "is a file"),
        ("links/pipe", "is no folder"),
        ("links/file/new", "cannot be written"),
        ("work/now", "is the working directory"),
        ("work", "holds the working directory"),
        ("homes/me", "is the home directory"),
        ("homes", "holds the home directory"),
        ("caches/hub", "is huggingface_hub's cache"),
        ("caches/hub/models--x", "lies in huggingface_hub's cache"),
        ("caches/hub/new", "lies in huggingface_hub's cache"),
        ("caches", "holds huggingface_hub's cache"),
        (".", "is the working directory"),
        ("", "is the working directory"),
        ("..", "holds the working directory"),
        ("../../models/base", "is the base"),
        ("/", "is the root of the file system"),
        ("/../", "is the root of the file system"),
        ("/proc", "is a mount point"),
    ],
)
@pytest.mark.parametrize("is_dry_run", [True, False])
def test_a_folder_is_never_written_where_something_else_stands(is_dry_run, path, reason, places):
    is_below = not path.startswith(("/", ".")) and path
    path = places / path if is_below else Path(path)
    base = places / "models/base"
    before = sorted(places.rglob("*"))
    with pytest.raises(PushError, match="--output") as error:
        (check_output if is_dry_run else write)(path, variant="variant", base=base, overwrite=True)
    assert reason in str(error.value)
    assert re.search("[Gg]ive (another|a) folder|give the folder that it leads to", str(error.value))
    assert sorted(places.rglob("*")) == before


def test_what_is_near_these_places_is_allowed(places):
    for path in ("models/new", "links/models/new", "work/now/new", "../new", "homes/me/new", "caches/new", "a/b/c"):
        path = places / path if not path.startswith("..") else Path(path)
        write(path, base=places / "models/base")
        assert content(path) == NEW
    assert not list(places.rglob(".*.aot-llava"))


def test_the_folder_that_a_bases_links_lead_to_is_the_bases(places):
    """A base may consist of links into what this command once wrote."""
    write(places / "out", "old")
    (places / "models/base/model.safetensors").symlink_to(places / "out/a.txt")
    with pytest.raises(PushError, match="where files of the base lie"):
        write(places / "out", base=places / "models/base")
    assert content(places / "out") == OLD


def test_mount_points_are_refused(tmp_path, monkeypatch):
    """Within one file system, a bind mount is told by the system's list alone, where a blank is written as \\040."""
    out = tmp_path / "with blank"
    out.mkdir()
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 98:0 /x {str(out).replace(' ', chr(92) + '040')} rw,noatime - ext4 /dev/vda rw\n")
    monkeypatch.setattr(output_place, "_MOUNTS", mounts)
    with pytest.raises(PushError, match="is a mount point"):
        check_place(out, None)
    assert check_place(out / "new", None) == out / "new"


def test_a_bind_mount_of_the_base_is_the_base(places):
    """Its path and its links say nothing: device and inode do."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom hub_upload.output_place import check_place\n"
        "from hub_upload.errors import PushError\n"
        "for path in sys.argv[2:]:\n"
        "    try:\n        check_place(Path(path), Path(sys.argv[1]))\n        print('allowed')\n"
        "    except PushError as error:\n        print(error)\n"
    )
    base, bound = places / "models/base", places / "models/other"
    arguments = [base, bound / "new", places / "homes" / "new"]
    (places / "homes").joinpath("below").mkdir()
    script = f'mount --bind "{base}" "{bound}" && mount --bind "{base}/below" "{places}/homes/below" && exec "$@"'
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", sys.executable, "-c", program]
    arguments = [base, bound / "new", places / "homes/below/new", places / "homes/new"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "HF_HOME": str(places / "caches")}
    ran = subprocess.run(
        [*command, *map(str, arguments)], check=False, capture_output=True, text=True, cwd=places, env=environment
    )
    if ran.returncode and "hub_upload" not in ran.stderr:
        pytest.skip(f"this machine lets nobody mount: {ran.stderr.strip()}")
    first, second, third = ran.stdout.splitlines()
    assert "lies in the base" in first
    assert "where files of the base lie" in second
    assert third == "allowed"


# What may be replaced


def add(name, text="mine"):
    def change(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    return change


def rewrite_keeping_size_and_date(folder):
    status = (folder / "a.txt").stat()
    (folder / "a.txt").write_text("old"[::-1])
    os.utime(folder / "a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))


def link_instead(folder):
    (folder / "a.txt").rename(folder.parent / "elsewhere")
    (folder / "a.txt").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (add("notes.txt"), "notes.txt"),
        (add(".git/HEAD"), ".git"),
        (add("below/optimizer.pt"), "below/optimizer.pt"),
        (add("a.txt", "edited"), "a.txt"),
        (rewrite_keeping_size_and_date, "a.txt"),
        (link_instead, "a.txt"),
        (lambda folder: (folder / "empty").mkdir(), "empty"),
        (lambda folder: (folder / "link").symlink_to("/"), "link"),
        (lambda folder: os.mkfifo(folder / "pipe"), "pipe"),
        (lambda folder: (folder / MARKER).unlink(), "did not write it"),
        (lambda folder: (folder / MARKER).write_text("[" * 100_000), "did not write it"),
        (lambda folder: (folder / MARKER).write_text('{"variant": "variant"}'), "did not write it"),
        (lambda folder: (folder / MARKER).write_text("[]"), "did not write it"),
        (lambda folder: (folder / MARKER).write_bytes(b"\xff"), "did not write it"),
        (lambda folder: (folder / MARKER).write_text("1" * 5_000), "did not write it"),
    ],
)
def test_what_the_user_put_into_a_folder_is_never_removed(change, named, tmp_path):
    out = tmp_path / "out"
    write(out, "old")
    change(out)
    before = content(out)
    for overwrite in (True, False):
        with pytest.raises(PushError, match="is not empty"):
            write(out, overwrite=overwrite)
    with pytest.raises(PushError) as error:
        check_output(out, "variant", None, overwrite=True)
    assert named in str(error.value)
    assert content(out) == before
    assert not list(tmp_path.glob(".out*"))


def test_another_variants_folder_is_not_replaced(tmp_path):
    write(tmp_path / "out", "old", variant="one")
    with pytest.raises(PushError, match=r"holds the variant one, not other\. Give another folder"):
        write(tmp_path / "out", variant="other")
    assert content(tmp_path / "out") == OLD


def test_a_folder_of_the_same_variant_is_replaced_on_demand_alone(tmp_path):
    out = tmp_path / "out"
    write(out, "old")
    with pytest.raises(PushError, match="--overwrite to replace it"):
        write(out, overwrite=False)
    assert content(out) == OLD
    out.chmod(0o700)
    (out / "below/b.txt").unlink()  # what the user removed is no loss
    write(out)
    assert content(out) == NEW
    assert out.stat().st_mode & 0o777 == 0o700, "what was private stays private"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("protected", ["out", "out/below"])
def test_a_folder_that_is_write_protected_is_not_replaced(protected, tmp_path, monkeypatch):
    write(tmp_path / "out", "old")
    # As it is for everybody but root, who may run this.
    monkeypatch.setattr(os, "access", lambda folder, _: folder != tmp_path / protected)
    with pytest.raises(PushError, match=f"is write-protected: .* permission to write to .*{protected}"):
        write(tmp_path / "out")
    assert content(tmp_path / "out") == OLD


def test_a_forged_marker_reaches_nothing_outside(tmp_path):
    out, victim = tmp_path / "out", tmp_path / "victim.txt"
    victim.write_text("mine")
    write(out, "old")
    marker = json.loads((out / MARKER).read_text())
    marker["hashes"] |= {name: FileOnDisk(name, victim).sha256 for name in ("../victim.txt", str(victim))}
    (out / MARKER).write_text(json.dumps(marker))
    write(out)
    assert (content(out), victim.read_text()) == (NEW, "mine")


def test_what_appears_while_the_run_goes_on_is_kept(tmp_path):
    def make_file():
        (tmp_path / "out").write_text("mine")

    def make_link():
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "out").symlink_to(tmp_path / "elsewhere")

    def make_folder():
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out/notes.txt").write_text("mine")

    for begins_with in ("nothing", "an empty folder", "an older one"):
        for appears in (make_file, make_link, make_folder):
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()
            if begins_with == "an empty folder":
                (tmp_path / "out").mkdir()
            if begins_with == "an older one":
                write(tmp_path / "out", "old")

            def meanwhile(appears=appears):
                if appears is not make_folder and (tmp_path / "out").exists():
                    (tmp_path / "out").rename(tmp_path / "moved away")
                appears()

            with pytest.raises(PushError, match="was changed while the run went on: it stays as it is"):
                write(tmp_path / "out", meanwhile=meanwhile)
            kept = tmp_path / "out"
            if appears is make_file:
                assert kept.read_text() == "mine"
            elif appears is make_link:
                assert kept.is_symlink()
                assert not list(kept.iterdir())
            else:
                assert content(kept) == {"notes.txt": "mine", **(OLD if begins_with == "an older one" else {})}
            assert not list(tmp_path.glob(".out*"))


def test_a_folder_that_goes_while_the_run_goes_on_is_written_anew(tmp_path):
    write(tmp_path / "out", "old")
    write(tmp_path / "out", meanwhile=lambda: (tmp_path / "out").rename(tmp_path / "moved away"))
    assert content(tmp_path / "out") == NEW
    assert content(tmp_path / "moved away") == OLD


# Two runs, and what runs leave behind


def test_the_second_of_two_runs_is_refused(tmp_path):
    out = tmp_path / "new" / "out"

    def second():
        with pytest.raises(PushError, match="is being written by another run: wait until it is done"):
            write(out, "second")

    write(out, meanwhile=second)
    assert content(out) == NEW
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_run_that_fails_leaves_nothing(tmp_path):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a/b/out", meanwhile=fail)
    assert not list(tmp_path.iterdir())


def test_where_runs_cannot_be_kept_apart_nothing_is_written(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("hub_upload.work_folder.fcntl.flock", refuse)
    with pytest.raises(PushError, match=r"cannot be written.*No locks available"):
        write(tmp_path / "a/out")
    assert not (tmp_path / "a/out").exists()


@pytest.mark.parametrize("kind", ["link", "file", "folder of another user"])
def test_what_somebody_else_put_in_the_hidden_folders_place_is_left_alone(kind, tmp_path, monkeypatch):
    theirs, work = tmp_path / "theirs", tmp_path / ".out.aot-llava"
    (theirs / "building").mkdir(parents=True)
    (theirs / "building/file").write_text("theirs")
    if kind == "link":
        work.symlink_to(theirs)
    elif kind == "file":
        work.write_text("theirs")
    else:
        theirs.rename(work)
        another = os.geteuid() + 1
        monkeypatch.setattr("hub_upload.work_folder.os.geteuid", lambda: another)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PushError, match="cannot be written"):
        write(tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("lock", [None, "", "pid 17", "The folder"], ids=["none", "empty", "another's", "cut"])
@pytest.mark.parametrize("name", ["building/weights.safetensors", "old-1/notes.txt", "notes.txt"])
def test_the_users_own_folder_of_the_hidden_name_is_left_alone(name, lock, tmp_path):
    file = tmp_path / ".out.aot-llava" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    if lock is not None:
        (tmp_path / ".out.aot-llava/lock").write_text(lock)
    before = {path: path.is_file() and path.read_text() for path in tmp_path.rglob("*")}
    with pytest.raises(PushError, match=r"\.out\.aot-llava holds what this command did not put there"):
        write(tmp_path / "out")
    assert {path: path.is_file() and path.read_text() for path in tmp_path.rglob("*")} == before


def test_a_killed_runs_half_of_a_folder_is_known_by_its_lock_and_removed(tmp_path):
    def kill():
        pid = os.fork()
        if pid == 0:
            with claim_output(tmp_path / "out", "variant", None, True, print) as output:
                output.write(lambda folder: ((folder / "half").write_text("new"), os._exit(0)))
        os.waitpid(pid, 0)

    kill()
    assert (tmp_path / ".out.aot-llava/building/half").exists()
    write(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert content(tmp_path / "out") == NEW


def test_a_run_killed_before_its_lock_was_signed_stops_no_other(tmp_path):
    (tmp_path / ".out.aot-llava").mkdir()
    (tmp_path / ".out.aot-llava/lock").touch()
    write(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture(scope="module")
def stops(tmp_path_factory):
    """What stood on the disk whenever a run was stopped, by scenario and way of replacing."""
    folder = tmp_path_factory.mktemp("stopped")
    program = subprocess.run(
        [sys.executable, HERE / "stopped_runs.py", folder / "runs"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
    )
    assert program.returncode == 0, program.stderr
    stops = defaultdict(list)
    for line in program.stdout.splitlines():
        stop = json.loads(line)
        stops[stop["scenario"], stop["at_once"]].append(stop)
    return stops


@pytest.mark.parametrize("at_once", [True, False])
def test_whenever_a_run_is_stopped_the_folder_stands_or_is_put_back(at_once, stops):
    """A run that replaces what the command wrote: the old folder or the new one stands, whole, and nothing else."""
    told = stops["replaced", at_once]
    assert sum(stop["was_stopped"] for stop in told) > 30
    missing = [stop for stop in told if stop["then"] is None]
    # Where they change places at once, one of them stands at every moment.
    assert bool(missing) != at_once
    for stop in missing:
        assert (stop["way"], stop["later"], stop["is_same_folder"]) == ("kill", OLD, True)
        assert "is back in its place" in " ".join(stop["said"])
    for stop in told:
        assert stop["later"] in (OLD, NEW)
        assert stop["then"] in (None, stop["later"])
        assert stop["is_same_folder"] == (stop["later"] == OLD)
        assert not stop["beside"]
        assert not stop["refusal"]
    assert {str(stop["later"]) for stop in told} == {str(OLD), str(NEW)}


@pytest.mark.parametrize("at_once", [True, False])
def test_whenever_a_run_is_stopped_a_file_that_was_put_in_at_the_last_moment_is_kept(at_once, stops):
    told = stops["added", at_once]
    added = [stop for stop in told if "notes.txt" in stop["later"]]
    assert len(added) > 20
    for stop in told:
        assert stop["is_same_folder"]
        assert not stop["beside"]
    for stop in added:
        assert stop["later"] == {**OLD, "notes.txt": "mine"}
        assert "notes.txt" in stop["refusal"]
        assert stop["then"] == stop["later"] or "is back in its place" in " ".join(stop["said"])
        assert stop["then"] == stop["later"] or stop["way"] == "kill"


def test_what_was_put_in_its_place_meanwhile_is_not_replaced_by_what_stood_there(stops):
    told = stops["remade", False]
    remade = [stop for stop in told if "theirs.txt" in stop["later"]]
    assert remade
    for stop in remade:
        assert stop["later"] == {"theirs.txt": "theirs"}
        assert {"a.txt: old", "b.txt: old"} <= set(stop["beside"])
        assert "something else stands there now: what was there before is in" in stop["refusal"]


# How files get there


def place(folder, *files, hard_links=False):
    (folder / "out").mkdir()
    place_files(files, folder / "out", hard_links)
    return folder / "out"


def test_a_copy_may_be_changed_and_removed_whatever_it_was_made_of(tmp_path, capsys):
    source = tmp_path / "model.safetensors"
    source.write_bytes(b"weights" * 1000)
    source.chmod(0o400)
    out = place(tmp_path, FileOnDisk("model.safetensors", source))
    assert (out / "model.safetensors").read_bytes() == source.read_bytes()
    assert (out / "model.safetensors").stat().st_mode & 0o600 == 0o600
    assert not (out / "model.safetensors").samefile(source)
    assert "Copying: 100%" in capsys.readouterr().err


def test_what_the_file_system_clones_is_not_copied(tmp_path, monkeypatch, capsys):
    asked = []

    def clone(new, request, old):
        asked.append(request)
        os.write(new, os.read(old, 100))

    monkeypatch.setattr(placing.fcntl, "ioctl", clone)
    monkeypatch.setattr(placing, "copy", lambda *_: pytest.fail("it was copied"))
    # A clone takes no space.
    monkeypatch.setattr(placing.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    (tmp_path / "a.safetensors").write_bytes(b"weights")
    out = place(tmp_path, FileOnDisk("a.safetensors", tmp_path / "a.safetensors"))
    assert (out / "a.safetensors").read_bytes() == b"weights"
    # include/uapi/linux/fs.h: _IOW(0x94, 9, int)
    assert asked == [1 << 30 | 4 << 16 | 0x94 << 8 | 9]
    assert "Copying" not in capsys.readouterr().err


def test_without_room_nothing_is_copied(tmp_path, monkeypatch):
    (tmp_path / "a.safetensors").write_bytes(bytes(2000))
    monkeypatch.setattr(placing.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9000, 8001, 999))
    monkeypatch.setattr(placing, "copy", lambda *_: pytest.fail("it was copied"))
    with (
        pytest.raises(PushError, match=r"2\.0 kB are to be copied, and 999 B are free"),
        claim_output(tmp_path / "out", "variant", None, False, pytest.fail) as output,
    ):
        output.write(lambda folder: place_files([FileOnDisk("a", tmp_path / "a.safetensors")], folder, False))
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_link_that_cannot_be_made_is_said_and_not_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    (tmp_path / "a.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(placing.os, "link", refuse)
    with pytest.raises(
        PushError, match=r"cannot be hard-linked \(Invalid cross-device link\): leave out --hard-links"
    ):
        place(tmp_path, FileOnDisk("a.safetensors", tmp_path / "a.safetensors"), hard_links=True)
