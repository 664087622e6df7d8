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
    from ensembleflow.datasets import open_dataset
    from ensembleflow.search.progress import progress_line
    from ensembleflow.search.study import open_storage

    default = [path for path in [Path("config/config.yaml")] if path.exists()]
    config: Config = load_config([*default, *arguments.configfile])
    search_dir = Path(config.results_dir) / config.study / "search"
    if not (search_dir / "study.journal").exists():
        raise SearchError("this study has not started", where=search_dir, hint="start it: snakemake --cores all")
    with open_dataset(Path(config.results_dir) / "datasets" / f"{config.dataset.name}.h5") as data:
        plan = SearchPlan.from_json(plan_job(config, 0))
        fingerprint = plan.fingerprint(data.checksum)
    try:
        study = optuna.load_study(study_name=f"{config.study}-{fingerprint}", storage=open_storage(search_dir))
    except KeyError:
        raise SearchError(
            "this study has not started with this config", where=search_dir, hint="start it: snakemake --cores all"
        ) from None
    print(progress_line(study, plan.search.metric, config.search.n_trials))
    return 0
