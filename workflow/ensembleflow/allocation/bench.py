"""The speed of an ensemble under one allocation, by running it."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from ensembleflow.allocation.pipeline import Pipeline
from ensembleflow.allocation.placement import Allocation
from ensembleflow.allocation.refine import Score
from ensembleflow.allocation.worker import MemberError

__all__ = ["bench_allocation"]

# After one repeat slower than this share of the best allocation, more repeats cannot make it win.
_HOPELESS_SHARE = 0.5


def bench_allocation(
    pipeline: Pipeline,
    allocation: Allocation,
    images: npt.NDArray[np.uint8],
    repeats: int,
    best_images_per_second: float = 0.0,
) -> Score:
    """Images per second of the whole ensemble: median and quartiles over repeats of predicting `images`.

    A member that fails makes the score 0, with the reason. An allocation whose first repeat has less than
    half the speed of the best one so far is not repeated.

    Args:
        pipeline: the running ensemble; afterwards it is in `allocation`.
        allocation: what to measure.
        images: uint8 (images, height, width, channels).
        repeats: how often to predict them.
        best_images_per_second: median of the best allocation so far.

    Source: `bench` of the paper's Algorithm 1.
    """
    speeds: list[float] = []
    try:
        pipeline.reconfigure(allocation)
        while len(speeds) < repeats and not (speeds and speeds[0] < _HOPELESS_SHARE * best_images_per_second):
            started_at = time.perf_counter()
            pipeline.predict(images)
            speeds.append(len(images) / (time.perf_counter() - started_at))
    except MemberError as error:
        failure = "; ".join(f"{model}: {reason}" for model, reason in error.failures.items())
        return Score(0.0, 0.0, 0.0, repeats=len(speeds), failure=failure)
    q25, median, q75 = np.percentile(speeds, [25, 50, 75])
    return Score(float(median), float(q25), float(q75), repeats=len(speeds))
