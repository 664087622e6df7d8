"""`ensembleflow plan`: how long a search would take on other devices, and how many trials keep them busy."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from ensembleflow.commands.configfile_argument import add_configfile, load_run_config, study_folder
from ensembleflow.commands.number_arguments import number, positive_number, whole_number
from ensembleflow.config import Config, SearchConfig, StudyName
from ensembleflow.config.search import default_min_epochs
from ensembleflow.errors import ConfigError
from ensembleflow.io import write_csv
from ensembleflow.planning.search_plan import search_jobs
from ensembleflow.search.accounting import account_study
from ensembleflow.search.simulation import (
    Limits,
    Recording,
    assume_recording,
    optuna_study,
    read_recording,
    recorded_limits,
)
from ensembleflow.search.simulation.table import plan_rows, print_plan

__all__ = ["add_command"]

_DEVICES = (1, 2, 6, 24, 100, 1000)
_BUSY = 0.8
# Of `assume_recording`'s trials, before anything was recorded.
_ASSUMED_START_SECONDS = 10.0
_LARGEST_SPREAD = 10
_COUNT = whole_number(1)
_SECONDS = number(0)


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "plan",
        help="simulate how long a search takes on other devices",
        description="Replay a finished search's trials on other numbers of devices, in virtual time: how long, how "
        "busy, what limits it, and how many trials keep the devices busy. All that it prints is simulated.",
    )
    add_configfile(parser)
    parser.add_argument(
        "--study-dir", type=Path, metavar="FOLDER", help="the recorded study (default: the config's, below results_dir)"
    )
    parser.add_argument(
        "--devices",
        type=_COUNT,
        nargs="+",
        metavar="N",
        help=f"numbers of GPUs or workers (default: {', '.join(map(str, _DEVICES))}, up to the first that has one for "
        "each job)",
    )
    planned = parser.add_argument_group("the planned search (default: the config's)")
    planned.add_argument("--algorithm", choices=get_args(SearchConfig.model_fields["algorithm"].annotation))
    planned.add_argument("--trials", type=_COUNT, metavar="N", help="trials of the study")
    planned.add_argument("--trials-per-job", type=_COUNT, metavar="N", help="consecutive trials that a job trains")
    planned.add_argument("--epochs", type=_COUNT, metavar="N", help="epochs of a trial that is never stopped")
    planned.add_argument(
        "--time-factor",
        type=positive_number,
        default=1.0,
        metavar="F",
        help="a trial takes F times as long as recorded: faster GPUs, or more workers a machine (1)",
    )
    assumed = parser.add_argument_group("before anything is recorded")
    assumed.add_argument("--epoch-seconds", type=_SECONDS, metavar="S", help="mean time of an epoch, over all trials")
    assumed.add_argument(
        "--spread",
        type=number(0, _LARGEST_SPREAD),
        default=0.5,
        metavar="V",
        help="its coefficient of variation from trial to trial (0.5)",
    )
    _add_limits(parser)
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (0)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table, with more columns")
    parser.set_defaults(run=_run)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "what jobs wait for (default: recorded, else on the safe side of what was measured: docs/benchmarks.md)"
    )
    group.add_argument("--launch-seconds", type=_SECONDS, metavar="S", help="from a free device to a job's process")
    group.add_argument("--start-seconds", type=_SECONDS, metavar="S", help="from a process's start to its first trial")
    group.add_argument("--jobs-per-second", type=positive_number, metavar="R", help="that Snakemake submits")
    group.add_argument("--max-jobs", type=_COUNT, metavar="N", help="submitted at a time (Snakemake's --jobs)")
    group.add_argument("--notice-seconds", type=_SECONDS, metavar="S", help="until Snakemake notices a job's end")
    group.add_argument("--storage-seconds", type=_SECONDS, metavar="S", help="that one write blocks the storage")


def _useful_devices(n_jobs: int) -> list[int]:
    """The usual numbers, up to the first that runs all jobs at once: more would stand idle."""
    return [number for number, fewer in zip(_DEVICES, (0, *_DEVICES), strict=False) if fewer < n_jobs]


def _run(arguments: argparse.Namespace) -> int:
    config = load_run_config(arguments)
    search = _planned_search(config, arguments)
    study_dir = arguments.study_dir or study_folder(config)
    recorded_algorithm, accounts, study_name = None, None, config.study
    if arguments.epoch_seconds is not None:
        recording = _assumed(arguments, search)
    else:
        recording = read_recording(study_dir / "search", config.search.metric)
        accounts = account_study(study_dir / "search", config.search.max_epochs)
        recorded_algorithm = _recorded_algorithm(study_dir)
        study_name = optuna_study(study_dir, config.study)
    rows = plan_rows(
        search,
        recording,
        arguments.devices or _useful_devices(len(search_jobs(search))),
        _limits(arguments, recording),
        busy=_BUSY,
        seed=arguments.seed,
        time_factor=arguments.time_factor,
        study_name=study_name,
        recorded_algorithm=recorded_algorithm,
        concurrent_trials=config.resources.search.concurrent_trials,
        accounts=accounts,
    )
    if arguments.csv is not None:
        write_csv(arguments.csv, rows)
    device = "GPU" if config.resources.search.gpus else "device"
    print_plan(Console(highlight=False), rows, search, recording, device=device, busy=_BUSY)
    return 0


def _planned_search(config: Config, arguments: argparse.Namespace) -> SearchConfig:
    asked: dict[str, Any] = {
        "algorithm": arguments.algorithm,
        "n_trials": arguments.trials,
        "trials_per_job": arguments.trials_per_job,
        "max_epochs": arguments.epochs,
    }
    if arguments.epochs is not None and config.search.min_epochs == default_min_epochs(config.search.max_epochs):
        asked["min_epochs"] = default_min_epochs(arguments.epochs)
    search = config.search.model_copy(update={name: value for name, value in asked.items() if value is not None})
    if search.algorithm == "genetic" and search.n_trials < search.n_generations:
        raise ConfigError(
            "a generation has at least one trial",
            where="--trials",
            found=search.n_trials,
            expected=f"at least n_generations: {search.n_generations}",
        )
    return search


def _assumed(arguments: argparse.Namespace, search: SearchConfig) -> Recording:
    return assume_recording(
        arguments.epoch_seconds, arguments.spread, search.max_epochs, _ASSUMED_START_SECONDS, seed=arguments.seed
    )


def _limits(arguments: argparse.Namespace, recording: Recording) -> Limits:
    """The measured defaults, what was recorded, and over both what the command line says."""
    limits = recorded_limits(recording)
    names = ("launch_seconds", "start_seconds", "jobs_per_second", "max_jobs", "notice_seconds", "storage_seconds")
    asked = {name: getattr(arguments, name) for name in names}
    return replace(limits, **{name: value for name, value in asked.items() if value is not None})


def _recorded_algorithm(study_dir: Path) -> str | None:
    """The algorithm in the name of a study's folder."""
    name = StudyName.parse(study_dir.resolve().name)
    return name.algorithm if name else None
