"""The option `--results`: the folder of a run's artefacts."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_results"]


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add the option to a command."""
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="FOLDER",
        help="folder of the artefacts (%(default)s)",
    )
