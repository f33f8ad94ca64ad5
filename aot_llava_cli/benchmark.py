"""`aot-llava benchmark`: the same as `python -m benchmarks`, where the project was installed with `pip install -e`."""

from importlib import import_module

import typer

# The options are those of benchmarks/options.py, which also answers --help.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def benchmark(context: typer.Context) -> None:
    """Measure speed and memory against the stock model, with random weights of real sizes; needs a checkout."""
    try:
        # By name: the benchmarks stand above this package, and an installation has none.
        main = import_module("benchmarks.__main__").main
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "benchmarks":
            raise
        raise ImportError(
            "The benchmarks are not part of an installation: run `python -m benchmarks` in a checkout of the "
            "repository, or install that with `pip install -e .`."
        ) from None
    main(context.args, prog="aot-llava benchmark")
