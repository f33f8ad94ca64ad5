"""The program `python -m benchmarks.reproduce`."""

import sys
from pathlib import Path

from benchmarks.options import OneLineParser, count

from .comparison import as_markdown, commands
from .paper_tables import TABLES
from .result_files import read_runs

PROGRAM = "python -m benchmarks.reproduce"


def main(arguments: list[str] | None = None) -> None:
    """Prints a table's commands, or results beside the paper's.

    Raises:
        ValueError: if there are no results, or a file is none of lmms-eval's.
    """
    parser = OneLineParser(prog=PROGRAM, description="The paper's tables with lmms-eval; see docs/reproduce.md.")
    kinds = parser.add_subparsers(dest="what", required=True)
    printed = kinds.add_parser("commands", help="print the commands of one table, for a shell")
    printed.add_argument("table", choices=TABLES, help="number of a table of the paper")
    printed.add_argument(
        "--output", default="results", metavar="FOLDER", help="lmms-eval's --output_path (default: results)"
    )
    printed.add_argument("--processes", type=count, default=1, metavar="N", help="GPUs (default: 1)")
    compared = kinds.add_parser("compare", help="print results beside the paper's")
    compared.add_argument("results", type=Path, nargs="+", metavar="FOLDER", help="--output_path, or result files")
    compared.add_argument(
        "--tables", nargs="+", choices=TABLES, default=list(TABLES), help="tables to print (default: all)"
    )
    options = parser.parse_args(arguments)
    if options.what == "commands":
        print("\n".join(commands(options.table, options.output, options.processes)))
    else:
        print(as_markdown(read_runs(options.results), options.tables), end="")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"{PROGRAM}: {error}")
