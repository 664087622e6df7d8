"""`ensembleflow report`: one page of a study, finished or not."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ensembleflow.commands.results_argument import add_results

__all__ = ["add_command"]


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `report` to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="make the report of a study, finished or not",
        description="Write one self-contained page of what is there; what is not there is named, with its command.",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="the page (report.html in the folder of results)")
    parser.add_argument("--study", metavar="NAME", help="where there are several; the last one run by default")
    add_results(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from ensembleflow.report import make_report  # drawing is slow to import

    output = arguments.output or arguments.results / "report.html"
    make_report(arguments.results, output, arguments.study)
    Console(highlight=False).print(Text(f"report: {output}"), soft_wrap=True)
