"""Costs of real exported functions, in every unit that this machine tells."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from ensembleflow.errors import LibraryError
from ensembleflow.library.costs import _Measured, _optional_columns
from ensembleflow.library.engine_speed import engines_by_speed
from ensembleflow.library.peak_memory import measure_peak_memory
from ensembleflow.models import gpu_memory_bytes, open_energy_counter
from ensembleflow.models.engines import FLOAT32_ENGINES, installed_engines

SETTINGS = {"n_images": 250, "batch_size": 100, "repeats": 4}
ALWAYS = [
    *(
        "model",
        "device",
        "engine",
        "threads",
        "cost_seconds",
        "cost_seconds_q25",
        "cost_seconds_q75",
        "cost_seconds_min",
    ),
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
    assert set(table.device) == {"cpu"} and set(table.engine) == {"tensorflow"}
    for name, value in SETTINGS.items():
        assert set(table[name]) == {value}
    np.testing.assert_allclose(table.images_per_second, 250 / table.cost_seconds)


def test_every_number_can_be_a_budgets_unit(measured) -> None:
    for table in measured[0].values():
        numbers = table.drop(columns=["model", "device", "engine", "other_work_percent"]).to_numpy(dtype=np.float64)
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
    order = measure_peak_memory([*exported, *exported[::-1]], [1] * 4, images, threads=1)
    assert order is not None
    wide, small, small_again, wide_again = order
    assert small == pytest.approx(small_again, abs=4e6)
    assert wide == pytest.approx(wide_again, abs=4e6)
    (few,) = measure_peak_memory(exported[:1], [1], images[:1], threads=1) or [0]
    assert wide - few == pytest.approx(99 * 4 * cached[0].wide_units, abs=6e6)


@linux
@pytest.mark.parametrize(("shape", "what"), [((2, 8, 8, 1), "SavedModel"), ((2, 9, 9, 1), "TensorSpec")])
def test_a_model_that_cannot_be_measured_is_named_with_the_reason(cached, tmp_path, shape, what) -> None:
    bad = tmp_path if what == "SavedModel" else cached[0].folder / "exported/trial-00000"
    with pytest.raises(LibraryError, match="memory cannot be measured") as caught:
        measure_peak_memory([bad], [1], np.zeros(shape, np.uint8), threads=1)
    assert str(bad) in str(caught.value) and what in str(caught.value)


no_gpu = pytest.mark.skipif(gpu_memory_bytes() is not None, reason="this machine has a GPU")


@no_gpu
def test_the_memory_of_a_gpu_that_is_not_there_is_not_made_up(cached) -> None:
    exported = [cached[0].folder / "exported/trial-00000"]
    assert measure_peak_memory(exported, [1], np.zeros((2, 8, 8, 1), np.uint8), threads=1, use_gpu=True) is None


@no_gpu
def test_costs_on_a_gpu_that_is_not_there_are_refused(cached) -> None:
    library, _ = cached
    told = library.measure({"gpu": {**SETTINGS, "device": "gpu"}}, expected_status=1)
    assert "costs would be measured on another device than asked for" in told
    assert not (library.folder / "gpu.csv").exists()


@pytest.fixture(scope="module")
def by_engine(cached) -> tuple[dict[str, pd.DataFrame], str]:
    library, _ = cached
    engines = ("openvino", "onnxruntime", "fastest")
    told = library.measure({engine: {**SETTINGS, "latency_requests": 5, "engine": engine} for engine in engines})
    return {engine: pd.read_csv(library.folder / f"{engine}.csv") for engine in engines}, told


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_costs_are_those_of_the_engine_that_is_asked_for(cached, measured, by_engine, engine) -> None:
    table, with_tensorflow = by_engine[0][engine], measured[0]["costs"]
    assert set(table.engine) == {engine}
    assert list(table.columns) == list(with_tensorflow.columns)
    assert list(table.parameter_bytes) == list(with_tensorflow.parameter_bytes)
    numbers = table.drop(columns=["model", "device", "engine", "other_work_percent"]).to_numpy(dtype=np.float64)
    assert (np.isfinite(numbers) & (numbers > 0)).all()
    # The weights of the wide network, and what is between its layers, are there in any engine.
    known = WEIGHTS_BYTES + 4 * SETTINGS["batch_size"] * cached[0].wide_units
    assert known < table.set_index("model").peak_memory_bytes["trial-00002"] < 4 * known


def test_the_fastest_of_the_installed_engines_is_found_by_trying(by_engine) -> None:
    tables, told = by_engine
    assert "engines tried on 3 models: tensorflow" in told
    (chosen,) = set(tables["fastest"].engine)
    assert chosen in installed_engines()
    speeds = re.search(r"engines tried on 3 models: (.*)", told)
    assert speeds is not None
    tried = {name: float(speed.replace(",", "")) for name, speed in re.findall(r"(\w+) ([\d,]+) images/s", speeds[1])}
    assert set(tried) == set(FLOAT32_ENGINES) and chosen == max(tried, key=lambda name: tried[name])


def test_an_engine_that_answers_otherwise_than_the_cache_is_no_choice(cached, caplog) -> None:
    folders = [cached[0].folder / "exported" / model for model in cached[0].models]
    images = np.zeros((4, 8, 8, 1), np.uint8)
    wrong = [np.full((4, 10), 0.5)] * 3
    sizes = {"batch_size": 4, "threads": 1, "tolerance": 1e-4}
    assert engines_by_speed(folders, [1, 2, 3], images, wrong, **sizes) == ["tensorflow"]
    assert caplog.text.count("is left out: an engine answers otherwise than the exported function") == 3


def test_costs_with_an_engine_that_answers_otherwise_than_the_cache_are_refused(cached, tmp_path) -> None:
    library, _ = cached
    shutil.copy(library.folder / "predictions.h5", tmp_path)
    with h5py.File(library.folder / "predictions.h5", "r+") as file:
        file["valid/probabilities"][1, 0] = 0.1
    try:
        told = library.measure({"otherwise": {**SETTINGS, "engine": "openvino"}}, expected_status=1)
    finally:
        shutil.copy(tmp_path / "predictions.h5", library.folder)
    assert "an engine answers otherwise than the exported function" in told and library.models[1] in told
    assert "set library.engine to another one, such as tensorflow" in told
    assert not (library.folder / "otherwise.csv").exists()
