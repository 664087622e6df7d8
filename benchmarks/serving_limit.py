"""The machine's limit: how fast the cores could compute the members if they did nothing else.

On every core at once a process computes one member after the other at each batch size. The members' shortest times of
an image add up to what an image of the ensemble costs; as many cores as there are give so many times the images/s.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from serving_ensemble import multiply_adds_of

from ensembleflow.models.engines import LoadedEngine, load_engine, prepare_members

__all__ = ["Limit", "measure_limit"]

BATCH_SIZES = (1, 8, 32, 64, 128)


class Limit(NamedTuple):
    """What the members could reach.

    Attributes:
        images_per_second: of the ensemble, on all cores.
        gflop_per_image: multiply-adds counted as two.
        gflops: reached at that speed, on all cores.
    """

    images_per_second: float
    gflop_per_image: float
    gflops: float


def measure_limit(
    members: list[str], engines: Collection[str], images: Path, study: Path, seconds: float, folder: Path
) -> Limit:
    """Measure each member with each of the engines, on every core that this process may use, at once.

    Args:
        members: folders of the exported functions.
        engines: of which each member's fastest counts.
        images: .npy file of uint8 images.
        study: the study's folder, whose models' multiply-adds are counted.
        seconds: for each member, engine and batch size.
        folder: for files between the processes.
    """
    cores = sorted(os.sched_getaffinity(0))
    prepared = prepare_members([Path(member) for member in members], folder / "prepared", engines)
    seconds_an_image = np.full((len(cores), len(members)), np.inf)
    for engine in engines:
        given = {"members": list(map(str, prepared)), "engine": engine, "images": str(images), "seconds": seconds}
        found = _run([{**given, "core": core} for core in cores], folder)
        seconds_an_image = np.minimum(seconds_an_image, found)
    shutil.rmtree(folder / "prepared")
    (multiply_adds,) = _run([{"study": str(study), "models": [Path(member).name for member in members]}], folder)
    images_per_second = float((1 / seconds_an_image.sum(axis=1)).sum())
    gflop = 2 * sum(multiply_adds) / 1e9
    return Limit(images_per_second, gflop, images_per_second * gflop)


def _run(orders: list[dict[str, Any]], folder: Path) -> list[list[float]]:
    """This script's answers to orders, a process each, at once."""
    processes = []
    try:
        for place, order in enumerate(orders):
            file = folder / f"limit-{place}.json"
            file.write_text(json.dumps(order))
            processes.append(subprocess.Popen([sys.executable, __file__, str(file)], stdout=subprocess.PIPE))
        answers = [process.communicate()[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode != 0 for process in processes):
        raise SystemExit("a process that measures the limit failed")
    return [json.loads(answer) for answer in answers]


def _obey(order: dict[str, Any]) -> list[float]:
    if "study" in order:
        return list(map(float, multiply_adds_of(Path(order["study"]), order["models"])))
    os.sched_setaffinity(0, {order["core"]})  # before an engine counts its cores
    images = np.load(order["images"])
    return [
        _seconds_an_image(load_engine(order["engine"], Path(member), 1), images, order["seconds"])
        for member in order["members"]
    ]


def _seconds_an_image(model: LoadedEngine, images: np.ndarray, seconds: float) -> float:
    best = np.inf
    for batch_size in BATCH_SIZES:
        batch = np.resize(images, (batch_size, *images.shape[1:]))
        model.predict(batch, batch_size)
        n_calls, started_at = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started_at) < seconds:
            model.predict(batch, batch_size)
            n_calls += 1
        best = min(best, elapsed / (n_calls * batch_size))
    return best


if __name__ == "__main__":
    print(json.dumps(_obey(json.loads(Path(sys.argv[1]).read_text()))))
