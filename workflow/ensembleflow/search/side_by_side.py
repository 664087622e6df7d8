"""Several small trials on one device: a job's own processes, which share its GPU, cores and memory."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from ensembleflow.errors import EnsembleflowError, SearchError
from ensembleflow.search.job_spec import JobSpec
from ensembleflow.search.running_job import start_job
from ensembleflow.search.stop import StopSignals
from ensembleflow.search.trial import DoesNotFitBesideOthersError

__all__ = ["main", "train_side_by_side"]

logger = logging.getLogger("ensembleflow.search")

_POLL_SECONDS = 1.0
_SECONDS_TO_STOP = 60.0


def train_side_by_side(spec: JobSpec, n_processes: int, log_progress: Callable[[], None]) -> None:
    """Train a job's slots in several processes, each taking the next slot that no other one holds.

    Slots may be left: those that other jobs hold, and those that ran out of the shared memory.

    Args:
        spec: the job; its threads are shared out.
        n_processes: how many.
        log_progress: called every second.

    Raises:
        SearchError: a process ended otherwise than well; its trials can be resumed.
    """
    share = replace(spec, threads=max(1, spec.threads // n_processes))
    # Not multiprocessing, which would run the caller's main script once more in each process.
    processes = [
        subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(n_processes)
    ]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(asdict(share)) + "\n")
            process.stdin.flush()  # and left open: a process whose input ends has lost its parent
        running = list(processes)
        while running:
            time.sleep(_POLL_SECONDS)
            for process in [each for each in running if each.poll() is not None]:
                running.remove(process)
                _refuse_failure(process)
            log_progress()
    finally:
        _stop(processes)


def _refuse_failure(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    if process.returncode == 0:
        return
    told = process.stdout.read().strip()
    if told:
        raise SearchError(**json.loads(told))
    raise SearchError(
        "a process that trained beside others ended",
        found=f"exit code {process.returncode}" + (" (killed)" if process.returncode < 0 else ""),
        hint="nothing is lost: run the same command again; if it was killed for its memory, raise "
        "resources.search.mem_mb or lower resources.search.concurrent_trials",
    )


def _stop(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _train_free_slots(spec: JobSpec) -> None:
    """Train, beside other processes of the same job, those of its slots that none of them works on."""
    with StopSignals() as signals, start_job(spec) as job:
        for slot in job.plan.slots:
            try:
                job.train(slot, signals, alone=False)
            except DoesNotFitBesideOthersError:
                logger.warning("trial %d ran out of the memory that it shares: it is trained alone later", slot)


def main() -> int:
    """Train the free slots of the job that is told on the standard input; end when that is closed."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")  # to the job's log
    logging.getLogger("ensembleflow").setLevel(logging.INFO)
    spec = JobSpec(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _train_free_slots(spec)
    except EnsembleflowError as error:
        told = {name: getattr(error, name) for name in ("what", "where", "found", "expected", "hint")}
        sys.stdout.write(json.dumps(told))
        return 1
    return 0


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
