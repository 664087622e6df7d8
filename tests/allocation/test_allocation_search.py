"""The whole search against brute force, on instances small enough to try every allocation."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.allocation import (
    Calibration,
    Profile,
    ProfileTable,
    SimulatedBench,
    carry_over,
    refine_allocation,
    worst_fit,
)
from ensembleflow.config import AllocationConfig
from ensembleflow.errors import AllocationError
from ensembleflow.inference import Device, Placement
from support.allocation_problems import BATCH_SIZES, even_profiles, random_problem


def config(max_benches: int, objective: str = "throughput", max_replicas: int = 1) -> AllocationConfig:
    return AllocationConfig(
        max_benches=max_benches,
        objective=objective,  # type: ignore[arg-type]
        bench_images=400,
        request_images=8,
        max_replicas=max_replicas,
        batch_sizes=list(BATCH_SIZES),
    )


@pytest.mark.parametrize("objective", ["throughput", "latency_p50"])
@pytest.mark.parametrize("seed", range(12))
def test_a_tenth_of_the_benches_reaches_nearly_the_true_optimum(seed, objective):
    problem = random_problem(seed, n_models=3, n_devices=2, objective=objective)
    every = [problem.bench(allocation).value for allocation in problem.allocations()]
    start = worst_fit(problem.models, problem.devices, problem.table)
    limit = (len(every) - 1) // 10
    found = refine_allocation(start, problem.devices, problem.table, problem.bench, config(limit, objective))
    assert len(found.benches) < 0.1 * len(every)
    assert found.best.score.value >= 0.95 * max(every)
    assert found.best.score.value >= found.benches[0].score.value


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 3), st.integers(1, 12), st.integers(1, 2))
def test_never_worse_than_the_start_never_over_the_limit_and_never_out_of_memory(
    seed, n_models, n_devices, max_benches, max_replicas
):
    problem = random_problem(seed, n_models, n_devices, engines=("tensorflow", "onnxruntime"))
    try:
        start = worst_fit(problem.models, problem.devices, problem.table)
    except AllocationError:
        return
    asked = config(max_benches, max_replicas=max_replicas)
    found = refine_allocation(start, problem.devices, problem.table, problem.bench, asked)
    assert found.benches[0].state == start
    assert found.best.score.value >= found.benches[0].score.value
    assert len(found.benches) == len({each.state for each in found.benches}) <= max_benches
    assert not any(each.score.failure for each in found.benches)
    again = refine_allocation(start, problem.devices, problem.table, problem.bench, asked)
    assert again == found


def test_another_engine_and_a_replica_are_found_where_they_are_faster():
    devices = [Device(f"cpu{i}", (i,), 1000) for i in range(2)]
    profiles = even_profiles({"a": 100.0}, sizes=(8,)) + even_profiles({"a": 400.0}, sizes=(8,), engines=("openvino",))
    table = ProfileTable(profiles)
    bench = SimulatedBench(devices, table, bench_images=400)
    start = worst_fit(["a"], devices, table)
    assert start == (Placement("a", "cpu0", 8),)
    one = refine_allocation(start, devices, table, bench, config(20))
    assert {(each.engine, each.batch_size) for each in one.best.state} == {("openvino", 8)}
    two = refine_allocation(start, devices, table, bench, config(20, max_replicas=2))
    assert two.best.state == (Placement("a", "cpu0", 8, "openvino"), Placement("a", "cpu1", 8, "openvino"))
    assert two.best.score.value == pytest.approx(2 * one.best.score.value, rel=0.05)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 4), st.integers(0, 3))
def test_after_a_device_is_lost_the_others_placements_stay_and_orphans_find_room(seed, n_models, n_devices, lost):
    problem = random_problem(seed, n_models, n_devices)
    try:
        old = worst_fit(problem.models, problem.devices, problem.table)
    except AllocationError:
        return
    left = [device for place, device in enumerate(problem.devices) if place != lost % n_devices]
    names = {device.name: device for device in left}
    try:
        new = carry_over(old, problem.models, left, problem.table)
    except AllocationError:
        with pytest.raises(AllocationError):
            worst_fit(problem.models, left, problem.table)
        return
    assert [each.model for each in new] == list(problem.models)
    used = problem.table.used_mb(new, names)
    assert all(used[name] <= device.memory_mb for name, device in names.items())
    stayed = {each for each in old if each.device in names}
    # All of them, unless the orphans then had no room and everything was placed anew.
    if not stayed <= set(new):
        orphans = [each.model for each in old if each.device not in names]
        with pytest.raises(AllocationError):
            worst_fit(orphans, left, problem.table, stayed)
        assert new == worst_fit(problem.models, left, problem.table)
    found = refine_allocation(new, left, problem.table, problem.bench, config(8))
    assert found.best.score.value >= found.benches[0].score.value


def test_an_added_device_is_used():
    table = ProfileTable(even_profiles({"a": 100.0, "b": 100.0}, sizes=(8,)))
    old = (Placement("a", "cpu0", 8), Placement("b", "cpu0", 8))
    devices = [Device(f"cpu{i}", (i,), 1000) for i in range(2)]
    bench = SimulatedBench(devices, table, bench_images=400)
    start = carry_over(old, ["a", "b"], devices, table)
    found = refine_allocation(start, devices, table, bench, config(8))
    assert found.benches[0].state == old
    assert {each.device for each in found.best.state} == {"cpu0", "cpu1"}


def test_a_member_with_a_replica_left_is_not_placed_again_and_a_shrunken_device_keeps_the_largest():
    table = ProfileTable(even_profiles({"a": 10.0, "b": 10.0}, sizes=(8,), memory_mb={"a": 100.0, "b": 200.0}))
    old = (Placement("a", "cpu0", 8), Placement("a", "cpu1", 8), Placement("b", "cpu1", 8))
    assert carry_over(old, ["a", "b"], [Device("cpu1", (1,), 300)], table) == old[1:]
    smaller = [Device("cpu1", (1,), 250), Device("cpu2", (2,), 150)]
    assert carry_over(old[1:], ["a", "b"], smaller, table) == (Placement("a", "cpu2", 8), old[2])


def test_a_setting_that_no_longer_runs_is_placed_anew():
    table = ProfileTable(
        [*even_profiles({"a": 10.0}, sizes=(8,)), Profile("a", "cpu-1", "tensorflow", 32, 0.0, 0.0, "out of memory")]
    )
    old = (Placement("a", "cpu0", 32),)
    assert carry_over(old, ["a"], [Device("cpu0", (0,), 300)], table) == (Placement("a", "cpu0", 8),)


def test_where_nothing_runs_every_reason_is_told():
    devices = [Device("cpu0", (0,), 1000)]
    table = ProfileTable(even_profiles({"a": 100.0}, sizes=(8,)))
    # The device that the bench simulates has less memory than the one that the search knows.
    bench = SimulatedBench([Device("cpu0", (0,), 10)], table, Calibration())
    with pytest.raises(AllocationError) as caught:
        refine_allocation(worst_fit(["a"], devices, table), devices, table, bench, config(4))
    assert "no allocation could run" in str(caught.value)
    assert "out of memory on cpu0" in str(caught.value)
