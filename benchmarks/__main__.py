"""The program `python -m benchmarks`, also `aot-llava benchmark`."""

import shutil
import sys

from .options import check_results_folder, make_parser
from .plot import draw, require_matplotlib
from .progress import Progress

RESULTS = "results.json"


def main(arguments: list[str] | None = None, prog: str = "python -m benchmarks") -> None:
    """Measures, prints a table and writes the results.

    Raises:
        ImportError: if matplotlib is missing but a plot is wanted.
        OSError: if the results cannot be written, or files that are no results would be replaced.
        MemoryError: if the model does not fit.
    """
    parser = make_parser(prog)
    options = parser.parse_args(arguments)
    if not options.no_plot:
        require_matplotlib()
    check_results_folder(options.output, RESULTS, {"machine", "cases"}, ("speed-and-memory-*.png", "trace-*.json"))
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"the folder {options.output} cannot be made ({error.strerror}): give another --output"
        ) from None

    progress = Progress("importing PyTorch and transformers")
    # Only now: torch takes seconds to import, and a typing error should be answered at once.
    import torch
    import transformers

    from .comparison import Comparison
    from .device import choose_device
    from .report import as_text, make_report, write_json
    from .shapes import SHAPES, build_models, fill_in_defaults

    with progress:
        try:
            device = choose_device(options.device)
        except ValueError as error:
            parser.error(f"argument --device: {error}")
        fill_in_defaults(options, device)
        transformers.logging.set_verbosity_error()
        torch.manual_seed(0)
        progress.say("making the weights")
        stock, aot = build_models(SHAPES[options.shape], getattr(torch, options.dtype), device)
        report = make_report(options, sum(parameter.numel() for parameter in aot.parameters()), device)
        comparison = Comparison(stock, aot, options, progress.step)
        progress.count_to(comparison.num_steps)
        progress.say("warming up")
        for cases in comparison.run():
            report["cases"].extend(cases)
            write_json(report, options.output / RESULTS)

    print(as_text(report, shutil.get_terminal_size().columns))
    files = [options.output / RESULTS, *([] if options.no_plot else draw(report, options.output))]
    print("\nWritten: " + ", ".join(map(str, files)))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ImportError, MemoryError) as error:
        sys.exit(f"python -m benchmarks: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
