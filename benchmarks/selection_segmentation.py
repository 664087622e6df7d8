"""The selection of a segmentation: from a cache on disk, of more pixels than one process should hold, to the ensemble.

Memory is the sum over this process and the workers of what each has alone, and its share of what several have
(the kernel's PSS), sampled twice a second; pages of the file itself, which the system may drop, are told apart.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import psutil
from numba import njit

from ensembleflow.library import open_predictions
from ensembleflow.selection import read_candidates, selection_workers, smobf_budgets
from ensembleflow.selection.sums.checks import Ranges
from ensembleflow.selection.sums.evaluation import Workers
from ensembleflow.selection.sums.losses import Prefixes

_SECONDS_BETWEEN_SAMPLES = 0.5
_BANDWIDTH_BYTES = 2**31


@dataclass
class Passes:
    """What each pass over the data took."""

    seconds: list[float] = field(default_factory=list)
    n_prefixes: list[int] = field(default_factory=list)


class TimedWorkers:
    """Workers whose passes are timed."""

    def __init__(self, workers: Workers, passes: Passes) -> None:
        self._workers, self._passes = workers, passes

    def ranges(self) -> Iterable[Ranges]:
        return self._workers.ranges()

    def block_sums(self, prefixes: Prefixes, candidates: npt.NDArray[np.int64]) -> Iterable[npt.NDArray[np.float64]]:
        started_at = time.perf_counter()
        sums = list(self._workers.block_sums(prefixes, candidates))
        self._passes.seconds.append(time.perf_counter() - started_at)
        self._passes.n_prefixes.append(len(prefixes))
        return sums

    def close(self) -> None:
        self._workers.close()


@dataclass
class Segmentation:
    """One selection, in seconds and bytes."""

    members: list[int]
    start_seconds: float
    load_seconds: float
    select_seconds: float
    passes: Passes
    process_bytes: int
    file_bytes: int

    @property
    def seconds(self) -> float:
        return self.start_seconds + self.load_seconds + self.select_seconds


def select(
    cache: Path, costs: npt.NDArray[np.float64], budget: str, cluster: str, n_workers: int, folder: Path
) -> Segmentation:
    """SMOBF with all weights, from the file to the members."""
    passes = Passes()
    with peak_memory() as peak:
        started_at = time.perf_counter()
        with selection_workers(cluster, n_workers, scratch_dir=folder) as make_workers:
            ready_at = time.perf_counter()
            with open_predictions(cache) as predictions:
                candidates = read_candidates(
                    predictions,
                    None,
                    costs,
                    "cross_entropy",
                    lambda source, loss: TimedWorkers(make_workers(source, loss), passes),
                )
            loaded_at = time.perf_counter()
            (chosen,) = smobf_budgets(candidates, [budget])
            done_at = time.perf_counter()
    return Segmentation(
        chosen.members,
        ready_at - started_at,
        loaded_at - ready_at,
        done_at - loaded_at,
        passes,
        peak["process"],
        peak["file"],
    )


def forget(path: Path) -> None:
    """Let the system drop a file's pages from its cache, so that the next reader waits for the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def peak_memory() -> Iterator[dict[str, int]]:
    """The peak, while the block runs, of this process's and its descendants' memory in bytes."""
    peak = {"process": 0, "file": 0}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_SECONDS_BETWEEN_SAMPLES):
            processes = [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]
            found = [_proportional_bytes(process) for process in processes]
            peak["process"] = max(peak["process"], sum(own for own, _ in found))
            peak["file"] = max(peak["file"], sum(file for _, file in found))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def _proportional_bytes(process: int) -> tuple[int, int]:
    """A process's own memory, and pages of files."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:  # it has ended
        return 0, 0
    kilobytes = {name: int(value) for name, value, *_ in (line.replace(":", "").split() for line in lines)}
    return 1024 * (kilobytes["Pss_Anon"] + kilobytes["Pss_Shmem"]), 1024 * kilobytes["Pss_File"]


@njit(cache=True, nogil=True)
def _add_up(values: npt.NDArray[np.int64]) -> int:
    total = 0
    for value in values:
        total += value
    return total


def bandwidth(n_threads: int) -> float:
    """Bytes a second that so many threads read from memory: each adds up its part of 2 GiB; the median of five."""
    parts = np.array_split(np.ones(_BANDWIDTH_BYTES // 8, np.int64), n_threads)
    seconds = []
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in range(6):
            started_at = time.perf_counter()
            list(pool.map(_add_up, parts))
            seconds.append(time.perf_counter() - started_at)
    return _BANDWIDTH_BYTES / median(seconds[1:])
