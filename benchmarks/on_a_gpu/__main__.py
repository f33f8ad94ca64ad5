"""The program `python -m benchmarks.on_a_gpu`."""

import sys

from .options import parse_options

PROGRAM = "python -m benchmarks.on_a_gpu"


def main(arguments: list[str] | None = None) -> int:
    """Runs the sections one after the other; returns how many of them failed.

    Raises:
        OSError: if the results cannot be written.
    """
    options = parse_options(arguments, PROGRAM)
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


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit(f"{PROGRAM}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
