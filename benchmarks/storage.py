"""What Optuna's storage costs a search: operations per second with 1, 8 and 64 writers, and seconds to open it.

    python benchmarks/storage.py                                  # journal, proxy over a journal, PostgreSQL
    python benchmarks/storage.py --backends journal --writers 1 8 --trials 100 --seconds 3

A writer is a process that lives the storage's side of trials, one after the other, without training: it claims its
slot, draws its hyperparameters, reports three epochs and asks the pruner after each, and tells the end. All through
the search's own functions. PostgreSQL is a server of its own on a socket below /tmp; as root it runs as the user
postgres. With more writers than cores the writers' own work is in the numbers: `append` is the journal file alone,
a locked, flushed line, without any reading.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import pandas as pd
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from ensembleflow.config import Config, parse_config
from ensembleflow.io import write_csv
from ensembleflow.planning.search_plan import SearchPlan, plan_job
from ensembleflow.search.optuna_internals import add_trial, should_stop
from ensembleflow.search.space import distributions, suggest_hyperparameters
from ensembleflow.search.storage import journal_path, open_storage
from ensembleflow.search.study import claim_slot, open_study
from ensembleflow.search.trial import rung_of

EPOCHS = 3
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["append", "journal", "grpc", "postgresql"])
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 10_000], help="finished ones in the study")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--folder", type=Path, help="an existing one, for the journal (default: the temporary folder)")
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("journal lines:", count_writes(Path(folder)))
    table = pd.DataFrame(measure_backends(arguments))
    print(table.to_string(index=False, float_format=lambda value: f"{value:.5g}"))
    if arguments.csv:
        write_csv(arguments.csv, table)


def config_of(algorithm: str) -> Config:
    space = {"blocks_stage_3": [1, 2], "blocks_stage_4": [1, 2]}  # nothing fixed
    search = {
        "algorithm": algorithm,
        "n_trials": 10,
        "trials_per_job": 10,
        "max_epochs": 27,
        "min_epochs": 1,
        "space": space,
    }
    return parse_config({"search": search})


@cache
def plan_of(algorithm: str = "hyperband") -> SearchPlan:
    return SearchPlan.from_json(plan_job(config_of(algorithm), 0))


# One trial's life in the storage


class Times:
    """How long each step took, and when it ended."""

    def __init__(self) -> None:
        self.steps: dict[str, list[tuple[float, float]]] = {"begin": [], "epoch": [], "end": []}

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        begin = time.time()
        yield
        end = time.time()
        self.steps[step].append((end, end - begin))


def live(study: optuna.Study, slot: int, lease_dir: Path, times: Times) -> None:
    plan, draw = plan_of(), random.Random(slot)
    with times.of("begin"):
        trial = claim_slot(study, slot, lease_dir)
        suggest_hyperparameters(trial, plan.search)
    for epoch in range(1, EPOCHS + 1):
        with times.of("epoch"):
            trial.report(draw.random(), epoch)
            should_stop(study, slot, rung_of(epoch, 0, plan.search.min_epochs, plan.search.reduction_factor))
    with times.of("end"):
        study.tell(trial, None, state=TrialState.PRUNED)


def count_writes(folder: Path) -> dict[str, int]:
    """Journal lines that a trial's begin, an epoch between rungs, one at a rung and the end write."""
    path = journal_path(folder)
    study = open_study(open_storage(folder), plan_of(), "benchmark")

    def lines() -> int:
        return path.read_bytes().count(b"\n")

    counts = {"study": lines()}

    def count(name: str, do: Callable[[], Any]) -> Any:
        before = lines()
        result = do()
        counts[name] = lines() - before
        return result

    trial = count("claim", lambda: claim_slot(study, 0, folder))
    count("hyperparameters", lambda: suggest_hyperparameters(trial, plan_of().search))
    count("report", lambda: trial.report(0.5, 1))
    count("rung", lambda: should_stop(study, 0, 0))
    count("tell", lambda: study.tell(trial, None, state=TrialState.PRUNED))
    return counts


def fill_journal(folder: Path, n_trials: int) -> None:
    """Write the journal of a study with finished trials: one real trial's lines, with other numbers."""
    study = open_study(open_storage(folder), plan_of(), "benchmark")
    path = journal_path(folder)
    n_before = path.read_bytes().count(b"\n")
    live(study, 0, folder, Times())
    text = path.read_text(encoding="utf-8")
    life = text.splitlines(keepends=True)[n_before:]
    with open(path, "a", encoding="utf-8") as file:
        for number in range(1, n_trials):
            file.writelines(line.replace('"trial_id":0', f'"trial_id":{number}') for line in life)


def fill_storage(storage: BaseStorage, n_trials: int) -> None:
    """Make finished trials one by one, for a storage that is no file."""
    plan = plan_of()
    study = open_study(storage, plan, "benchmark")
    space = distributions(plan.search)
    sampler = optuna.samplers.RandomSampler(seed=0)
    known = len(study.get_trials(deepcopy=False))
    for number in range(known, n_trials):
        blank = optuna.trial.create_trial(state=TrialState.WAITING)
        blank.number = number
        values = {name: sampler.sample_independent(study, blank, name, each) for name, each in space.items()}
        draw = random.Random(number)
        trial = optuna.trial.create_trial(
            state=TrialState.PRUNED,
            params=values,
            distributions=space,
            intermediate_values={epoch: draw.random() for epoch in range(1, EPOCHS + 1)},
            system_attrs={"completed_rung_0": draw.random(), "completed_rung_1": draw.random()},
        )
        add_trial(study, trial)


# Many writers


def write_lives(url: str | None, folder: str, worker: int, n_workers: int, until: Any, gate: Any, answers: Any) -> None:
    begin = time.perf_counter()
    study = open_study(open_storage(folder, url), plan_of(), "benchmark")
    first = len(study.get_trials(deepcopy=False))
    opened = time.perf_counter() - begin
    gate.wait()
    times = Times()
    slot = first + worker
    while time.time() < until.value:
        live(study, slot, Path(folder), times)
        slot += n_workers
    answers.put((opened, times.steps))


def append_lines(
    url: str | None, folder: str, worker: int, n_workers: int, until: Any, gate: Any, answers: Any
) -> None:
    path = str(journal_path(folder))
    backend = JournalFileBackend(path, lock_obj=JournalFileOpenLock(path))
    line = {"op_code": 6, "worker_id": "x" * 40, "trial_id": worker, "step": 1, "intermediate_value": 0.123456789}
    gate.wait()
    times = Times()
    while time.time() < until.value:
        with times.of("epoch"):
            backend.append_logs([line])
    answers.put((0.0, times.steps))


def with_writers(
    work: Callable[..., None], url: str | None, folder: Path, n: int, measured: float
) -> tuple[Any, float]:
    context = multiprocessing.get_context("fork")  # the package is imported once, and nothing is opened here
    gate, answers, until = context.Barrier(n + 1), context.Queue(), context.Value("d", 0.0)
    arguments = [(url, str(folder), worker, n, until, gate, answers) for worker in range(n)]
    processes = [context.Process(target=work, args=each) for each in arguments]
    for process in processes:
        process.start()
    while gate.n_waiting < n:
        if any(process.exitcode for process in processes):
            sys.exit("a writer failed")
        time.sleep(0.05)
    until.value = time.time() + measured
    gate.wait()
    found = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    return found, until.value


def measure_backends(arguments: argparse.Namespace) -> Iterator[Row]:
    for backend in arguments.backends:
        for n_trials in arguments.trials if backend != "append" else [0]:
            for n in arguments.writers:
                with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                    yield from measure(backend, Path(folder), n_trials, n, arguments.seconds)


def measure(backend: str, folder: Path, n_trials: int, n: int, measured: float) -> Iterator[Row]:
    print(f"{backend}, {n_trials} trials, {n} writers", file=sys.stderr, flush=True)
    with served(backend, folder, n_trials) as url:
        work = append_lines if backend == "append" else write_lives
        found, until = with_writers(work, url, folder, n, measured)
    # A writer ends the trial that it has begun; what it does after the time is up does not count.
    seconds = {
        step: sorted(took for _, steps in found for end, took in steps[step] if end <= until)
        for step in ("begin", "epoch", "end")
    }
    epochs, begins = seconds["epoch"], seconds["begin"]
    yield {
        "backend": backend,
        "finished_trials": n_trials,
        "writers": n,
        "open_seconds": median(opened for opened, _ in found),
        "trials_per_second": len(seconds["end"]) / measured,
        "epochs_per_second": len(epochs) / measured,
        "begin_median_seconds": median(begins) if begins else None,
        "epoch_median_seconds": median(epochs) if epochs else None,
        "epoch_p95_seconds": epochs[int(0.95 * len(epochs))] if epochs else None,
        "longest_wait_seconds": max(took for _, steps in found for each in steps.values() for _, took in each),
    }


@contextmanager
def served(backend: str, folder: Path, n_trials: int) -> Iterator[str | None]:
    """The storage's URL, None for the journal in `folder`; it holds finished trials."""
    if backend == "append":
        journal_path(folder).touch()
        yield None
    elif backend == "journal":
        fill_journal(folder, n_trials)
        yield None
    elif backend == "grpc":
        fill_journal(folder, n_trials)
        with proxy(folder) as url:
            yield url
    elif backend == "postgresql":
        with postgresql() as url:
            process = multiprocessing.get_context("fork").Process(target=_fill, args=(url, folder, n_trials))
            process.start()
            process.join()
            yield url
    else:
        sys.exit(f"no backend {backend}")


def _fill(url: str, folder: Path, n_trials: int) -> None:
    fill_storage(open_storage(folder, url), n_trials)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve_proxy(folder: str, port: int) -> None:
    optuna.storages.run_grpc_proxy_server(open_storage(folder), host="127.0.0.1", port=port)


@contextmanager
def proxy(folder: Path) -> Iterator[str]:
    port = free_port()
    process = multiprocessing.get_context("fork").Process(target=serve_proxy, args=(str(folder), port), daemon=True)
    process.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        process.kill()
        process.join()


@contextmanager
def postgresql() -> Iterator[str]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        sys.exit("PostgreSQL is not installed (Debian: apt install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    user: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(folder, "postgres")

    def call(*command: str) -> None:
        subprocess.run([str(programs[-1] / command[0]), *command[1:]], check=True, capture_output=True, cwd="/", **user)

    data = str(folder / "data")
    call("initdb", "--pgdata", data, "--auth", "trust", "--username", "postgres")
    options = f"-k {folder} -c listen_addresses='' -c max_connections=200"
    call("pg_ctl", "--pgdata", data, "--wait", "--log", str(folder / "log"), "--options", options, "start")
    try:
        call("createdb", "--host", str(folder), "--username", "postgres", "search")
        yield f"postgresql://postgres@/search?host={folder}"
    finally:
        call("pg_ctl", "--pgdata", data, "--mode", "immediate", "stop")
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
