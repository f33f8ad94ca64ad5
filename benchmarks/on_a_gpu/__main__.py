"""The program `python -m benchmarks.on_a_gpu`."""

import argparse
import sys
from pathlib import Path

from benchmarks.options import OneLineParser, count, device, folder

PROGRAM = "python -m benchmarks.on_a_gpu"
DESCRIPTION = """\
What needs a card, in one run of some minutes that downloads nothing: the
kernels against their formulas, stock model and AOT to the first token (eager,
compiled, as CUDA graphs), reading a video, and requests a second where vLLM
is installed. Each section stands in on-a-gpu.json as soon as it is done, with
card, date and versions. On a CPU everything runs in tiny shapes, and says
nothing of time."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the sections one after the other; returns how many of them failed.

    Raises:
        OSError: if the results cannot be written.
    """
    options = _parse_options(arguments)
    options.output.mkdir(parents=True, exist_ok=True)

    # Only now: torch takes seconds to import, and a typing error should be answered at once.
    import torch
    import transformers

    from benchmarks.device import choose_device
    from benchmarks.report import describe_run, write_json

    from .run import run_sections

    try:
        chosen = choose_device(options.device)
    except ValueError as error:
        print(f"{PROGRAM}: argument --device: {error}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    options.shape = options.shape or ("7b" if chosen.type == "cuda" else "tiny")
    options.dtype = "bfloat16" if chosen.type == "cuda" else "float32"
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    results = options.output / "on-a-gpu.json"
    for report in run_sections(options, chosen, say=lambda text: print(text, file=sys.stderr, flush=True)):
        write_json(report, results)
    print(describe_run(report))
    for name, section in report["sections"].items():
        print(f"{name:>12}  {section['seconds']:5.0f} s  {section['says']}")
    print(f"\nWritten: {results}")
    return sum("error" in section for section in report["sections"].values())


def _parse_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog=PROGRAM, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
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


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit(f"{PROGRAM}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
