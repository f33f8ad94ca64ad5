"""The program `aot-llava`, also `python -m aot_llava_cli`."""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from hub_upload.command import push
from hub_upload.plain_errors import PlainErrors

from .benchmark import PASS_ON, benchmark
from .chat import chat
from .encode import encode
from .generate import generate
from .visualize import visualize

app = typer.Typer(cls=PlainErrors, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(generate)
app.command()(encode)
app.command()(chat)
app.command()(visualize)
app.command()(push)
app.command(context_settings=PASS_ON)(benchmark)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        try:
            typer.echo(f"aot-llava {version('aot-llava')}")
        except PackageNotFoundError:
            typer.echo("aot-llava, not installed: run from its source")
        raise typer.Exit


@app.callback()
def commands(
    _version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """LLaVA-OneVision on a tenth of its video tokens (AOT, arXiv 2603.01400)."""


def main() -> None:
    """Runs the command line; the entry point of `aot-llava`."""
    app(prog_name="aot-llava")


if __name__ == "__main__":
    main()
