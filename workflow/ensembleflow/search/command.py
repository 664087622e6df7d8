"""`ensembleflow progress`: how far a running search is. `ensembleflow storage-proxy`: one door to its storage."""

from __future__ import annotations

import argparse
import socket
import warnings
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console

from ensembleflow.config import Config
from ensembleflow.config.storage_url import PROXY_PORT, without_password
from ensembleflow.datasets import open_dataset
from ensembleflow.errors import SearchError
from ensembleflow.io import snakemake_command
from ensembleflow.planning.search_plan import SearchPlan, plan_job
from ensembleflow.search.progress import progress_line, read_progress
from ensembleflow.search.progress_table import print_running
from ensembleflow.search.run_config import add_configfile, load_run_config
from ensembleflow.search.storage import journal_path, open_journal, open_storage
from ensembleflow.search.study import study_name

__all__ = ["add_command"]

_PROXY_THREADS = 10


def add_command(subparsers: Any) -> None:
    """Add the commands to the command line."""
    progress = subparsers.add_parser(
        "progress",
        help="show how far a running search is",
        description="Show how far a search is: trials done, each running one with its epoch, last metric and an "
        "epoch's time, and about how long the rest takes.",
    )
    add_configfile(progress)
    progress.set_defaults(run=_show_progress)
    proxy = subparsers.add_parser(
        "storage-proxy", help="serve the search's journal or database to its jobs over gRPC, until Ctrl-C"
    )
    add_configfile(proxy)
    proxy.add_argument(
        "--storage",
        metavar="FILE_OR_URL",
        help="journal file or database to serve (default: the database of search.storage, or the study's journal)",
    )
    proxy.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (%(default)s: this machine's jobs only)"
    )
    proxy.add_argument("--port", type=int, default=PROXY_PORT, help="port to listen at (%(default)s)")
    proxy.set_defaults(run=_serve_storage)


def _load(arguments: argparse.Namespace) -> tuple[Config, Path]:
    """The merged config and `{study}/search`."""
    config = load_run_config(arguments)
    return config, Path(config.results_dir) / config.study / "search"


def _show_progress(arguments: argparse.Namespace) -> int:
    config, search_dir = _load(arguments)
    hint = f"start it: {snakemake_command(near=search_dir)}"
    dataset = Path(config.results_dir) / "datasets" / f"{config.dataset.name}.h5"
    if not dataset.exists() or (config.search.storage is None and not journal_path(search_dir).exists()):
        raise SearchError("this study has not started", where=search_dir, hint=hint)
    with open_dataset(dataset) as data:
        plan = SearchPlan.from_json(plan_job(config, 0), config.search.metric)
        checksum = data.checksum
    name = study_name(plan, checksum)
    try:
        study = optuna.load_study(study_name=name, storage=open_storage(search_dir, config.search.storage))
    except KeyError:
        raise SearchError("this study has not started with this config", where=search_dir, hint=hint) from None
    store_dir = search_dir / "store" / plan.fingerprint(checksum)
    progress = read_progress(study, store_dir, plan.search, config.search.n_trials)
    print(progress_line(progress), flush=True)
    print_running(progress, Console(highlight=False))
    return 0


def _serve_storage(arguments: argparse.Namespace) -> int:
    from ensembleflow.search.remote_storage import open_remote_storage  # a database: slow to import

    served, host, port = arguments.storage, arguments.host, arguments.port
    if served is None:
        config, search_dir = _load(arguments)
        url = config.search.storage
        served = str(journal_path(search_dir)) if url is None or url.startswith("grpc://") else url
    _require_free(host, port)
    if "://" in served:
        storage = open_remote_storage(served, pool_size=_PROXY_THREADS)
    else:
        storage = open_journal(Path(served).resolve())
    local = host in ("127.0.0.1", "localhost", "::1")
    reached = host if local else socket.gethostname() if host in ("0.0.0.0", "::") else host
    print(f"serving {without_password(served)}; Ctrl-C ends it, and jobs wait a minute for it to come back")
    print(f"for the jobs' config:\n  search: {{storage: 'grpc://{reached}:{port}'}}")
    if local:
        print("jobs on other nodes cannot reach it; for them start it with --host 0.0.0.0", flush=True)
    else:
        print("it asks for no password: whoever reaches this port can change the trials", flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.run_grpc_proxy_server(storage, host=host, port=port)
    return 0


def _require_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        raise SearchError(
            "the proxy cannot listen there",
            where=f"{host}:{port}",
            found=error,
            expected="an address of this machine and a free port",
            hint="choose another one with --port",
        ) from None
