"""The options of `python -m benchmarks.on_a_gpu`; read without torch, so that a typing error costs no time."""

import argparse
from pathlib import Path

from benchmarks.options import OneLineParser, count, device, folder

DESCRIPTION = """\
What needs a card, in one run of some minutes that downloads nothing: the
kernels against their formulas, stock model and AOT to the first token (eager,
compiled, as CUDA graphs), reading a video, and requests a second where vLLM
is installed. Each section stands in on-a-gpu.json as soon as it is done, with
card, date and versions. On a CPU everything runs in tiny shapes, and says
nothing of time."""


def parse_options(arguments: list[str] | None, prog: str) -> argparse.Namespace:
    """Reads the command line."""
    parser = OneLineParser(prog=prog, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--shape", choices=("tiny", "0.5b", "7b"), help="layer sizes (default: 7b; on a CPU tiny)")
    add("--minutes", type=count, default=8, metavar="N", help="after which no further section begins (default: 8)")
    add("--repeats", type=count, default=3, metavar="N", help="measured rounds (default: 3)")
    add("--device", type=device, metavar="DEVICE", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    add(
        "--output",
        type=folder,
        default=Path("benchmark-results/on-a-gpu"),
        metavar="FOLDER",
        help="folder of the results (default: benchmark-results/on-a-gpu)",
    )
    return parser.parse_args(arguments)
