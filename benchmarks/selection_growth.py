"""How the selection's time grows with samples, models and workers, and what a step costs however little it computes."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
from distributed import Client, LocalCluster
from selection_data import segmentation_cache

from ensembleflow.library import FileSource, open_predictions
from ensembleflow.selection import greedy_with_replacement, read_candidates, selection_workers
from ensembleflow.selection.sums.dask_workers import DaskWorkers
from ensembleflow.selection.sums.losses import Prefixes
from ensembleflow.selection.sums.partition import MemorySource, block_bounds

_N_STEPS = 10
_N_CLASSES = 30
_N_MODELS, _N_PIXELS = 100, 2**21
Case = tuple[str, int, int, int]


def exponents(folder: Path, rounds: int) -> list[list[object]]:
    """Rows of what is doubled, its values, median seconds, and the slope of log seconds over log value."""
    models = [("threads", 1, n, _N_PIXELS) for n in (50, 100, 200)]
    samples = [("threads", 1, _N_MODELS, n) for n in (_N_PIXELS // 2, _N_PIXELS, 2 * _N_PIXELS)]
    threads = [("threads", n, _N_MODELS, 2 * _N_PIXELS) for n in (1, 2)]
    processes = [("processes", n, _N_MODELS, 2 * _N_PIXELS) for n in (1, 2)]
    cases = list(dict.fromkeys([*models, *samples, *threads, *processes]))
    seconds: dict[Case, list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            seconds[case].append(_seconds(folder, case))
    return [
        _row("models", models, 2, seconds),
        _row("samples", samples, 3, seconds),
        _row("workers: threads", threads, 1, seconds),
        _row("workers: processes", processes, 1, seconds),
    ]


def _row(name: str, cases: list[Case], what: int, seconds: dict[Case, list[float]]) -> list[object]:
    values = [case[what] for case in cases]
    medians = [median(seconds[case]) for case in cases]
    slope = float(np.polyfit(np.log(values), np.log(medians), 1)[0])
    return [name, " … ".join(f"{value:,}" for value in values), ", ".join(f"{each:.2f}" for each in medians), slope]


def _seconds(folder: Path, case: Case) -> float:
    """Seconds of the steps alone, the samples being held."""
    cluster, n_workers, n_models, n_pixels = case
    cache = segmentation_cache(folder, n_models, n_pixels, _N_CLASSES)
    with (
        selection_workers(cluster, n_workers, scratch_dir=folder) as make_workers,
        open_predictions(cache) as predictions,
    ):
        candidates = read_candidates(predictions, None, np.ones(n_models), "cross_entropy", make_workers)
        candidates.evaluator.losses_with([0, 0])  # compiles
        started_at = time.perf_counter()
        greedy_with_replacement(candidates, n_steps=_N_STEPS)
        return time.perf_counter() - started_at


def latency(cluster: str, n_workers: int, n_steps: int, folder: Path) -> tuple[float, float]:
    """Median and longest seconds of a pass over next to nothing, a task a worker.

    `processes` are those of a selection, encrypted traffic included; `threads` are workers within this process, as many
    as one wants to see the scheduler handle.
    """
    with ExitStack() as stack:
        if cluster == "processes":
            make_workers = stack.enter_context(selection_workers("processes", n_workers, scratch_dir=folder))
            block = block_bounds(2**30, 1, "cross_entropy")[0][1]
            cache = segmentation_cache(folder, 1, n_workers * block, 1)
            workers = make_workers(FileSource(cache, "valid", every_class=False), "cross_entropy")
        else:
            options = {
                "threads_per_worker": 1,
                "memory_limit": 0,
                "processes": False,
                "protocol": "tcp",
                "dashboard_address": None,
            }
            client = stack.enter_context(Client(stack.enter_context(LocalCluster(n_workers=n_workers, **options))))
            client.wait_for_workers(n_workers)
            labels = np.zeros(64 * n_workers, np.int64)
            source = MemorySource(np.full((1, len(labels)), 0.5, np.float16), labels, 1)
            workers = DaskWorkers(client, source, "cross_entropy", block_samples=64)
        n_tasks = len(list(workers.ranges()))
        assert n_tasks == n_workers, f"{n_tasks} tasks for {n_workers} workers"
        seconds = []
        for step in range(n_steps + 1):
            started_at = time.perf_counter()
            list(workers.block_sums(Prefixes([[0] * (step % 30)]), np.arange(1)))
            seconds.append(time.perf_counter() - started_at)
        workers.close()
    return median(seconds[1:]), max(seconds[1:])
