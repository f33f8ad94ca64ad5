"""How the programs end when something is wrong: one line on stderr that names it, `PROGRAM: SENTENCE`.

Exit codes: 2 for what the command line says and can never work, 1 for a model, a video or a Hub that cannot be used,
130 for Ctrl-C.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from .console import never_stop_at_a_letter
from .suggestions import did_you_mean

# What all complaints about a command line derive from. typer has it from click, or brings its own, by its release.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


class WrongUsageError(typer.BadParameter):
    """A command's own complaint about how it was called, which says what to do instead."""

    def format_message(self) -> str:
        """As it was given."""
        return self.message


class PlainErrors(TyperGroup):
    """A program whose commands, and whose own options, end in one line without a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program."""
        never_stop_at_a_letter()
        return super().main(*args, **kwargs)

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> typer.Context:
        """Reads the program's own options."""
        if self.no_args_is_help and not args:
            return super().make_context(info_name, args, *rest, **extra)
        with plain_errors(str(info_name)):
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: typer.Context) -> object:
        """Runs the command that the user named."""
        with plain_errors(str(ctx.info_name)):
            return super().invoke(ctx)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:
        """Finds the command that the user named."""
        commands = self.list_commands(ctx)
        if not commands:
            raise UsageError(f"Got an unexpected argument: {args[0]}", ctx)
        if args[0] not in commands:
            raise UsageError(f"No such command: {args[0]}.{_did_you_mean(args[0], commands, ctx)}", ctx)
        return super().resolve_command(ctx, args)


@contextmanager
def plain_errors(program: str) -> Iterator[None]:
    """Ends what can be expected to go wrong in one line."""
    try:
        yield
    except UsageError as error:
        _fail(program, _usage(error), exit_code=2)
    except BrokenPipeError:
        # The reader of our output has gone, as in `… | head`: typer ends quietly.
        raise
    except (ValueError, OSError, ImportError) as error:
        _fail(program, str(error), exit_code=1)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and type(error).__name__ != "OutOfMemoryError":  # torch's, of a GPU
            raise
        _fail(program, f"The memory is too small for this ({error}). Give less, or another --device.", exit_code=1)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _usage(error: Any) -> str:
    """What is wrong with a command line, and what was meant or where to read on."""
    message, context = error.format_message().rstrip("."), error.ctx
    message = re.sub(r"^([\w ]+) '(-[^']*)'", r"\1 \2", message)  # quotes round an option's name
    if type(error).__name__ == "NoSuchOption":
        options = [name for parameter in context.command.params for name in parameter.opts if name.startswith("-")]
        return f"No such option: {error.option_name}.{_did_you_mean(error.option_name, options, context)}"
    if message.endswith(("?", "`")):  # it says already what was meant, or where to read on
        return message if message.endswith("?") else f"{message}."
    is_explained = type(error) in (typer.BadParameter, WrongUsageError)  # by one of our own checks, with the remedy
    return f"{message}." + ("" if is_explained else _pointer(context))


def _did_you_mean(given: str, known: list[str], context: Any) -> str:
    return did_you_mean(given, known) or _pointer(context)


def _pointer(context: Any) -> str:
    return f" See `{context.command_path} --help`." if context else ""


def _fail(program: str, message: str, exit_code: int) -> NoReturn:
    typer.echo(f"{program}: {' '.join(message.split())}", err=True)
    raise typer.Exit(exit_code) from None
