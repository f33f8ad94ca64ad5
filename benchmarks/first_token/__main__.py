"""The program `python -m benchmarks.first_token`."""

import sys

from benchmarks.plot import require_matplotlib

from .options import parse_options

PROGRAM = "python -m benchmarks.first_token"


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints the tables and writes the results.

    Raises:
        ImportError: if matplotlib is missing but a plot is wanted.
        OSError: if files cannot be written.
        MemoryError: if the model does not fit.
    """
    options = parse_options(arguments, PROGRAM)
    if not options.no_plot:
        require_matplotlib()
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"the folder {options.output} cannot be made ({error.strerror}): give another --output"
        ) from None

    # Only now: torch takes seconds to import, and a typing error should be answered at once.
    import torch
    import transformers
    from tqdm import tqdm

    from benchmarks.device import choose_device
    from benchmarks.report import write_json

    from .plot import draw
    from .report import as_text
    from .run import measure_all

    try:
        device = choose_device(options.device)
    except ValueError as error:
        print(f"{PROGRAM}: argument --device: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    options.dtype = options.dtype or ("bfloat16" if device.type == "cuda" else "float32")
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    results = options.output / "first-token.json"
    with tqdm(file=sys.stderr, unit="step", dynamic_ncols=True, desc="making the weights") as bar:
        for report in measure_all(options, device, bar):
            write_json(report, results)
    print(as_text(report))
    files = [results, *([] if options.no_plot else [draw(report, options.output / "first-token.png")])]
    print("\nWritten: " + ", ".join(map(str, files)))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ImportError, MemoryError) as error:
        sys.exit(f"{PROGRAM}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
