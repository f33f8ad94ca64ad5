"""The program `python -m mini_checkpoint.training`."""

import sys

from .options import parse_options

PROG = "python -m mini_checkpoint.training"


def main(arguments: list[str] | None = None) -> None:
    """Trains, or goes on with the state in the folder, and writes the checkpoint.

    Raises:
        ImportError: if torch is too old.
        OSError: if state or checkpoint cannot be written.
        ValueError: if the state is that of another recipe, or the checkpoint broken or another model's.
    """
    options = parse_options(arguments, PROG)

    # Only now: torch takes seconds to import, and a typing error should be answered at once.
    import transformers

    from .recipe import Recipe
    from .run import run

    transformers.logging.set_verbosity_error()
    run(Recipe(), options.state, options.output, options.device, options.export_only, options.last_stage_of)


if __name__ == "__main__":
    try:
        main()
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{PROG}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{PROG}: interrupted; the same command goes on from here")
