"""Costs of real exported functions, in every unit that this machine tells."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensembleflow.errors import LibraryError
from ensembleflow.library.costs import _Measured, _optional_columns
from ensembleflow.library.peak_memory import measure_peak_memory
from ensembleflow.models import gpu_memory_bytes, open_energy_counter

SETTINGS = {"n_images": 250, "batch_size": 100, "repeats": 4}
ALWAYS = [
    *("model", "device", "threads", "cost_seconds", "cost_seconds_q25", "cost_seconds_q75", "cost_seconds_min"),
    *("images_per_second", "n_images", "batch_size", "repeats", "parameter_bytes"),
]
LATENCIES = ["latency_p50_seconds", "latency_p99_seconds"]
WEIGHTS_BYTES = 4 * 30_000 * (64 + 1 + 10)
"""Of the wide network, nearly."""


@pytest.fixture(scope="module")
def measured(cached) -> tuple[dict[str, pd.DataFrame], str]:
    library, _ = cached
    runs = {"costs": {**SETTINGS, "latency_requests": 25}, "no_requests": {**SETTINGS, "latency_requests": 0}}
    told = library.measure(runs)
    return {name: pd.read_csv(library.folder / f"{name}.csv") for name in runs}, told


def test_a_row_a_kept_model_in_rank_order_with_what_was_measured(cached, measured) -> None:
    table = measured[0]["costs"]
    assert list(table.columns[: len(ALWAYS)]) == ALWAYS
    assert list(table.model) == list(cached[0].models)
    assert set(table.device) == {"cpu"}
    for name, value in SETTINGS.items():
        assert set(table[name]) == {value}
    np.testing.assert_allclose(table.images_per_second, 250 / table.cost_seconds)


def test_every_number_can_be_a_budgets_unit(measured) -> None:
    for table in measured[0].values():
        numbers = table.drop(columns=["model", "device", "other_work_percent"]).to_numpy(dtype=np.float64)
        assert (np.isfinite(numbers) & (numbers > 0)).all()


def test_what_others_did_meanwhile_stands_beside_the_costs(measured) -> None:
    for table in measured[0].values():
        assert table.other_work_percent.between(0, 100).all()


def test_latencies_are_of_one_image_and_left_out_without_requests(measured) -> None:
    costs = measured[0]["costs"]
    assert (costs.latency_p50_seconds <= costs.latency_p99_seconds).all()
    assert list(measured[0]["no_requests"].columns) == [name for name in costs.columns if name not in LATENCIES]


def test_energy_is_there_only_where_a_counter_tells_it(measured) -> None:
    tables, told = measured
    if open_energy_counter(use_gpu=False) is None:
        assert "energy_joules" not in tables["costs"].columns
        assert "costs.csv has no energy_joules" in told


@pytest.mark.parametrize(
    ("joules", "expected"), [([9.0, 3.0], [3.0, 1.0]), ([9.0, 0.0], None), ([9.0, math.nan], None)]
)
def test_energy_is_the_mean_of_the_repeats_and_left_out_unless_every_model_has_some(joules, expected) -> None:
    measured = [_Measured(seconds=[1.0] * 3, joules=each) for each in joules]
    assert _optional_columns(measured, None, n_repeats=3).get("energy_joules") == expected


linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system tells no process's peak memory")


@linux
def test_the_peak_memory_of_a_network_of_known_size_is_its_weights_and_activations(cached, measured) -> None:
    library, table = cached[0], measured[0]["costs"].set_index("model")
    between_layers = 4 * SETTINGS["batch_size"] * library.wide_units
    known = WEIGHTS_BYTES + between_layers
    assert table.parameter_bytes["trial-00002"] == pytest.approx(WEIGHTS_BYTES, rel=1e-3)
    # TensorFlow's graph and its buffers take a few megabytes more, of every model.
    assert known < table.peak_memory_bytes["trial-00002"] < 1.5 * known + 16e6
    assert table.peak_memory_bytes["trial-00001"] < 40e6


@linux
def test_peak_memory_depends_neither_on_the_models_before_nor_much_on_the_try(cached) -> None:
    exported = [cached[0].folder / "exported" / model for model in ("trial-00002", "trial-00001")]
    images = np.zeros((100, 8, 8, 1), np.uint8)
    order = measure_peak_memory([*exported, *exported[::-1]], images, threads=1)
    assert order is not None
    wide, small, small_again, wide_again = order
    assert small == pytest.approx(small_again, abs=4e6)
    assert wide == pytest.approx(wide_again, abs=4e6)
    (few,) = measure_peak_memory(exported[:1], images[:1], threads=1) or [0]
    assert wide - few == pytest.approx(99 * 4 * cached[0].wide_units, abs=6e6)


@linux
@pytest.mark.parametrize(("shape", "what"), [((2, 8, 8, 1), "SavedModel"), ((2, 9, 9, 1), "TensorSpec")])
def test_a_model_that_cannot_be_measured_is_named_with_the_reason(cached, tmp_path, shape, what) -> None:
    bad = tmp_path if what == "SavedModel" else cached[0].folder / "exported/trial-00000"
    with pytest.raises(LibraryError, match="memory cannot be measured") as caught:
        measure_peak_memory([bad], np.zeros(shape, np.uint8), threads=1)
    assert str(bad) in str(caught.value) and what in str(caught.value)


no_gpu = pytest.mark.skipif(gpu_memory_bytes() is not None, reason="this machine has a GPU")


@no_gpu
def test_the_memory_of_a_gpu_that_is_not_there_is_not_made_up(cached) -> None:
    exported = [cached[0].folder / "exported/trial-00000"]
    assert measure_peak_memory(exported, np.zeros((2, 8, 8, 1), np.uint8), threads=1, use_gpu=True) is None


@no_gpu
def test_costs_on_a_gpu_that_is_not_there_are_refused(cached) -> None:
    library, _ = cached
    told = library.measure({"gpu": {**SETTINGS, "device": "gpu"}}, expected_status=1)
    assert "costs would be measured on another device than asked for" in told
    assert not (library.folder / "gpu.csv").exists()
