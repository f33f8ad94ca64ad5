"""The program `python -m hub_upload`, the same as `aot-llava push`."""

import typer

from .command import push
from .plain_errors import PlainErrors


def main() -> None:
    """Runs the command line."""
    # A group without commands, because groups are where errors become one line.
    app = typer.Typer(
        cls=PlainErrors,
        subcommand_metavar="",
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback(invoke_without_command=True)(push)
    app(prog_name="python -m hub_upload")


if __name__ == "__main__":
    main()
