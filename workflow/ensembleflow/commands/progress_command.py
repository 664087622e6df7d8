"""`ensembleflow progress`: how far a running search is."""

from __future__ import annotations

import argparse
from pathlib import Path

import optuna
from rich.console import Console

from ensembleflow.commands.configfile_argument import add_configfile, load_run_config, study_folder
from ensembleflow.config import SearchConfig
from ensembleflow.datasets import open_dataset
from ensembleflow.errors import SearchError
from ensembleflow.io import snakemake_command
from ensembleflow.planning.search_plan import SearchPlan, family_inputs, plan_job
from ensembleflow.search.progress import progress_line, read_progress
from ensembleflow.search.progress_table import print_running
from ensembleflow.search.storage import journal_path, open_storage
from ensembleflow.search.study import study_name
from ensembleflow.search.study_family import checked_plan, family_copy

__all__ = ["add_command"]


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "progress",
        help="show how far a running search is",
        description="Show how far a search is: trials done, each running one with its epoch, last metric and an "
        "epoch's time, and about how long the rest takes.",
    )
    add_configfile(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    config = load_run_config(arguments)
    search_dir = study_folder(config) / "search"
    hint = f"start it: {snakemake_command(near=search_dir)}"
    dataset = Path(config.results_dir) / "datasets" / f"{config.dataset.name}.h5"
    plan = SearchPlan.from_json(plan_job(config, 0), config.search.metric)
    if not dataset.exists() or (config.search.storage is None and not journal_path(search_dir).exists()):
        raise SearchError("this study has not started", where=search_dir, hint=hint)
    otherwise = SearchError("this study has not started with this config", where=search_dir, hint=hint)
    if not all(_is_checked(config.search, search_dir, name) for name in config.search.own_families):
        raise otherwise
    with open_dataset(dataset) as data:
        plan = checked_plan(plan, search_dir)
        checksum = data.checksum
    name = study_name(plan, checksum)
    try:
        study = optuna.load_study(study_name=name, storage=open_storage(search_dir, config.search.storage))
    except KeyError:
        raise otherwise from None
    store_dir = search_dir / "store" / plan.fingerprint(checksum)
    progress = read_progress(study, store_dir, plan.search, config.search.n_trials)
    print(progress_line(progress), flush=True)
    print_running(progress, Console(highlight=False))
    return 0


def _is_checked(search: SearchConfig, search_dir: Path, name: str) -> bool:
    """Whether a family's file is the one that the study's trials were, or are being, trained with."""
    copy, file = family_copy(search_dir, name), Path(family_inputs(search, name)[0])
    return copy.exists() and (not file.exists() or copy.read_bytes() == file.read_bytes())
