"""The selection: against AutoGluon's and plain NumPy, as a user calls it, on a segmentation, and how it grows.

    python benchmarks/selection.py                        # all; tables as Markdown on the standard output
    python benchmarks/selection.py peers smobf --rounds 5
    python benchmarks/selection.py segmentation growth latency --scratch /fast/disk

AutoGluon gets a virtual environment of its own in `~/.cache/ensembleflow-benchmark`, made by the first run. The
caches of made-up probabilities take 10 GB of `--scratch`; a folder that is given keeps them for the next run. All take
turns within a round; the tables give medians over the rounds, and medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import numpy as np
from selection_data import Array, Labels, classification, costs_of, segmentation_cache
from selection_growth import exponents, latency
from selection_segmentation import bandwidth, forget, select

from ensembleflow.models.metrics import SMALLEST_PROBABILITY
from ensembleflow.selection import Candidates, greedy_with_replacement, read_candidates, smobf, smobf_budgets

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
PEERS = Path(__file__).parent / "peers"
AUTOGLUON = "autogluon.core==1.6.3"
# AutoGluon decides by losses that it has rounded to six decimals.
ROUNDED_BY = 1e-6

N_SAMPLES, N_CLASSES = 2000, 100
N_IMAGES, IMAGE_PIXELS, N_REGION_CLASSES, N_MODELS = 500, 256 * 256, 30, 100
BUDGET, RELAXED_BUDGET = "8x", "30x"


def main() -> None:
    parts = {"peers": peers, "smobf": as_called, "segmentation": segmentation, "growth": growth, "latency": latencies}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="of the greedy selection with replacement")
    parser.add_argument("--scratch", type=Path, help="an existing folder for the caches (default: a temporary one)")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="ensembleflow-benchmark-") as folder:
        arguments.scratch = arguments.scratch or Path(folder)
        for name in arguments.parts or parts:
            parts[name](arguments)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table as Markdown."""
    lines = [list(columns), ["---"] * len(list(columns)), *rows]
    print(f"\n{title}\n")
    for line in lines:
        print("| " + " | ".join(f"{each:.3g}" if isinstance(each, float) else str(each) for each in line) + " |")
    sys.stdout.flush()


def seconds_of(work: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    work()
    return time.perf_counter() - started_at


# Against AutoGluon and NumPy


def peers(arguments: argparse.Namespace) -> None:
    python = autogluon_python()
    for loss, metric in (("cross_entropy", "log_loss"), ("error", "accuracy")):
        rows: list[list[object]] = []
        for n_models in (100, 200):
            rows += against_peers(n_models, loss, metric, python, arguments.rounds, arguments.steps)
        title = (
            f"{loss}: {N_SAMPLES} samples, {N_CLASSES} classes, {arguments.steps} steps, one core, "
            f"{arguments.rounds} rounds"
        )
        table(title, ("models", "contender", "candidates/s", "ours, times it", "the same choices"), rows)


def against_peers(n_models: int, loss: str, metric: str, python: Path, rounds: int, steps: int) -> list[list[object]]:
    probabilities, labels = classification(n_models, N_SAMPLES, N_CLASSES)
    costs = np.ones(n_models)
    rates: dict[str, list[float]] = {"ensembleflow": [], "NumPy, float64": [], AUTOGLUON: []}
    same: dict[str, str] = {"ensembleflow": ""}

    def fresh_candidates() -> Candidates:  # nothing remembered
        return read_candidates(probabilities, labels, costs, loss)

    n_tried = n_models * steps
    expected = greedy_with_replacement(fresh_candidates(), n_steps=steps).path[-1].members
    for _ in range(rounds):
        seconds = median(ours_seconds(fresh_candidates(), steps) for _ in range(5))
        rates["ensembleflow"].append(n_tried / seconds)
        started_at = time.perf_counter()
        found = numpy_greedy(probabilities, labels, loss, steps)
        rates["NumPy, float64"].append(n_tried / (time.perf_counter() - started_at))
        same["NumPy, float64"] = compared(fresh_candidates(), expected, found)
        seconds, found = autogluon_greedy(python, probabilities, labels, metric, steps)
        rates[AUTOGLUON].append(n_tried / seconds)
        same[AUTOGLUON] = compared(fresh_candidates(), expected, found)
    ours = rates["ensembleflow"]
    return [
        [n_models, name, f"{median(each):,.0f}", median(a / b for a, b in zip(ours, each, strict=True)), same[name]]
        for name, each in rates.items()
    ]


def ours_seconds(candidates: Candidates, n_steps: int) -> float:
    return seconds_of(lambda: greedy_with_replacement(candidates, n_steps=n_steps))


def compared(candidates: Candidates, ours: list[int], others: list[int]) -> str:
    """How many choices are equal, and how far from the lowest loss, after its own choices before it, each other is."""
    differing = [place for place, pair in enumerate(zip(ours, others, strict=True)) if pair[0] != pair[1]]
    if not differing:
        return "all"
    excess = 0.0
    for size, model in enumerate(others):
        losses = candidates.evaluator.losses_with(others[:size])
        excess = max(excess, float(losses[model] - losses[candidates.usable].min()))
    verdict = "within" if excess <= ROUNDED_BY else "BEYOND"
    return f"the first {differing[0]}; each at most {excess:.1e} from its best, {verdict} rounding to {ROUNDED_BY:g}"


def numpy_greedy(probabilities: Array, labels: Labels, loss: str, n_steps: int) -> list[int]:
    """Greedy selection with replacement as one writes it down, in float64."""
    true_class = probabilities[:, np.arange(len(labels)), labels].astype(np.float64)
    total = np.zeros(true_class.shape[1] if loss == "cross_entropy" else probabilities.shape[1:])
    members: list[int] = []
    for size in range(1, n_steps + 1):
        if loss == "cross_entropy":
            losses = -np.log(np.maximum((total + true_class) / size, SMALLEST_PROBABILITY)).mean(axis=1)
        else:
            losses = np.array([((total + each).argmax(axis=1) != labels).mean() for each in probabilities])
        tied = np.flatnonzero(losses <= losses.min() + 1e-12)
        members.append(next((int(model) for model in tied if model in members), int(tied[0])))
        total += true_class[members[-1]] if loss == "cross_entropy" else probabilities[members[-1]]
    return members


def autogluon_python() -> Path:
    """The interpreter of an environment with AutoGluon's core, made if it is not there."""
    folder = Path.home() / ".cache" / "ensembleflow-benchmark" / AUTOGLUON
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"installing {AUTOGLUON} into {folder}", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", AUTOGLUON], check=True)
        (folder / "complete").touch()
    return python


def autogluon_greedy(
    python: Path, probabilities: Array, labels: Labels, metric: str, n_steps: int
) -> tuple[float, list[int]]:
    """Seconds and choices of AutoGluon."""
    with tempfile.TemporaryDirectory() as folder:
        problem, answer = Path(folder) / "problem.npz", Path(folder) / "answer.json"
        np.savez(problem, probabilities=probabilities, labels=labels)
        command = [python, PEERS / "autogluon_greedy.py", problem, metric, n_steps, answer]
        subprocess.run([str(part) for part in command], env={**os.environ, **ONE_THREAD}, check=True)
        found = json.loads(answer.read_text())
    return found["seconds"], found["members"]


# As a user calls it


def as_called(arguments: argparse.Namespace) -> None:
    n_models = 100
    probabilities, labels = classification(n_models, N_SAMPLES, N_CLASSES)
    costs = costs_of(n_models)
    rows = []
    for loss in ("cross_entropy", "error", "brier", "macro_f1_error"):
        found = smobf(probabilities, labels, costs, budget=BUDGET, loss=loss)  # compiles
        seconds: dict[str, list[float]] = {"read": [], "select": [], "call": []}
        for _ in range(10 * arguments.rounds):
            started_at = time.perf_counter()
            candidates = read_candidates(probabilities, labels, costs, loss)
            read_at = time.perf_counter()
            smobf_budgets(candidates, [BUDGET])
            seconds["select"].append(time.perf_counter() - read_at)
            seconds["read"].append(read_at - started_at)
            seconds["call"].append(
                seconds_of(lambda loss=loss: smobf(probabilities, labels, costs, budget=BUDGET, loss=loss))
            )
        milliseconds = [1000 * median(seconds[part]) for part in ("select", "read", "call")]
        sizes = ", ".join(str(len(each.members)) for each in found.by_weight)
        rows.append([loss, sizes, candidates.evaluator.n_evaluated, *milliseconds])
    table(
        f"smobf(probabilities, labels, costs, budget={BUDGET!r}): {n_models} models, {N_SAMPLES} samples, "
        f"{N_CLASSES} classes, three weights, one core, {10 * arguments.rounds} rounds",
        ("loss", "members by weight", "losses", "selection ms", "reading and checking ms", "the call ms"),
        rows,
    )


# A segmentation


def segmentation(arguments: argparse.Namespace) -> None:
    cache = segmentation_cache(arguments.scratch, N_MODELS, N_IMAGES * IMAGE_PIXELS, N_REGION_CLASSES)
    costs, n_bytes = costs_of(N_MODELS), N_MODELS * N_IMAGES * IMAGE_PIXELS * np.dtype(np.float16).itemsize
    rows = []
    for _ in range(arguments.rounds):
        for from_disk in (True, False):
            memory_bandwidth = bandwidth(2)
            if from_disk:
                forget(cache)
            found = select(cache, costs, RELAXED_BUDGET, "processes", 2, arguments.scratch)
            passes = found.passes
            throughput = n_bytes * len(passes.seconds) / sum(passes.seconds)
            rows.append(
                (
                    "disk" if from_disk else "the system's cache",
                    *(round(each, 1) for each in (found.seconds, found.start_seconds, found.load_seconds)),
                    round(found.select_seconds, 1),
                    len(found.members),
                    f"{len(passes.seconds)} ({sum(passes.n_prefixes)})",
                    *(each / 2**30 for each in (found.process_bytes, found.file_bytes)),
                    *(each / 1e9 for each in (throughput, memory_bandwidth)),
                    throughput / memory_bandwidth,
                )
            )
    table(
        f"segmentation: {N_IMAGES} × {IMAGE_PIXELS} pixels, {N_REGION_CLASSES} classes, {N_MODELS} models in float16 "
        f"({n_bytes / 1e9:.2f} GB), budget {RELAXED_BUDGET}, three weights, two Dask workers",
        (
            *("read from", "seconds", "start", "read and check", "select", "members", "passes (ensembles)"),
            *("peak GiB", "pages of files GiB", "passes GB/s", "memory GB/s", "share"),
        ),
        rows,
    )


# Growth


def growth(arguments: argparse.Namespace) -> None:
    rows = exponents(arguments.scratch, arguments.rounds)
    table(
        f"growth: ten steps of greedy selection with replacement, cross-entropy; {arguments.rounds} rounds",
        ("what is doubled", "from … to", "seconds", "exponent"),
        rows,
    )


def latencies(arguments: argparse.Namespace) -> None:
    rows = []
    for cluster, n_workers in (("processes", 1), ("processes", 2), ("threads", 2), ("threads", 10), ("threads", 100)):
        found = latency(cluster, n_workers, 10 * arguments.rounds, arguments.scratch)
        rows.append([cluster, n_workers, *(1000 * each for each in found)])
    table(
        f"latency: a pass with next to no samples, so that only Dask is left; {10 * arguments.rounds} steps; "
        "as threads, all workers share one process and its interpreter lock",
        ("workers are", "how many", "a step, median ms", "slowest ms"),
        rows,
    )


if __name__ == "__main__":
    main()
