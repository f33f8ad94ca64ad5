"""The program `python -m benchmarks.reproduce`."""

import argparse
import os
import signal
import sys
from pathlib import Path

from benchmarks.options import OneLineParser, count, device, list_of

from .comparison import as_markdown, commands, left_out
from .matching import SETTINGS
from .paper_tables import TABLES
from .result_files import read_runs, split_model_args
from .row_run import run_row

PROGRAM = "python -m benchmarks.reproduce"
# The shell goes on with the next row after one that failed, which says why, and tells at the end.
BEFORE_ROWS = "failed=0; trap 'failed=$((failed + 1))' ERR"
AFTER_ROWS = 'if [ "$failed" -gt 0 ]; then echo "$failed of {rows} rows failed: see above" >&2; exit 1; fi'


def main(arguments: list[str] | None = None) -> None:
    """Prints a table's commands or runs one of them, prints results beside the paper's, or measures Sinkhorn.

    Raises:
        ValueError: if there are no results, a file is none of lmms-eval's, or a row failed.
    """
    given = sys.argv[1:] if arguments is None else arguments
    others: list[str] = []
    if given[:1] == ["commands"] and "--" in given:
        given, others = given[: given.index("--")], given[given.index("--") + 1 :]
    options = _parser().parse_args(given)
    if options.what == "commands":
        print(as_script(options, others))
    elif options.what == "run":
        run_row(options.command)
    elif options.what == "compare":
        print(as_markdown(read_runs(options.results), options.tables), end="")
    else:
        from .sinkhorn_time import measure_sinkhorn  # torch takes seconds to import

        print(measure_sinkhorn(options), end="")


def _parser() -> OneLineParser:
    parser = OneLineParser(prog=PROGRAM, description="The paper's tables with lmms-eval; see docs/reproduce.md.")
    kinds = parser.add_subparsers(dest="what", required=True)

    printed = kinds.add_parser(
        "commands",
        help="print the commands of one table, for a shell",
        epilog="Behind -- stand further options of lmms-eval, as -- --limit 8.",
    )
    printed.add_argument("table", choices=[*TABLES, "3"], help="a table or figure of the paper")
    printed.add_argument(
        "--output", default="results", metavar="FOLDER", help="lmms-eval's --output_path (default: results)"
    )
    printed.add_argument("--processes", type=count, default=1, metavar="N", help="GPUs (default: 1)")
    printed.add_argument(
        "--settings",
        choices=SETTINGS,
        default=SETTINGS[0],
        help="AOT's: this project's, or those of the authors' scripts for each benchmark (default: paper)",
    )
    printed.add_argument(
        "--model_args",
        type=lambda text: dict(split_model_args(text)),
        metavar="NAME=VALUE,...",
        help="further arguments of all models, or other ones than the table's, as pretrained=FOLDER",
    )

    run = kinds.add_parser("run", help="run one of these commands, and fail where lmms-eval itself does not tell")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="of lmms-eval, with its options")

    compared = kinds.add_parser("compare", help="print results beside the paper's")
    compared.add_argument("results", type=Path, nargs="+", metavar="FOLDER", help="--output_path, or result files")
    compared.add_argument(
        "--tables", nargs="+", choices=TABLES, default=list(TABLES), help="tables to print (default: all)"
    )

    timed = kinds.add_parser("sinkhorn", help="Table 3: Sinkhorn's time by iterations, on this machine")
    timed.add_argument("--iterations", type=list_of(count), default=[50, 100], metavar="N,...", help="default: 50,100")
    timed.add_argument("--frames", type=count, default=32, metavar="N", help="of the video (default: 32)")
    timed.add_argument(
        "--shape",
        choices=("tiny", "0.5b", "7b"),
        help="of the model whose time to the first token Sinkhorn's is a share of (default: 7b; on a CPU tiny)",
    )
    timed.add_argument("--repeats", type=count, default=5, metavar="N", help="measured rounds (default: 5)")
    timed.add_argument("--device", type=device, metavar="DEVICE", help="default: cuda where there is one")
    return parser


def as_script(options: argparse.Namespace, others: list[str]) -> str:
    """The commands, and around them what notices those that fail."""
    if options.table == "3":
        return f"{PROGRAM} sinkhorn"
    lines = commands(options.table, options.output, options.processes, options.settings, options.model_args, others)
    without = [f"# {title}: left out, {reason}" for title, reason in left_out(options.table, options.settings)]
    return "\n".join([BEFORE_ROWS, *without, *lines, AFTER_ROWS.format(rows=len(lines))])


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, MemoryError) as error:
        sys.exit(f"{PROGRAM}: {error}")
    except KeyboardInterrupt:
        # Ended by the signal itself, so that the shell does not go on with the next row.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
