"""An ensemble in one process without HTTP, measuring itself: the members in turn, or our dispatcher.

    python serving_in_process.py SETTINGS.json    # writes JSON, a measurement a request size, to `output`

`in turn`: TensorFlow's exported functions, one caller. `dispatcher`: our pipeline, as many concurrent requests as the
server has clients.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "peers"))


def in_turn(settings: dict[str, Any]) -> dict[int, dict[str, float]]:
    from members import average, load_members

    members = load_members(settings["members"], settings["threads"])
    images, expected = np.load(settings["images"]), np.load(settings["expected"])
    found = {}
    for size in settings["sizes"]:
        warm_until = time.perf_counter() + settings["warmup_seconds"]
        ends_at = warm_until + settings["seconds"]
        seconds, worst, first = [], 0.0, 0
        while (now := time.perf_counter()) < ends_at or not seconds:
            chosen = np.arange(first, first + size) % len(images)
            answers = average(members, images[chosen])
            if now >= warm_until:
                seconds.append(time.perf_counter() - now)
            worst = max(worst, float(np.abs(answers - expected[chosen]).max()))
            first += size
        found[size] = _measurement(size, seconds, sum(seconds), worst)
    return found


def dispatcher(settings: dict[str, Any]) -> dict[int, dict[str, float]]:
    return asyncio.run(_dispatcher(settings))


async def _dispatcher(settings: dict[str, Any]) -> dict[int, dict[str, float]]:
    from ensembleflow.serving import open_bundle

    images, expected = np.load(settings["images"]), np.load(settings["expected"])
    running = open_bundle(settings["bundle"]).dispatcher()
    await running.start()
    found = {}
    try:
        for size in settings["sizes"]:
            warm_until = time.perf_counter() + settings["warmup_seconds"]
            ends_at = warm_until + settings["seconds"]
            seconds: list[float] = []
            differences = [0.0]

            async def client(
                place: int,
                size: int = size,
                warm_until: float = warm_until,
                ends_at: float = ends_at,
                seconds: list[float] = seconds,
                differences: list[float] = differences,
            ) -> None:
                first = place * len(images) // settings["clients"]
                while (now := time.perf_counter()) < ends_at:
                    chosen = np.arange(first, first + size) % len(images)
                    answer = await running.submit(images[chosen])
                    if warm_until <= (done := time.perf_counter()) < ends_at:
                        seconds.append(done - now)
                    differences.append(float(np.abs(answer.probabilities - expected[chosen]).max()))
                    first += size

            await asyncio.gather(*(client(place) for place in range(settings["clients"])))
            found[size] = _measurement(size, seconds, settings["seconds"], max(differences))
    finally:
        await running.close()
    return found


def _measurement(size: int, seconds: list[float], elapsed: float, worst: float) -> dict[str, float]:
    p50, p99 = 1000 * np.percentile(seconds or [np.nan], [50, 99])
    return {
        "images_per_second": len(seconds) * size / elapsed,
        "n_requests": len(seconds),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "worst_difference": worst,
        "failures": [],
    }


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    measured = {"in turn": in_turn, "dispatcher": dispatcher}[given["mode"]](given)
    Path(given["output"]).write_text(json.dumps(measured))
