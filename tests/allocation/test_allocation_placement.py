"""Devices' cores, the first allocation, and what is near one."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.allocation import Neighbourhood, Profile, ProfileTable, worst_fit
from ensembleflow.allocation.predicted import predicted_seconds
from ensembleflow.config import DeviceConfig
from ensembleflow.errors import AllocationError
from ensembleflow.inference import Device, Placement, allocation_text, assign_cores
from support.allocation_problems import even_profiles, name, random_problem

sizes_mb = st.lists(st.floats(1, 1000), min_size=1, max_size=8)


def sized_members(memory_mb: list[float], kind: str = "cpu-1") -> tuple[list[str], ProfileTable]:
    models = [name(place) for place in range(len(memory_mb))]
    profiles = [Profile(model, kind, "tensorflow", 8, 1.0, size) for model, size in zip(models, memory_mb, strict=True)]
    return models, ProfileTable(profiles)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=5), st.integers(1, 16))
def test_devices_get_distinct_cores_in_order_until_the_machine_runs_out(cores, n_available):
    available = list(range(100, 100 + n_available))
    configs = [DeviceConfig(name=f"cpu{i}", cores=n) for i, n in enumerate(cores)]
    devices = assign_cores(configs, available)
    for device, config in zip(devices, configs, strict=True):
        assert len(set(device.core_ids)) == len(device.core_ids) == min(config.cores, n_available)
        assert set(device.core_ids) <= set(available)
    if sum(cores) <= n_available:
        assert [core for device in devices for core in device.core_ids] == available[: sum(cores)]


def test_too_few_cores_are_shared_with_a_warning(caplog):
    configs = [DeviceConfig(name="a", cores=2), DeviceConfig(name="b", cores=2)]
    with caplog.at_level(logging.WARNING):
        devices = assign_cores(configs, [4, 5, 6])
    assert [device.core_ids for device in devices] == [(4, 5), (6, 4)]
    assert "ask for 4 cores but this process may use 3" in caplog.text


def test_enough_cores_give_no_warning(caplog):
    assign_cores([DeviceConfig(name="a", cores=1)], [0])
    assert not caplog.records


@given(sizes_mb, sizes_mb)
def test_worst_fit_respects_memory_and_fails_only_when_the_named_member_does_not_fit(members_mb, devices_mb):
    models, table = sized_members(members_mb)
    devices = [Device(f"cpu{i}", (i,), int(size) + 1) for i, size in enumerate(devices_mb)]
    free = {device.name: float(device.memory_mb) for device in devices}
    memory_mb = dict(zip(models, members_mb, strict=True))
    try:
        placed = worst_fit(models, devices, table)
    except AllocationError as error:
        largest_first = sorted(models, key=lambda model: -memory_mb[model])
        named = next(model for model in largest_first if model in error.what)
        # Those before it fill the devices as the error says; it is larger than what any has left.
        for model in largest_first[: largest_first.index(named)]:
            device = max(free, key=lambda name: free[name])
            free[device] -= memory_mb[model]
        assert memory_mb[named] > max(free.values())
        return
    assert [each.model for each in placed] == models
    for each in placed:
        free[each.device] -= memory_mb[each.model]
    assert min(free.values()) >= -1e-6


def test_worst_fit_takes_the_device_with_most_room_and_the_first_of_equals():
    models, table = sized_members([40, 60, 50])
    devices = [Device("a", (0,), 100), Device("b", (1,), 100), Device("c", (2,), 150)]
    assert [each.device for each in worst_fit(models, devices, table)] == ["b", "c", "a"]


def test_gpus_come_first_and_cores_take_what_they_have_no_room_for_or_cannot_run():
    gpu = Device("gpu0", (0,), 250, gpu="GPU-1", gpu_name="V100")
    cpu = Device("cpu0", (1,), 10_000)
    profiles = [
        *even_profiles(dict.fromkeys(("a", "b", "c"), 9.0), ("V100", "cpu-1")),
        *even_profiles({"d": 9.0}, ("cpu-1",)),
        Profile("d", "V100", "tensorflow", 8, 0.0, 0.0, "an operation has no kernel"),
    ]
    placed = worst_fit(["a", "b", "c", "d"], [cpu, gpu], ProfileTable(profiles))
    assert [each.device for each in placed] == ["gpu0", "gpu0", "cpu0", "cpu0"]


def test_members_start_in_the_largest_batches_that_run_with_tensorflow_if_it_does():
    profiles = [
        *even_profiles({"a": 9.0}, sizes=(8, 32), engines=("openvino", "tensorflow")),
        *even_profiles({"b": 9.0}, sizes=(8, 32, 64), engines=("openvino",)),
        Profile("a", "cpu-1", "tensorflow", 64, 0.0, 0.0, "out of memory"),
    ]
    placed = worst_fit(["a", "b"], [Device("cpu0", (0,), 1000)], ProfileTable(profiles))
    assert placed == (Placement("a", "cpu0", 32), Placement("b", "cpu0", 64, "openvino"))


def test_smaller_batches_are_tried_before_giving_up():
    profiles = [Profile(model, "cpu-1", "tensorflow", size, 9.0, 10.0 * size) for model in "ab" for size in (8, 32)]
    table = ProfileTable(profiles)
    assert [each.batch_size for each in worst_fit(["a", "b"], [Device("cpu0", (0,), 640)], table)] == [32, 32]
    assert [each.batch_size for each in worst_fit(["a", "b"], [Device("cpu0", (0,), 600)], table)] == [8, 8]
    with pytest.raises(AllocationError, match="b fits on no device"):
        worst_fit(["a", "b"], [Device("cpu0", (0,), 159)], table)


def test_a_member_that_fits_nowhere_is_named_with_what_is_free():
    models, table = sized_members([1, 80, 120])
    with pytest.raises(AllocationError) as caught:
        worst_fit(models[1:], [Device("cpu0", (0,), 150)], table)
    message = str(caught.value)
    assert "trial-00001" in message and "80 MB" in message
    assert "cpu0: 30 of 150 MB free" in message
    assert "hint" in message


def test_a_member_that_runs_nowhere_is_named_with_every_reason():
    failed = Profile("a", "cpu-1", "openvino", 8, 0.0, 0.0, "unknown operation")
    with pytest.raises(AllocationError) as caught:
        worst_fit(["a"], [Device("cpu0", (0,), 150), Device("cpu1", (0, 1), 150)], ProfileTable([failed]))
    message = str(caught.value)
    assert "a runs on no device" in message
    assert "cpu-1: openvino, batch 8: unknown operation" in message
    assert "cpu-2: no profile on cpu-2" in message


@st.composite
def near_problems(draw: st.DrawFn):
    problem = random_problem(
        draw(st.integers(0, 10**6)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        engines=("tensorflow", "openvino"),
    )
    fitting = [each for each, _ in zip(problem.allocations(), range(200), strict=False)]
    if not fitting:
        return None
    return problem, draw(st.sampled_from(fitting)), draw(st.integers(1, 2))


def groups(allocation) -> dict[str, set[Placement]]:
    found: dict[str, set[Placement]] = {}
    for each in allocation:
        found.setdefault(each.model, set()).add(each)
    return found


@settings(max_examples=60, deadline=None)
@given(near_problems())
def test_neighbours_are_the_single_updates_that_fit_and_ran_in_a_profile(case):
    if case is None:
        return
    problem, start, max_replicas = case
    by_name = {device.name: device for device in problem.devices}
    near = Neighbourhood(problem.devices, problem.table, 400, max_replicas)
    found = near.neighbours(start)
    assert len({changed for _, changed in found}) == len(found) == len({move for move, _ in found})
    expected = set()
    for old in start:
        for device in problem.devices:
            for run in problem.table.runs(old.model, device.kind):
                new = Placement(old.model, device.name, run.batch_size, run.engine)
                differences = sum(getattr(old, key) != getattr(new, key) for key in ("device", "batch_size", "engine"))
                if differences != 1:
                    continue
                for kept in ([], [old]):
                    others = [each for each in start if each != old]
                    if kept and (max_replicas == 1 or new.device == old.device):
                        continue
                    used = problem.table.used_mb([*others, *kept, new], by_name)
                    if used[new.device] <= by_name[new.device].memory_mb:
                        expected.add(frozenset([*others, *kept, new]))
    reached = {frozenset(changed) for _, changed in found}
    # Where a member's setting does not run on another kind of device, it goes there with another one.
    assert expected <= reached
    for changed in reached - expected:
        (moved,) = (each for each in changed if each not in start)
        before = next(each for each in start if each.model == moved.model)
        assert problem.table.find(replace(before, device=moved.device), by_name[moved.device]) is None


@settings(max_examples=40, deadline=None)
@given(near_problems())
def test_all_that_the_search_may_bench_fits_keeps_the_members_order_and_is_ordered_by_prediction(case):
    if case is None:
        return
    problem, start, max_replicas = case
    by_name = {device.name: device for device in problem.devices}
    near = Neighbourhood(problem.devices, problem.table, 400, max_replicas)
    now = predicted_seconds(start, by_name, problem.table, 400)
    for moves in (near.neighbours(start), near.second_chances(start)):
        keys = [predicted_seconds(changed, by_name, problem.table, 400) for _, changed in moves]
        changing = [key for key in keys if key != now]
        assert keys[: len(changing)] == changing == sorted(changing)
        for _, changed in moves:
            assert list(groups(changed)) == list(problem.models)
            used = problem.table.used_mb(changed, by_name)
            assert all(used[device.name] <= device.memory_mb for device in problem.devices)
    best = near.best_predicted(start)
    reached = predicted_seconds(best, by_name, problem.table, 400)
    assert reached <= now
    for _, changed in near.neighbours(best):  # from where it stopped, no single update is better
        assert predicted_seconds(changed, by_name, problem.table, 400) >= reached


def test_a_replica_comes_and_goes_but_never_the_last():
    devices = [Device(f"cpu{i}", (i,), 1000) for i in range(3)]
    near = Neighbourhood(devices, ProfileTable(even_profiles({"a": 100.0}, sizes=(8,))), 400, max_replicas=2)
    alone = (Placement("a", "cpu1", 8),)
    moves = dict(near.neighbours(alone))
    # Replicas stand in the devices' order, and come first, for they are predicted to halve the time.
    assert moves["a: replica on cpu0"] == (Placement("a", "cpu0", 8), Placement("a", "cpu1", 8))
    assert list(moves)[:2] == ["a: replica on cpu0", "a: replica on cpu2"]
    assert not any("no replica" in move for move in moves)
    back = dict(near.neighbours(moves["a: replica on cpu0"]))
    assert back["a: no replica on cpu0"] == alone
    assert not any(move.startswith("a: replica on") for move in back)


def test_full_devices_exchange_members():
    devices = [Device(f"cpu{i}", (i,), 100 + i) for i in range(2)]
    table = ProfileTable(even_profiles({"a": 10.0, "b": 10.0}, sizes=(8,)))
    start = (Placement("a", "cpu0", 8), Placement("b", "cpu1", 8))
    near = Neighbourhood(devices, table, 400)
    assert near.neighbours(start) == []
    assert ("a <-> b: cpu0 <-> cpu1", (Placement("a", "cpu1", 8), Placement("b", "cpu0", 8))) in near.second_chances(
        start
    )


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3), st.integers(1, 700))
def test_without_replicas_the_busiest_device_is_predicted_to_be_the_time(seed, n_models, n_devices, n_images):
    problem = random_problem(seed, n_models, n_devices)
    by_name = {device.name: device for device in problem.devices}
    for allocation, _ in zip(problem.allocations(), range(3), strict=False):
        busy = dict.fromkeys(by_name, 0.0)
        for each in allocation:
            device = by_name[each.device]
            whole, rest = divmod(n_images, each.batch_size)
            sizes = [each.batch_size] * whole + [rest] * (rest > 0)
            busy[each.device] += sum(problem.table.call_seconds(each, device, size) for size in sizes)
        seconds, _ = predicted_seconds(allocation, by_name, problem.table, n_images)
        assert seconds == pytest.approx(max(busy.values()))


def test_an_allocation_is_one_line_of_text():
    allocation = (Placement("trial-00003", "cpu0", 32), Placement("trial-00007", "cpu1", 128, "openvino"))
    assert allocation_text(allocation) == "trial-00003@cpu0/32 trial-00007@cpu1/128:openvino"


def test_only_equal_devices_that_share_no_core_may_change_places():
    table = ProfileTable(even_profiles({"a": 100.0, "b": 50.0}, kinds=("cpu-1", "cpu-2"), sizes=(8, 32)))
    here, there = (
        (Placement("a", one, 8), Placement("a", other, 8), Placement("b", other, 32))
        for one, other in (("d0", "d1"), ("d1", "d0"))
    )

    def alike(**differs: object) -> bool:
        devices = [Device("d0", (0,), 1000), replace(Device("d1", (1,), 1000), **differs), Device("d2", (2,), 1000)]
        near = Neighbourhood(devices, table, 400)
        return near.signature(here) == near.signature(there)

    assert alike()
    assert not any(alike(**differs) for differs in ({"memory_mb": 999}, {"speed": 2.0}, {"core_ids": (1, 3)}))
    # d1 and d2 are the same core: whatever else is on d2 slows d1 down, and not d0.
    assert not alike(core_ids=(2,))


def test_another_batch_size_or_engine_on_an_equal_device_is_another_allocation():
    devices = [Device(f"d{place}", (place,), 1000) for place in range(2)]
    near = Neighbourhood(devices, ProfileTable(even_profiles({"a": 100.0})), 400)
    states = [
        Placement("a", "d0", 8),
        Placement("a", "d1", 8),
        Placement("a", "d0", 32),
        Placement("a", "d0", 8, "openvino"),
    ]
    assert len({near.signature((state,)) for state in states}) == 3
