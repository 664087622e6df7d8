"""`ensembleflow storage-proxy`: one door to a search's storage."""

from __future__ import annotations

import argparse
import socket
import warnings
from pathlib import Path

import optuna

from ensembleflow.commands.configfile_argument import add_configfile, load_run_config, study_folder
from ensembleflow.config.storage_url import PROXY_PORT, without_password
from ensembleflow.errors import SearchError
from ensembleflow.search.storage import journal_path, open_journal

__all__ = ["add_command"]

_PROXY_THREADS = 10


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "storage-proxy", help="serve the search's journal or database to its jobs over gRPC, until Ctrl-C"
    )
    add_configfile(parser)
    parser.add_argument(
        "--storage",
        metavar="FILE_OR_URL",
        help="journal file or database to serve (default: the database of search.storage, or the study's journal)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (%(default)s: this machine's jobs only)"
    )
    parser.add_argument("--port", type=int, default=PROXY_PORT, help="port to listen at (%(default)s)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from ensembleflow.search.remote_storage import open_remote_storage  # a database: slow to import

    served, host, port = arguments.storage, arguments.host, arguments.port
    if served is None:
        config = load_run_config(arguments)
        url = config.search.storage
        served = str(journal_path(study_folder(config) / "search")) if url is None or url.startswith("grpc://") else url
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
