"""Keys that are null follow from others, unless a config says otherwise."""

from __future__ import annotations

import pytest

from ensembleflow.config import parse_config
from ensembleflow.planning import plan_job

GPUS = [{"name": f"gpu{n}", "gpu": n} for n in range(3)]


@pytest.mark.parametrize(
    ("max_epochs", "min_epochs"), [(1, 1), (3, 1), (9, 1), (17, 1), (18, 2), (27, 3), (36, 4), (81, 9)]
)
def test_the_first_rung_is_at_a_ninth_of_the_epochs(max_epochs: int, min_epochs: int) -> None:
    for search in ({}, {"min_epochs": None}):
        assert parse_config({"search": {"max_epochs": max_epochs, **search}}).search.min_epochs == min_epochs


def test_a_first_rung_that_is_set_stays_and_is_the_same_search_as_one_that_follows() -> None:
    assert parse_config({"search": {"max_epochs": 36, "min_epochs": 2}}).search.min_epochs == 2
    follows, written = (parse_config({"search": search}) for search in ({}, {"min_epochs": 4}))
    assert plan_job(follows, 0) == plan_job(written, 0)


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 0), ("gpu", 1)])
def test_library_jobs_ask_for_a_gpu_where_costs_are_measured_on_one(device: str, gpus: int) -> None:
    for resources in ({}, {"library": {"gpus": None, "threads": 4}}, {"library": {"gpus": gpus}}):
        config = parse_config({"library": {"cost": {"device": device}}, "resources": resources})
        assert config.resources.library.gpus == gpus


@pytest.mark.parametrize(
    ("allocation", "gpus"),
    [
        ({}, 0),
        ({"devices": GPUS, "device_counts": [1, 2]}, 2),
        ({"devices": [{"name": "cpu"}, *GPUS], "device_counts": [4]}, 3),
        ({"devices": GPUS[2:], "device_counts": [1]}, 3),
        ({"devices": GPUS, "device_counts": [3], "bench": "simulated"}, 0),
    ],
)
def test_allocation_jobs_ask_for_the_gpus_of_the_devices_that_are_used(allocation: dict, gpus: int) -> None:
    assert parse_config({"allocation": allocation}).resources.allocation.gpus == gpus
    more = parse_config({"allocation": allocation, "resources": {"allocation": {"gpus": 8}}})
    assert more.resources.allocation.gpus == 8
