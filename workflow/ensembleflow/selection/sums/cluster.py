"""Who sums over the samples: threads, or a Dask cluster on one machine or on a Slurm allocation."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ensembleflow.errors import SelectionError
from ensembleflow.io import atomic_path, snakemake_command
from ensembleflow.models.runtime import configure_tensorflow, device_name
from ensembleflow.selection.sums.evaluation import MakeWorkers, ThreadWorkers, Workers
from ensembleflow.selection.sums.losses import GPU_LOSSES
from ensembleflow.selection.sums.partition import Source, partitions_of

if TYPE_CHECKING:
    from distributed import Client, Security

__all__ = ["ClusterKind", "selection_workers"]

ClusterKind = Literal["threads", "processes", "slurm"]

# What is left of a job's memory is for the interpreter and a step's sums.
_SHARE_FOR_SAMPLES = 0.75
_BYTES_A_WORKER = 350 * 2**20
_SECONDS_TO_START = 180.0
_SECONDS_TO_STOP = 10.0

logger = logging.getLogger("ensembleflow.selection")


@contextmanager
def selection_workers(
    cluster: ClusterKind = "threads",
    n_workers: int = 1,
    n_nodes: int = 1,
    memory_bytes: int | None = None,
    scratch_dir: str | Path = ".",
    report_html: str | Path | None = None,
    use_gpu: bool = False,
) -> Iterator[MakeWorkers]:
    """Start the workers of a selection, and stop them at the end.

    The members chosen do not depend on any of it.

    Args:
        cluster: `threads` of this process; `processes` of a Dask cluster on this machine; `slurm`, processes of a
            Dask cluster on all nodes of the Slurm job that this process runs in.
        n_workers: threads, or processes a node.
        n_nodes: nodes of the Slurm job.
        memory_bytes: what the samples may take on each machine in all; the rest is read anew for each step. None for
            no limit.
        scratch_dir: a folder that all nodes see, for the scheduler file and the certificates while this lasts.
        report_html: where Dask's performance report goes; not written for `threads`.
        use_gpu: sum a loss of `GPU_LOSSES` on this process's GPU, which then holds the samples whatever
            `memory_bytes` says; for `threads` only.

    Yields:
        What `read_candidates` takes as `make_workers`. It raises SelectionError where there is no GPU to use.

    Raises:
        SelectionError: no worker started, `slurm` outside a Slurm job, or a GPU for other workers than threads.
    """
    opened: list[Workers] = []

    def remembered(workers: Workers) -> Workers:
        opened.append(workers)
        return workers

    with ExitStack() as stack:
        if cluster == "threads":
            stack.callback(_close, opened)
            samples_bytes = None if memory_bytes is None else int(memory_bytes * _SHARE_FOR_SAMPLES)

            def on_threads(source: Source, loss: str) -> Workers:
                on_gpu = use_gpu and _is_for_gpu(loss)
                return remembered(ThreadWorkers(partitions_of(source, loss, n_workers, samples_bytes, use_gpu=on_gpu)))

            yield on_threads
            return
        if use_gpu:
            raise SelectionError(
                "a GPU sums for one process only",
                where="resources.selection.cluster",
                found=cluster,
                expected="threads",
            )
        from ensembleflow.selection.sums.dask_workers import DaskWorkers

        client = stack.enter_context(_dask_client(cluster, n_workers, n_nodes, Path(scratch_dir)))
        if report_html is not None:
            from distributed import performance_report

            aside = stack.enter_context(atomic_path(report_html))
            stack.enter_context(performance_report(filename=str(aside)))
        stack.callback(_close, opened)
        each = None if memory_bytes is None else max(0, memory_bytes // n_workers - _BYTES_A_WORKER)
        yield lambda source, loss: remembered(DaskWorkers(client, source, loss, each))


def _is_for_gpu(loss: str) -> bool:
    """Whether a GPU sums this loss; there must be one then."""
    if loss not in GPU_LOSSES:
        logger.info("the loss %s is summed on the CPU: a GPU sums %s only", loss, ", ".join(GPU_LOSSES))
        return False
    if "tensorflow" not in sys.modules:  # else whoever imported it has set it up
        configure_tensorflow(1, use_gpu=True)
    device = device_name()
    if device == "cpu":
        raise SelectionError(
            "the selection is to sum on a GPU, and there is none",
            where="resources.selection.gpus",
            found="TensorFlow finds no GPU",
            hint="check the driver and requirements-gpu.lock, or set resources.selection.gpus: 0",
        )
    logger.info("the losses are summed on a GPU: %s", device)
    return True


def _close(opened: Sequence[Workers]) -> None:
    for workers in opened:
        workers.close()


@contextmanager
def _dask_client(cluster: ClusterKind, n_workers: int, n_nodes: int, scratch_dir: Path) -> Iterator[Client]:
    """A client of a new cluster, whose traffic is encrypted and which nobody without its certificate can join."""
    from distributed import Client, LocalCluster, Security
    from distributed.utils import get_ip

    prefix = _srun(n_nodes) if cluster == "slurm" else []
    security = Security.temporary()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".dask-", dir=scratch_dir)))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Port .* is already in use", UserWarning)
            scheduler = stack.enter_context(
                LocalCluster(
                    n_workers=0,
                    host=get_ip() if cluster == "slurm" else "127.0.0.1",
                    security=security,
                    dashboard_address="127.0.0.1:8787",
                    silence_logs=logging.ERROR,
                )
            )
        client = stack.enter_context(Client(scheduler, security=security))
        client.write_scheduler_file(str(folder / "scheduler.json"))
        port = scheduler.scheduler_info["services"]["dashboard"]
        logger.info("Dask dashboard of the selection: http://127.0.0.1:%d/status on %s", port, socket.gethostname())
        command = [*prefix, *_worker_command(folder, security, n_workers)]
        process = subprocess.Popen(command, env=_worker_environment())
        stack.callback(_stop, process)
        stack.callback(client.shutdown)
        _wait_for_workers(client, process, command, n_workers * n_nodes)
        yield client


def _wait_for_workers(client: Client, process: subprocess.Popen[bytes], command: Sequence[str], expected: int) -> None:
    from distributed import TimeoutError as DaskTimeoutError

    deadline = time.monotonic() + _SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client.wait_for_workers(expected, timeout=1)
            return
        except DaskTimeoutError:
            continue
    found = len(client.scheduler_info()["workers"])
    if found == 0:
        ended = f"they ended with exit code {process.poll()}" if process.poll() is not None else "none has come"
        raise SelectionError(
            "no Dask worker has started",
            found=f"{ended}, of {expected}",
            hint=f"their own messages are in the rule's log; the command was: {' '.join(command)}",
        )
    logger.warning("only %d of %d Dask workers have started; the selection goes on with them", found, expected)


def _worker_command(folder: Path, security: Security, n_workers: int) -> list[str]:
    options = {"scheduler-file": folder / "scheduler.json", "local-directory": folder}
    for option, text in (("tls-ca-file", "ca_file"), ("tls-cert", "cert"), ("tls-key", "key")):
        options[option] = folder / f"{option}.pem"
        options[option].touch(mode=0o600)
        options[option].write_text(security.get_tls_config_for_role("worker")[text])
    limits = {"nworkers": n_workers, "nthreads": 1, "memory-limit": 0, "death-timeout": 60}
    module = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-dashboard"]
    return [*module, *(part for name, value in {**options, **limits}.items() for part in (f"--{name}", str(value)))]


def _worker_environment() -> dict[str, str]:
    # One thread per worker, whatever its libraries would start.
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # What the job's own step was given, one node, is not what the workers are to have.
    environment = {name: value for name, value in os.environ.items() if not _is_of_a_step(name)}
    return {**environment, **one_thread, "DASK_LOGGING__DISTRIBUTED": "error"}


def _is_of_a_step(name: str) -> bool:
    return name.startswith(("SLURM_", "SRUN_", "PMI_")) and name != "SLURM_CONF"


def _srun(n_nodes: int) -> list[str]:
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise SelectionError(
            "the Dask workers are to run on the nodes of a Slurm job, and this is none",
            where="resources.selection.cluster",
            found="slurm",
            hint=f"run with `{snakemake_command(how=('--profile', 'slurm'))}`, or set `cluster: processes`",
        )
    # The job's own step holds the first node's cores while it waits for the workers: they share them.
    once_a_node = [f"--nodes={n_nodes}", f"--ntasks={n_nodes}", "--ntasks-per-node=1"]
    return ["srun", f"--jobid={job}", *once_a_node, "--overlap", "--no-kill", "--kill-on-bad-exit=0"]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Wait for the workers, which were asked to end, and end them if they do not."""
    for end in (process.terminate, process.kill):
        try:
            process.wait(_SECONDS_TO_STOP)
            return
        except subprocess.TimeoutExpired:
            end()
    process.wait()
