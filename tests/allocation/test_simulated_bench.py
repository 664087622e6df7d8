"""The simulated bench against sums that can be done by hand, bounds that hold, and its own calibration."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.allocation import (
    Calibration,
    ProfileTable,
    Score,
    SimulatedBench,
    calibrate,
    compare_benches,
    read_allocation,
    refine_allocation,
    search_table,
    worst_fit,
)
from ensembleflow.allocation.allocation_file import allocation_result
from ensembleflow.config import AllocationConfig
from ensembleflow.errors import ArtefactError
from ensembleflow.inference import Device, Limits, Placement, allocation_text
from support.allocation_problems import even_profiles, random_problem

ONE = Device("cpu0", (0,), 10_000)
TWO = (ONE, Device("cpu1", (1,), 10_000))


def seconds(
    allocation: tuple[Placement, ...], speeds: dict[str, float], devices=(ONE,), n_images: int = 1024, **calibration
) -> float:
    """How long a request takes; every member has so many images/s in batches of 64."""
    table = ProfileTable(even_profiles(speeds, sizes=(64,)))
    bench = SimulatedBench(devices, table, Calibration(**calibration), bench_images=n_images)
    (speed,) = bench(allocation).images_per_second
    return n_images / speed


def placed(*devices: str) -> tuple[Placement, ...]:
    return tuple(Placement(model, device, 64) for model, device in zip("abcdef", devices, strict=False))


def test_a_member_alone_is_as_fast_as_its_profile():
    assert seconds(placed("cpu0"), {"a": 512.0}) == pytest.approx(2.0)


@given(st.floats(10, 1000), st.floats(10, 1000), st.floats(10, 1000))
def test_members_of_one_device_take_the_sum_of_their_times(a, b, c):
    expected = 1024 / a + 1024 / b + 1024 / c
    assert seconds(placed("cpu0", "cpu0", "cpu0"), {"a": a, "b": b, "c": c}) == pytest.approx(expected)


@settings(deadline=None)
@given(st.floats(10, 1000), st.floats(10, 1000))
def test_members_of_different_devices_work_side_by_side(a, b):
    assert seconds(placed("cpu0", "cpu1"), {"a": a, "b": b}, TWO) == pytest.approx(1024 / min(a, b))


def test_processes_and_devices_slow_each_other_down_as_calibrated():
    speeds = {"a": 512.0, "b": 512.0}
    together, apart = placed("cpu0", "cpu0"), placed("cpu0", "cpu1")
    assert seconds(together, speeds, device_contention=0.5) == pytest.approx(4.0 * 2**0.5)
    assert seconds(together, speeds, device_contention=-1.0) == pytest.approx(2.0)
    assert seconds(apart, speeds, TWO, machine_contention=0.5) == pytest.approx(2.0 * 2**0.5)
    assert seconds(apart, speeds, TWO, device_contention=0.5) == pytest.approx(2.0)
    assert seconds(together, speeds, machine_contention=0.5) == pytest.approx(4.0)


def test_each_batch_of_the_dispatcher_costs_the_overhead_once():
    # Four batches of 256 images, one after the other, for the process works at one at a time.
    assert Limits().max_batch_images == 256
    assert seconds(placed("cpu0"), {"a": 512.0}, batch_overhead_seconds=0.25) == pytest.approx(2.0 + 4 * 0.25)


def test_replicas_share_a_members_images():
    both = (Placement("a", "cpu0", 64), Placement("a", "cpu1", 64))
    assert seconds(both, {"a": 512.0}, TWO) == pytest.approx(1.0)
    # One call cannot be shared.
    assert seconds(both, {"a": 512.0}, TWO, n_images=64) == pytest.approx(64 / 512)


def test_a_simulated_device_is_so_many_times_as_fast_as_its_kind():
    fast = replace(ONE, speed=4.0)
    assert seconds(placed("cpu0"), {"a": 512.0}, (fast,)) == pytest.approx(0.5)


def test_an_allocation_that_does_not_fit_fails_with_the_devices_name():
    table = ProfileTable(even_profiles({"a": 10.0, "b": 10.0}, memory_mb={"a": 600.0, "b": 600.0}))
    bench = SimulatedBench((Device("small", (0,), 1000),), table)
    found = bench((Placement("a", "small", 8), Placement("b", "small", 8)))
    assert found.value == 0 and found.failure == "out of memory on small"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_no_simulation_beats_its_busiest_device_and_the_same_one_is_always_the_same(seed, n_models, n_devices, pick):
    problem = random_problem(seed, n_models, n_devices)
    for allocation in [each for each, _ in zip(problem.allocations(), range(pick), strict=False)][-1:]:
        by_name = {device.name: device for device in problem.devices}
        busy = dict.fromkeys(by_name, 0.0)
        for each in allocation:
            # The 400 images come in batches of 256 and 144.
            for n_images in (256, 144):
                whole, rest = divmod(n_images, each.batch_size)
                for size in [each.batch_size] * whole + [rest] * (rest > 0):
                    busy[each.device] += problem.table.call_seconds(each, by_name[each.device], size)
        lossless = replace(problem.bench, calibration=Calibration())
        duration = 400 / lossless(allocation).value
        assert max(busy.values()) * (1 - 1e-9) <= duration <= sum(busy.values()) * (1 + 1e-9)
        assert problem.bench(allocation) == problem.bench(allocation)


def test_jitter_spreads_latencies_and_the_percentiles_show_it():
    table = ProfileTable(even_profiles({"a": 100.0}))
    steady = SimulatedBench((ONE,), table, objective="latency_p99", request_images=8, latency_requests=400)
    allocation = (Placement("a", "cpu0", 8),)
    (p50,), (p99,) = steady(allocation).latency_p50_ms, steady(allocation).latency_p99_ms
    assert p50 == pytest.approx(80.0) and p99 == pytest.approx(80.0)
    (p50,), (p99,) = (
        getattr(replace(steady, calibration=Calibration(jitter=0.2))(allocation), f"latency_p{q}_ms") for q in (50, 99)
    )
    assert p50 == pytest.approx(80.0)
    assert p99 / p50 == pytest.approx(np.exp(0.2 * 2.326))
    # Throughput is that of many calls: their spread is no loss.
    assert replace(steady, calibration=Calibration(jitter=2.0))(allocation).images_per_second == pytest.approx((100.0,))


@pytest.mark.parametrize("seed", range(4))
def test_a_calibration_finds_again_what_benches_were_made_with(seed):
    random = np.random.default_rng(seed)
    problem = random_problem(seed, 3, 2)
    truth = Calibration(
        float(random.uniform(0.0005, 0.004)), float(random.uniform(-0.3, 0.5)), float(random.uniform(0, 0.6)), 0.1
    )
    real = replace(problem.bench, calibration=truth, latency_requests=50)
    allocations = list(problem.allocations())
    chosen = [allocations[place] for place in random.choice(len(allocations), 12, replace=False)]
    measured = [(allocation, real(allocation)) for allocation in chosen]
    uncalibrated = replace(real, calibration=Calibration())
    found = calibrate(uncalibrated, measured[:6])
    assert found.n_benches == 6
    errors = compare_benches(replace(uncalibrated, calibration=found), measured[6:]).relative_error.abs()
    assert errors.median() < 0.03
    assert errors.max() < 0.15
    assert found.jitter == pytest.approx(0.1)


def test_a_comparison_has_relative_errors_and_leaves_failures_out():
    table = ProfileTable(even_profiles({"a": 512.0}, sizes=(8, 64)))
    bench = SimulatedBench((ONE,), table, bench_images=1024)
    measured = [
        ((Placement("a", "cpu0", 64),), Score(images_per_second=(256.0, 256.0, 1024.0))),
        ((Placement("a", "cpu0", 8),), Score(images_per_second=(640.0,))),
        ((Placement("a", "cpu0", 8),), Score(failure="dead")),
    ]
    found = compare_benches(bench, measured)
    assert found.relative_error.tolist() == pytest.approx([1.0, -0.2])
    assert calibrate(bench, measured[2:]) == Calibration()


def test_what_is_simulated_says_so_in_its_artefacts_and_can_be_read_again(tmp_path: Path):
    problem = random_problem(3, 3, 2)
    config = AllocationConfig(bench="simulated", max_benches=6, bench_images=400)
    start = worst_fit(problem.models, problem.devices, problem.table)
    found = refine_allocation(start, problem.devices, problem.table, problem.bench, config)
    table = search_table(found, problem.bench)
    assert set(table.bench_kind) == {"simulated"} and len(table) == len(found.benches)
    result = allocation_result(found, problem.devices, problem.table, problem.bench, config, budget="4x")
    assert result["bench"]["kind"] == "simulated"
    assert result["bench"]["calibration"]["batch_overhead_seconds"] > 0
    assert table.allocation.tolist() == [allocation_text(each.state) for each in found.benches]
    assert table.objective_value.tolist() == [each.score.value for each in found.benches]
    path = tmp_path / "devices-2.json"
    path.write_text(json.dumps(result, allow_nan=False))
    assert read_allocation(path, problem.models) == found.best.state
    with pytest.raises(ArtefactError, match="of another ensemble"):
        read_allocation(path, problem.models[1:])
    for damage in ({"batch_size": 0}, {"engine": "unknown"}, {"device": None, "model": []}):
        entries = [{**result["members"][0], **damage}, *result["members"][1:]]
        path.write_text(json.dumps({"members": entries}))
        with pytest.raises(ArtefactError):
            read_allocation(path, problem.models)
    path.write_text(json.dumps({"members": [1]}))
    with pytest.raises(ArtefactError, match="damaged"):
        read_allocation(path)
