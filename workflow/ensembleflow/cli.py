"""The command line: `ensembleflow COMMAND`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import ensembleflow
from ensembleflow.errors import EnsembleflowError

__all__ = ["main", "make_parser"]

# Each module has `add_command(subparsers)`, which sets `run` (a function of the parsed arguments).
_COMMANDS = (
    "ensembleflow.search.command",
    "ensembleflow.search.accounting_command",
    "ensembleflow.search.plan_command",
    "ensembleflow.selection.command",
    "ensembleflow.allocation.command",
    "ensembleflow.serving.command",
    "ensembleflow.serving.allocate_command",
    "ensembleflow.serving.serve_command",
    "ensembleflow.report.command",
)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands, each with a `run` of the parsed arguments."""
    parser = argparse.ArgumentParser(prog="ensembleflow", description=ensembleflow.__doc__)
    parser.add_argument("--version", action="version", version=ensembleflow.__version__)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in _COMMANDS:
        importlib.import_module(module).add_command(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake ends with exit code 1 and one message."""
    parsed = make_parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed) or 0)
    except EnsembleflowError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
