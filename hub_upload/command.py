"""`aot-llava push`: publishes AOT variants of a checkpoint on the Hub, or writes them to folders."""

from pathlib import Path
from typing import Annotated

import typer

from .plain_errors import WrongUsageError


def push(
    variant: Annotated[
        list[str],
        typer.Option(
            metavar="VARIANT",
            help="A variant: a JSON file, a folder of them, or a name from configuration/. May be given several "
            "times; of several variants each has a branch, and main gets the first.",
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Hub ID or folder of a LLaVA-OneVision or LLaVA-Video checkpoint. By default what the variant was "
            "made for.",
            show_default=False,
        ),
    ] = None,
    base_revision: Annotated[
        str | None,
        typer.Option(
            metavar="REVISION", help="Branch, tag or commit of the base. By default main.", show_default=False
        ),
    ] = None,
    repo_id: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="The repository to push to. With --output nothing is pushed: the card then names this repository.",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(metavar="BRANCH", help="The branch to push one variant to. By default main.", show_default=False),
    ] = None,
    private: Annotated[
        bool,
        typer.Option(
            "--private", metavar="", help="Make a new repository private, and push to no other than a private one."
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            metavar="",
            help="Replace what is there, even if it is something else; what goes is named. A folder is replaced only "
            "if this command wrote it, for the same variant, and nothing was put into it or changed since.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Say what would be transferred and how, and change nothing.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write a folder, ready for from_pretrained, instead of pushing; of several variants one each in it.",
            show_default=False,
        ),
    ] = None,
    hard_links: Annotated[
        bool,
        typer.Option(
            "--hard-links",
            metavar="",
            help="With --output: let the weights be the base's own files under another name instead of copies, which "
            "takes no space. What changes the one then changes the other.",
        ),
    ] = False,
    convert: Annotated[
        bool,
        typer.Option(
            "--convert",
            metavar="",
            help="With --output: write the weights of an original LLaVA-Video checkpoint under transformers' names, "
            "so that the stock class and vLLM load the folder, too.",
        ),
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="A token of the Hub that may write. By default the one you logged in with.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Publish AOT variants of a checkpoint, without loading the model and without moving its weights."""
    # Only now: what `--help` needs is imported above.
    from huggingface_hub import get_token

    from hub_upload.errors import PushError, PushUsageError, printable, redact
    from hub_upload.push import Options, run

    token = token or get_token()
    options = Options(
        variants=variant,
        base=base,
        base_revision=base_revision,
        repo_id=repo_id,
        revision=revision,
        output=output,
        hard_links=hard_links,
        convert=convert,
        private=private,
        overwrite=overwrite,
        dry_run=dry_run,
        token=token,
    )
    try:
        run(
            options,
            say=lambda line: typer.echo(printable(redact(line, token))),
            warn=lambda line: typer.echo(printable(redact(line, token)), err=True),
        )
    except BrokenPipeError:
        raise
    except PushUsageError as error:
        raise WrongUsageError(redact(str(error), token)) from None
    except (ValueError, OSError, ImportError) as error:
        raise PushError(printable(redact(str(error), token))) from None
    except KeyboardInterrupt:
        what = "branch" if output is None else "branch and folder"
        typer.echo(
            f"Interrupted: every {what} is as it was or complete. Run the same command again to go on.", err=True
        )
        raise
