"""How much memory a push takes.

Makes checkpoints of different sizes with random weights, pushes each from its folder to a Hub on this machine (the one
of the tests) with `python -m hub_upload`, and prints the peak memory of that process. What it starts to check that the
variant loads imports torch, and is told apart; it never sees the weights. For Linux.
"""

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aot_llava_cli.mini import MINI_CHECKPOINT
from benchmarks.options import OneLineParser, count

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
SIZES = (256, 2048)
VOCABULARY = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")
VARIANT = "llava-onevision-7b-10-uniform"

PUSH = """
import resource, runpy, sys
sys.argv[0] = "hub_upload"
try:
    runpy.run_module("hub_upload", run_name="__main__", alter_sys=True)
finally:
    # Not getrusage's own peak: that begins with what the process had that started this one.
    with open("/proc/self/status") as status:
        own = next(line for line in status if line.startswith("VmHWM")).split()[1]
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"PEAK {own} {children} {'torch' in sys.modules}", file=sys.stderr)
"""


def main(arguments: list[str] | None = None) -> None:
    """Measures and prints a table."""
    parser = OneLineParser(prog="python -m benchmarks.push_memory", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes",
        type=count,
        nargs="+",
        default=SIZES,
        metavar="MiB",
        help=f"weights of the checkpoints in MiB (default: {' '.join(map(str, SIZES))})",
    )
    parser.add_argument(
        "--folder",
        type=_existing_folder,
        metavar="FOLDER",
        help="where the checkpoints are made and removed again (default: the system's temporary folder)",
    )
    options = parser.parse_args(arguments)
    print(f"{'weights':>10} {'push, peak':>12} {'check, peak':>12} {'seconds':>8}")
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            own, check, seconds = _push(Path(folder), size)
        print(f"{size:>6} MiB {own:>8.0f} MiB {check:>8.0f} MiB {seconds:>8.1f}", flush=True)


def _existing_folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder: name one that is there")
    return Path(text)


def _push(folder: Path, size: int) -> tuple[float, float, float]:
    sys.path.insert(0, str(ROOT / "tests"))
    from hub_server import HubServer, environment

    base = folder / "base"
    _make_base(base, size)
    with HubServer() as server:
        arguments = ["--base", str(base), "--variant", VARIANT, "--repo-id", "me/aot", "--token", server.token("me")]
        started = time.perf_counter()
        process = subprocess.run(
            [sys.executable, "-c", PUSH, *arguments],
            check=False,
            cwd=ROOT,
            env={**os.environ, **environment(server, folder / "home")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        seconds = time.perf_counter() - started
        if process.returncode != 0 or server.large_bytes_uploaded() < size * MIB:
            sys.exit(f"The push failed:\n{process.stderr}")
    peaks = next(line for line in process.stderr.splitlines() if line.startswith("PEAK")).split()
    if peaks[3] != "False":
        sys.exit("The push imported torch.")
    return int(peaks[1]) / 1024, int(peaks[2]) / 1024, seconds


def _make_base(folder: Path, size: int) -> None:
    """The mini checkpoint with a vocabulary as large as that: random bytes, written without holding them in memory."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(MINI_CHECKPOINT, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    width = weights.pop(VOCABULARY[0]).shape[1]
    del weights[VOCABULARY[1]]
    rows = size * MIB // (len(VOCABULARY) * 2 * width)
    files = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    save_file(weights, folder / files[0], metadata={"format": "pt"})
    for file, name in zip(files[1:], VOCABULARY):
        _write_shard(folder / file, name, [rows, width])
    weight_map = {**dict.fromkeys(weights, files[0]), **dict(zip(VOCABULARY, files[1:]))}
    index = {"metadata": {"total_size": size * MIB}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = rows
    (folder / "config.json").write_text(json.dumps(config))


def _write_shard(file: Path, tensor: str, shape: list[int]) -> None:
    size = 2 * shape[0] * shape[1]
    header = json.dumps({tensor: {"dtype": "F16", "shape": shape, "data_offsets": [0, size]}}).encode()
    with open(file, "wb") as shard:
        shard.write(struct.pack("<Q", len(header)) + header)
        for start in range(0, size, MIB):
            shard.write(os.urandom(min(MIB, size - start)))


if __name__ == "__main__":
    main()
