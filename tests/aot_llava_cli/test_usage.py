"""How the programs answer a wrong command line, and what is told before torch is imported."""

import http.server
import os
import subprocess
import sys
import threading
from importlib.metadata import version

import pytest
from command_results import assert_one_line
from hub_server import HubServer, use_in_this_process
from PIL import Image
from random_checkpoint import save_random_checkpoint
from typer.testing import CliRunner

from aot_llava_cli import answer, video_look
from aot_llava_cli.__main__ import app
from aot_llava_cli.mini import MINI_CHECKPOINT, MINI_CLIP
from hub_upload.suggestions import did_you_mean

# Such a command has not imported torch, so that nobody waits for it.
RUN_WITHOUT_TORCH = """
import sys
from aot_llava_cli.__main__ import main
try:
    main()
finally:
    assert not {"torch", "transformers"} & set(sys.modules)
"""


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], prog_name="aot-llava")


def run_alone(program, *arguments, **options):
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        encoding="utf-8",
        **options,
    )


# One style


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["genrate"], "No such command: genrate. Did you mean generate?"),
        (["quit"], "No such command: quit. See `aot-llava --help`."),
        (["--verison"], "No such option: --verison. Did you mean --version?"),
        (["generate", "--ratio", "0.1"], "No such option: --ratio. Did you mean --retention-ratio?"),
        (["generate", "--frames", "8"], "No such option: --frames. Did you mean --num-frames?"),
        (["generate", "--quietly"], "No such option: --quietly. See `aot-llava generate --help`."),
        (["generate", "--num-frames"], "Option --num-frames requires an argument."),
        (["generate", "--device", "cdua"], "Invalid value for --device: 'cdua' is no device. Did you mean cuda?"),
        (["generate", "--device", "cuda:x"], "Invalid value for --device: 'cuda:x' is no device."),
        (["generate", "--dtype", "bf16"], "Invalid value for --dtype: 'bf16' is no type of the weights. Did you"),
        (["generate", "--revision", "v1"], "Invalid value for --revision: 'v1' is one of a model on the Hub, but the"),
        (["generate", "--num-frames", "0"], "Invalid value for --num-frames: '0' is not a whole number from 1."),
        (["generate", "one.mp4", "two.mp4"], "Got unexpected extra argument(s) (two.mp4). See `aot-llava generate"),
        (["visualize", "--htlm"], "No such option: --htlm. Did you mean --html?"),
        (["visualize", "--output", "x.jpg"], "Invalid value for --output: x.jpg does not end in .png."),
        (["push"], "Missing option --variant. See `aot-llava push --help`."),
        (["push", "--varient", "x"], "No such option: --varient. Did you mean --variant"),
        (["benchmark", "--frmes", "8"], "No such option: --frmes. Did you mean --frames"),
        (["benchmark", "--shape", "tinny"], "Invalid value for --shape: 'tinny' is none of "),
        (["benchmark", "--frames"], "Option --frames requires an argument."),
        (["benchmark", "--frames", "0"], "Invalid value for --frames: '0' is not an integer from 1"),
        (["benchmark", "--device", "cdua"], "Invalid value for --device: 'cdua' is none of cpu, cuda and cuda:N. Did"),
        (["benchmark", "--device", "cuda:99", "--no-plot"], "Invalid value for --device: 'cuda:99' is not there: "),
        (["benchmark", "now"], "Got an unexpected argument: now."),
    ],
)
def test_wrong_usage_is_one_line_and_ends_with_2(arguments, said, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert_one_line(result, 2)
    *_, line = result.stderr.splitlines()
    assert line.startswith(f"aot-llava: {said}")


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        ("hub_upload", [], "Missing option --variant. See `python -m hub_upload --help`."),
        ("hub_upload", ["--repo", "a/b"], "No such option: --repo. Did you mean --repo-id"),
        ("hub_upload", ["--variant", "x", "y"], "Got an unexpected argument: y."),
        ("benchmarks", ["--shap", "tiny", "--reapeats", "1"], "unrecognized arguments: --reapeats 1. Did you mean --"),
        ("benchmarks", ["--shape", "0.5"], "argument --shape: invalid choice: '0.5'"),
    ],
)
def test_the_programs_of_modules_do_so_too(program, arguments, said):
    result = run_alone(["-m", program], *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"python -m {program}: {said}")


def test_no_argument_is_answered_with_the_help():
    result = run()
    assert result.exit_code == 2
    assert "generate" in result.output
    assert "visualize" in result.output


@pytest.mark.parametrize(
    ("given", "known", "said"),
    [
        ("--mdoel", ["--model", "--prompt"], " Did you mean --model?"),
        ("--tokens", ["--max-new-tokens", "--prompt"], " Did you mean --max-new-tokens?"),
        ("--zzz", ["--model", "--prompt"], ""),
        ("x", [], ""),
    ],
)
def test_what_was_meant(given, known, said):
    assert did_you_mean(given, known) == said


def test_the_version():
    assert run("--version").stdout == f"aot-llava {version('aot-llava')}\n"


@pytest.mark.parametrize("error", [MemoryError("12 GiB"), type("OutOfMemoryError", (RuntimeError,), {})("12 GiB")])
def test_too_little_memory_is_one_line(error, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(answer, "load_model", fail)
    assert_one_line(run("generate", "--num-frames", 1), 1, "memory", "12 GiB")


def test_a_letter_that_the_console_does_not_have_stops_nothing():
    result = run_alone(
        ["-m", "aot_llava_cli"],
        *("generate", "--num-frames", "1", "--prompt", "→"),
        env={**os.environ, "PYTHONIOENCODING": "cp1252:strict"},
    )
    assert result.returncode == 0, result.stderr
    assert "Question: \\u2192" in result.stderr
    assert "Video tokens 196 \\u2192" in result.stderr


# Where it runs, and what


def test_device_type_and_revision_reach_the_model(tmp_path, monkeypatch):
    """A branch whose checkpoint keeps half of the tokens, where main keeps a tenth."""
    folders = {ratio: tmp_path / str(ratio) for ratio in (0.1, 0.5)}
    for ratio, folder in folders.items():
        save_random_checkpoint(folder, retention_ratio=ratio)
    files = {ratio: {file.name: file for file in folder.iterdir()} for ratio, folder in folders.items()}
    loaded = []
    load_model = answer.load_model
    monkeypatch.setattr(answer, "load_model", lambda *arguments: loaded.append(load_model(*arguments)) or loaded[-1])
    with HubServer() as server:
        use_in_this_process(server, monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        server.add_repo("me/aot", files[0.1], branches={"half": files[0.5]})
        options = ["--model", "me/aot", "--num-frames", 2, "--max-new-tokens", 1]
        main = run("generate", *options)
        half = run("generate", *options, "--revision", "half", "--device", "cpu", "--dtype", "float16")
        nothing = run("generate", *options, "--revision", "nothing")
    assert "392 → 39 " in main.stderr, main.output
    assert "392 → 196 " in half.stderr, half.output
    assert_one_line(nothing, 1, "nothing")
    assert [str(model.dtype) for model in loaded] == ["torch.float32", "torch.float16"]
    assert {model.device.type for model in loaded} == {"cpu"}


@pytest.mark.parametrize("command", ["generate", "visualize"])
def test_a_device_that_is_not_there_is_named_before_the_checkpoint_is_read(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(answer, "load_processor", lambda *_: pytest.fail("it loaded the checkpoint"))
    assert_one_line(run(command, "--device", "cuda:99"), 2, "--device", "'cuda:99' is not there")


def test_a_folder_has_no_revision():
    result = run("generate", "--model", MINI_CHECKPOINT, "--revision", "main")
    assert_one_line(result, 2, "--revision", "is a folder", "Hub ID")


# The video first


@pytest.fixture
def no_videos(tmp_path):
    """Files and folders that are no video, by what is said of each."""
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes(MINI_CLIP.read_bytes()[:60_000])
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_text("not a picture")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "page.txt").write_text("no video either")
    return tmp_path


@pytest.mark.parametrize("command", ["generate", "visualize"])
@pytest.mark.parametrize(
    ("video", "exit_code", "said"),
    [
        ("missing.mp4", 2, "missing.mp4 does not exist"),
        ("nothing", 2, "nothing is a folder without pictures"),
        ("text.mp4", 1, "text.mp4 cannot be read as a video"),
        ("empty.mp4", 1, "empty.mp4 is empty"),
        ("cut.mp4", 1, "cut.mp4"),
        ("page.txt", 1, "page.txt"),
        ("pictures", 1, "1.png"),
        ("http://127.0.0.1:9/clip.mp4", 1, "http://127.0.0.1:9/clip.mp4 cannot be downloaded"),
        ("data:video/mp4;base64,AAAA", 1, "data:video/mp4;base64,AAAA"),
    ],
)
def test_what_is_no_video_is_told_before_torch_is_imported(command, video, exit_code, said, no_videos):
    result = run_alone(["-c", RUN_WITHOUT_TORCH], command, video, cwd=no_videos, env=_finding_the_packages())
    assert result.returncode == exit_code, result.stderr
    assert "Traceback" not in result.stderr
    *_, line = result.stderr.splitlines()
    assert line.startswith("aot-llava: ")
    assert said in line


def test_what_is_a_video_passes(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "1.png")
    for video in (str(MINI_CLIP), str(tmp_path), MINI_CLIP.as_uri()):
        with video_look.looked_at(video) as file:
            assert file == video


def test_a_video_at_an_address_is_downloaded_once_and_not_kept(tmp_path):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(MINI_CLIP.read_bytes())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{web.server_port}/clips/clip.mp4"
        with video_look.looked_at(address) as file:
            with open(file, "rb") as content:
                assert content.read() == MINI_CLIP.read_bytes()
            copy = file
        with pytest.raises(ValueError, match=f"{address} is damaged"), video_look.looked_at(address) as file:
            raise ValueError(f"{file} is damaged")
        web.shutdown()
    assert asked == ["/clips/clip.mp4"] * 2
    assert not os.path.exists(os.path.dirname(copy))


def _finding_the_packages():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
