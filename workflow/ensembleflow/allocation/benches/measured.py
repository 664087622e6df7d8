"""The speed of an ensemble under one allocation, by running it."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.allocation.benches.score import Score
from ensembleflow.config import AllocationConfig
from ensembleflow.inference.pipeline import Pipeline
from ensembleflow.inference.placement import Allocation, allocation_text
from ensembleflow.inference.worker import MemberError

__all__ = ["MeasuredBench"]

_LOG = logging.getLogger("ensembleflow.allocation")

# After one repeat worse than this share of the best allocation, more repeats cannot make it win.
_HOPELESS_SHARE = 0.5
_SECONDS_BETWEEN_PROGRESS = 5.0


class MeasuredBench:
    """Scores an allocation by running the ensemble in it.

    A repeat predicts all images in one request, then sends `latency_requests` requests of `request_images` images,
    each when the one before is answered. A member that fails makes the score 0, with the reason. An allocation whose
    first repeat has less than half the score of the best one so far is not repeated.

    Args:
        pipeline: the running ensemble; after a bench it is in the allocation benched.
        images: (images, *image_shape).
        config: the objective, the number of repeats and the requests.
        title: what the log calls the search.

    Source: `bench` of the paper's Algorithm 1.
    """

    def __init__(
        self, pipeline: Pipeline, images: npt.NDArray[Any], config: AllocationConfig, title: str = "allocation"
    ) -> None:
        self._pipeline = pipeline
        self._images = images
        # A request may be longer than the bench.
        self._request = np.resize(images, (config.request_images, *images.shape[1:]))
        self._config = config
        self._title = title
        self._best = 0.0
        self._n_benches = 0
        self._logged_at = time.monotonic()

    def __call__(self, allocation: Allocation) -> Score:
        """Run the ensemble in this allocation."""
        score = self._measure(allocation)
        self._best = max(self._best, score.value)
        self._n_benches += 1
        self._log(allocation, score)
        return score

    def _measure(self, allocation: Allocation) -> Score:
        speeds: list[float] = []
        p50_ms: list[float] = []
        p99_ms: list[float] = []
        objective = self._config.objective
        try:
            self._pipeline.reconfigure(allocation)
            if self._n_benches == 0:
                # The first request touches memory for the first time, which the start must not be charged with.
                self._pipeline.predict(self._images)
            while len(speeds) < self._config.bench_repeats:
                started_at = time.perf_counter()
                self._pipeline.predict(self._images)
                speeds.append(len(self._images) / (time.perf_counter() - started_at))
                latencies_ms = [self._latency_ms() for _ in range(self._config.latency_requests)]
                if latencies_ms:
                    p50_ms.append(float(np.quantile(latencies_ms, 0.5)))
                    p99_ms.append(float(np.quantile(latencies_ms, 0.99)))
                score = Score(objective, tuple(speeds), tuple(p50_ms), tuple(p99_ms))
                if score.value < _HOPELESS_SHARE * self._best:
                    break
        except MemberError as error:
            failure = "; ".join(f"{model}: {reason}" for model, reason in error.failures.items())
            return Score(objective, failure=failure)
        return score

    def _latency_ms(self) -> float:
        started_at = time.perf_counter()
        self._pipeline.predict(self._request)
        return (time.perf_counter() - started_at) * 1000

    def _log(self, allocation: Allocation, score: Score) -> None:
        _LOG.info(
            "%s: bench %d: %s images/s %s %s",
            self._title,
            self._n_benches,
            f"{score.median('images_per_second') or 0:,.0f}",
            allocation_text(allocation),
            score.failure,
        )
        if time.monotonic() - self._logged_at >= _SECONDS_BETWEEN_PROGRESS:
            self._logged_at = time.monotonic()
            _LOG.info(
                "%s: %d/%d benches",
                self._title,
                self._n_benches,
                self._config.max_benches,
                extra={"progress": True},
            )
