"""Three networks of the space are really trained, in a process of their own."""

from __future__ import annotations

import numpy as np

from ensembleflow.config import SearchConfig
from ensembleflow.first_config.machine import slurm_cluster
from ensembleflow.first_config.network_times import measure_networks

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def test_all_times_of_the_three_networks_are_measured() -> None:
    times = measure_networks(SearchConfig(), PIXELS, 3, slurm_cluster(1))
    assert times.start_seconds > 0
    assert [each.multiply_adds for each in times.networks] == sorted({each.multiply_adds for each in times.networks})
    assert len(times.networks) == 3
    for network in times.networks:
        for what in ("build_seconds", "train_seconds", "statistics_seconds", "predict_seconds"):
            assert 0 < getattr(network, what) < network.build_seconds + 1
