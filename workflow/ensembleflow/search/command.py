"""`ensembleflow progress`: how far a running search is, also where its jobs run on a cluster."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import optuna

from ensembleflow.config import Config, load_config
from ensembleflow.config.plan import SearchPlan, plan_job
from ensembleflow.errors import SearchError

__all__ = ["add_command"]


def add_command(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("progress", help="show how far a running search is")
    parser.add_argument(
        "--configfile", type=Path, nargs="+", default=[], help="the run's config files, over config/config.yaml"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from ensembleflow.search.progress import progress_line
    from ensembleflow.search.study import open_storage

    default = [path for path in [Path("config/config.yaml")] if path.exists()]
    config: Config = load_config([*default, *arguments.configfile])
    search_dir = Path(config.results_dir) / config.study / "search"
    if not (search_dir / "study.journal").exists():
        raise SearchError("this study has not started", where=search_dir, hint="start it: snakemake --cores all")
    storage = open_storage(search_dir)
    summaries = [s for s in optuna.get_all_study_summaries(storage) if s.study_name.startswith(f"{config.study}-")]
    if not summaries:
        raise SearchError("this study has not started", where=search_dir, hint="start it: snakemake --cores all")
    latest = max(summaries, key=lambda s: (s.datetime_start is not None, s.datetime_start, s._study_id))
    study = optuna.load_study(study_name=latest.study_name, storage=storage)
    metric = SearchPlan.from_json(plan_job(config, 0)).search.metric  # the one that the study was told
    print(progress_line(study, metric, config.search.n_trials))
    return 0
