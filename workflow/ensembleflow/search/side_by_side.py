"""Several small trials on one device: a job's own processes, which share its GPU, cores and memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace

from ensembleflow.child_process import ChildEndedError, ChildProcess
from ensembleflow.errors import SearchError
from ensembleflow.search import train_process
from ensembleflow.search.job_spec import JobSpec

__all__ = ["train_side_by_side"]

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
        EnsembleflowError: a process ended by it; the trials can be resumed.
        SearchError: a process ended otherwise than well; likewise.
    """
    share = asdict(replace(spec, threads=max(1, spec.threads // n_processes)))
    with ExitStack() as stack:
        children = [
            stack.enter_context(ChildProcess(train_process.__file__, share, seconds_to_stop=_SECONDS_TO_STOP))
            for _ in range(n_processes)
        ]
        try:
            running = list(children)
            while running:
                time.sleep(_POLL_SECONDS)
                for child in [each for each in running if each.has_ended()]:
                    running.remove(child)
                    _refuse_failure(child)
                log_progress()
        finally:
            for child in children:  # all of them before the first is waited for
                child.stop()


def _refuse_failure(child: ChildProcess) -> None:
    try:
        child.wait()
    except ChildEndedError as error:
        raise SearchError(
            "a process that trained beside others ended",
            found=error,
            hint="nothing is lost: run the same command again; if it was killed for its memory, raise "
            "resources.search.mem_mb or lower resources.search.concurrent_trials",
        ) from None
