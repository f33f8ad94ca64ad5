"""What a command tells beside its result: on stderr, so that `… > answer.txt` keeps the answer alone."""

import typer


def say(text: str, end: str = "\n") -> None:
    """Tells it."""
    typer.echo(text + end, err=True, nl=False)
