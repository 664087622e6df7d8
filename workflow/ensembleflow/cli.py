"""The command line: `ensembleflow COMMAND`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

import ensembleflow
from ensembleflow.errors import EnsembleflowError, MissingPackageError

__all__ = ["main", "make_parser"]

# In the order of the help.
_COMMANDS = (
    "init",
    "progress",
    "storage-proxy",
    "accounting",
    "plan",
    "select",
    "devices",
    "predict",
    "allocate",
    "serve",
    "export",
    "summary",
    "report",
)
# The commands that the extra `serve` is enough for; the others need `workflow`.
_SERVING = ("devices", "predict", "allocate", "serve", "export")


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of one command, or of all where none or an unknown one is named, each with a `run`.

    Only what is asked for is imported: a command waits for no other's packages, nor needs them.

    Raises:
        ModuleNotFoundError: the command needs a package that is not installed.
    """
    parser = argparse.ArgumentParser(prog="ensembleflow", description=ensembleflow.__doc__)
    parser.add_argument("--version", action="version", version=ensembleflow.__version__)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    asked = [name for name in _COMMANDS if name == command]
    for name in asked or _COMMANDS:
        try:
            importlib.import_module(_module(name)).add_command(subparsers)
        except ModuleNotFoundError as error:
            if asked or not _is_foreign(error):
                raise
            subparsers.add_parser(name, help=f"({_install(name)} adds it)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake ends with exit code 1 and one message."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = words[0] if words else ""
    _name_a_home()
    try:
        parsed = make_parser(command).parse_args(words)
        return int(parsed.run(parsed) or 0)
    except EnsembleflowError as error:
        print(error, file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if not _is_foreign(error):
            raise
        print(
            MissingPackageError(
                f"ensembleflow {command} needs a package that is not installed",
                found=error,
                hint=_install(command),
            ),
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return 130


def _name_a_home() -> None:
    """Where a user has neither a name nor HOME, Numba and TensorFlow would make a folder `~` here."""
    if os.path.expanduser("~") == "~":  # noqa: PTH111 - which fails where no home is known
        os.environ["HOME"] = "/nonexistent"


def _module(command: str) -> str:
    """The module whose `add_command(subparsers)` adds a command and sets `run`, a function of the parsed arguments."""
    return f"ensembleflow.commands.{command.replace('-', '_')}_command"


def _is_foreign(error: ModuleNotFoundError) -> bool:
    """Whether it is not a module of this package that is missing, which would be a fault of the program."""
    return (error.name or "").partition(".")[0] != "ensembleflow"


def _install(command: str) -> str:
    return f'pip install "ensembleflow[{"serve" if command in _SERVING else "workflow"}]"'


if __name__ == "__main__":
    sys.exit(main())
