"""The program `aot-llava`, also `python -m aot_llava_cli`."""

from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from hub_upload.console import never_stop_at_a_letter

from .benchmark import PASS_ON, benchmark
from .generate import generate
from .push import push
from .visualize import visualize


class PlainErrors(TyperGroup):
    """Ends what can be expected to go wrong in one line on stderr, without a traceback.

    Exit codes: 2 for an argument that can never work, 1 for a model or a video that cannot be
    used, 130 for Ctrl-C.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the command line."""
        never_stop_at_a_letter()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: typer.Context) -> object:
        """Runs the command that the user named."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            _fail(ctx, error.format_message(), exit_code=2)
        except BrokenPipeError:
            # The reader of our output has gone, as in `… | head`: typer ends quietly.
            raise
        except (ValueError, OSError, ImportError) as error:
            _fail(ctx, str(error), exit_code=1)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


app = typer.Typer(cls=PlainErrors, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(generate)
app.command()(visualize)
app.command()(push)
app.command(context_settings=PASS_ON)(benchmark)


@app.callback()
def commands() -> None:
    """LLaVA-OneVision on a tenth of its video tokens (AOT, arXiv 2603.01400)."""


def main() -> None:
    """Runs the command line; the entry point of `aot-llava`."""
    app(prog_name="aot-llava")


def _fail(ctx: typer.Context, message: str, exit_code: int) -> NoReturn:
    typer.echo(f"{ctx.info_name}: {' '.join(message.split())}", err=True)
    raise typer.Exit(exit_code) from None


if __name__ == "__main__":
    main()
