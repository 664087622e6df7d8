"""Devices' cores, the first allocation, and neighbours."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.allocation import Device, Placement, allocation_text, assign_cores, find_neighbours, worst_fit
from ensembleflow.config.models import DeviceConfig
from ensembleflow.errors import AllocationError

sizes_mb = st.lists(st.floats(1, 1000), min_size=1, max_size=8)


def named_members(memory_mb: list[float]) -> dict[str, float]:
    return {f"trial-{slot:05d}": size for slot, size in enumerate(memory_mb)}


def named_devices(memory_mb: list[float]) -> list[Device]:
    return [Device(f"cpu{i}", (i,), int(size) + 1) for i, size in enumerate(memory_mb)]


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
    members, devices = named_members(members_mb), named_devices(devices_mb)
    free = {device.name: float(device.memory_mb) for device in devices}
    try:
        placed = worst_fit(members, devices)
    except AllocationError as error:
        smaller_first = sorted(members, key=lambda model: -members[model])
        named = next(model for model in smaller_first if model in error.what)
        # Those before it fill the devices as the error says; it is larger than what any has left.
        for model in smaller_first[: smaller_first.index(named)]:
            device = max(free, key=lambda name: free[name])
            free[device] -= members[model]
        assert members[named] > max(free.values())
        return
    assert list(placed) == list(members)
    for model, device in placed.items():
        free[device] -= members[model]
    assert min(free.values()) >= -1e-6


def test_worst_fit_takes_the_device_with_most_room_and_the_first_of_equals():
    devices = [Device("a", (0,), 100), Device("b", (1,), 100), Device("c", (2,), 150)]
    assert worst_fit({"x": 40, "y": 60, "z": 50}, devices) == {"x": "b", "y": "c", "z": "a"}


def test_a_member_that_fits_nowhere_is_named_with_what_is_free():
    with pytest.raises(AllocationError) as caught:
        worst_fit({"trial-00001": 80, "trial-00002": 120}, [Device("cpu0", (0,), 150)])
    message = str(caught.value)
    assert "trial-00001" in message and "80 MB" in message
    assert "cpu0: 30 of 150 MB free" in message
    assert "hint" in message


@st.composite
def allocations(draw: st.DrawFn):
    devices = [Device(f"cpu{i}", tuple(range(n)), 1000) for i, n in enumerate(draw(st.lists(st.integers(1, 3))) or [1])]
    batch_sizes = sorted(draw(st.sets(st.sampled_from([1, 8, 32, 128]), min_size=1)))
    models = [f"trial-{slot:05d}" for slot in range(draw(st.integers(1, 4)))]
    allocation = tuple(
        Placement(model, draw(st.sampled_from(devices)).name, draw(st.sampled_from(batch_sizes))) for model in models
    )
    memory_mb = {model: draw(st.floats(1, 600)) for model in models}
    costs = {model: draw(st.floats(0.01, 10)) for model in models}
    return allocation, devices, batch_sizes, memory_mb, costs


@given(allocations())
def test_neighbours_are_exactly_the_single_updates_that_fit(case):
    allocation, devices, batch_sizes, memory_mb, costs = case
    expected = set()
    for place, old in enumerate(allocation):
        options = [Placement(old.model, old.device, size) for size in batch_sizes]
        for device in devices:
            others = sum(memory_mb[p.model] for p in allocation if p.device == device.name and p != old)
            if others + memory_mb[old.model] <= device.memory_mb:
                options.append(Placement(old.model, device.name, old.batch_size))
        expected |= {(*allocation[:place], new, *allocation[place + 1 :]) for new in options if new != old}
    found = find_neighbours(allocation, devices, batch_sizes, memory_mb, costs)
    assert {changed for _, changed in found} == expected
    assert len(found) == len(expected)
    assert len({move for move, _ in found}) == len(found)


@given(allocations())
def test_the_order_of_neighbours_does_not_depend_on_the_order_of_batch_sizes(case):
    allocation, devices, batch_sizes, memory_mb, costs = case
    found = find_neighbours(allocation, devices, batch_sizes, memory_mb, costs)
    assert find_neighbours(allocation, devices, batch_sizes[::-1], memory_mb, costs) == found


def test_moves_that_unload_the_busiest_device_come_before_batch_sizes_and_these_before_moves_that_load_it():
    devices = [Device("cpu0", (0,), 1000), Device("cpu1", (1,), 1000)]
    allocation = (
        Placement("trial-00000", "cpu0", 32),
        Placement("trial-00001", "cpu0", 32),
        Placement("trial-00002", "cpu1", 32),
    )
    memory_mb = dict.fromkeys(("trial-00000", "trial-00001", "trial-00002"), 10.0)
    costs = {"trial-00000": 1.0, "trial-00001": 3.0, "trial-00002": 2.0}
    moves = [move for move, _ in find_neighbours(allocation, devices, [8, 32, 128], memory_mb, costs)]
    assert moves[0] == "trial-00000: cpu0 -> cpu1"
    assert moves[-1] == "trial-00002: cpu1 -> cpu0"
    assert moves[1] == "trial-00001: batch 32 -> 128"
    assert "trial-00001: cpu0 -> cpu1" in moves[-2]


def test_an_allocation_is_told_in_one_line():
    allocation = (Placement("trial-00003", "cpu0", 32), Placement("trial-00007", "cpu1", 128))
    assert allocation_text(allocation) == "trial-00003@cpu0/32 trial-00007@cpu1/128"
