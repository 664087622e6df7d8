"""`ensembleflow accounting`: where the time of a finished search went."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ensembleflow.commands.configfile_argument import add_configfile, load_run_config, study_folder
from ensembleflow.io import snakemake_command
from ensembleflow.search.accounting import account_study, require_tables
from ensembleflow.search.remaining import readable_duration

__all__ = ["add_command", "print_accounting"]


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("accounting", help="show where the time of a finished search went")
    add_configfile(parser)
    parser.add_argument(
        "--study-dir", type=Path, metavar="FOLDER", help="the study (default: the config's, below results_dir)"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    config = load_run_config(arguments)
    study_dir = arguments.study_dir or study_folder(config)
    command = snakemake_command("search", near=study_dir)
    hint = f"let it end ({command}), or name another study's folder with --study-dir"
    require_tables(study_dir / "search", "account for", hint)
    print_accounting(account_study(study_dir / "search", config.search.max_epochs), Console(highlight=False))
    return 0


def print_accounting(accounts: dict[str, Any], console: Console) -> None:
    """Print what `account_search` returned."""
    trials, epochs, tail = accounts["trials"], accounts["epochs"], accounts["idle_tail"]
    interrupted, energy = accounts["interrupted"], accounts["energy"]
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(accounts["started_at"]))
    lines = [
        f"{trials['all']} trials: {trials['complete']} complete, {trials['pruned']} stopped early, "
        f"{trials['fail']} failed; {epochs['trained']} of {epochs['possible']} epochs ({epochs['share']:.0%})",
        f"{readable_duration(accounts['duration_seconds'])} from {began} on {accounts['n_devices']} devices, occupied "
        f"{accounts['occupancy']:.1%} of it; speed-up {accounts['speed_up']:.2f} over one device without starts",
        f"idle tail: {tail['seconds']:.1f} s, {tail['device_seconds']:.1f} device-seconds",
        f"killed and resumed: {interrupted['trials']} trials in {interrupted['runs']} runs, "
        f"at least {interrupted['lost_seconds']:.1f} s of unfinished epochs lost",
    ]
    if accounts["nothing_ran_seconds"] >= 1:
        lines.append(f"nothing ran for {readable_duration(accounts['nothing_ran_seconds'])} of it")
    if energy["joules"] is not None:
        lines.append(f"energy: {energy['joules'] / 3.6e6:.3f} kWh of {energy['trials']} trials")
    for line in lines:
        console.print(line, soft_wrap=True)
    devices = Table("device", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("jobs' processes", "trials", "epochs", "occupied s", "occupied"):
        devices.add_column(name, justify="right")
    for row in accounts["devices"]:
        counts = (str(row[name]) for name in ("processes", "runs", "epochs"))
        devices.add_row(row["name"], *counts, f"{row['occupied_seconds']:.1f}", f"{row['occupancy']:.1%}")
    parts = Table("processes' time", box=SIMPLE_HEAD, pad_edge=False)
    parts.add_column("s", justify="right")
    parts.add_column("share", justify="right")
    for name, seconds in accounts["time"].items():
        parts.add_row(name, f"{seconds:.1f}", f"{seconds / (accounts['time']['all'] or 1):.1%}")
    console.print(devices)
    console.print(parts)
    if accounts["brackets"]:
        rungs = Table(box=SIMPLE_HEAD, pad_edge=False)
        for name in ("bracket", "trials", "rung", "epoch", "reached", "stopped"):
            rungs.add_column(name, justify="right")
        for bracket in accounts["brackets"]:
            for number, rung in enumerate(bracket["rungs"]):
                first = [str(bracket["bracket"]), str(bracket["trials"])] if number == 0 else ["", ""]
                rungs.add_row(*first, *(str(rung[name]) for name in ("rung", "epoch", "reached", "stopped")))
        console.print(rungs)
