"""What a console cannot show."""

import sys


def never_stop_at_a_letter() -> None:
    """Lets a program go on where its console, or the file that it is piped into, has no such letter.

    A console of cp1252 has no `→`, and a file's name may hold bytes that are no text: such a letter is then written as
    its number, `\\u2192`.
    """
    for stream in (sys.stdout, sys.stderr):
        # Whoever has put something else in its place knows what it can take.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
