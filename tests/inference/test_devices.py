"""This machine's devices: cores, memory and GPUs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.cli import main
from ensembleflow.config import DeviceConfig, load_config
from ensembleflow.errors import AllocationError, ConfigError
from ensembleflow.inference import assign_cores, detect_devices
from ensembleflow.inference.machine import (
    available_memory_mb,
    cgroup_free_bytes,
    physical_cores,
    plan_devices,
    usable_cores,
)
from ensembleflow.models.gpu import Gpu, select_visible

GPUS = [Gpu(f"GPU-{number}{number}ab", "NVIDIA H100", 80_000 + number) for number in range(4)]


def make_topology(folder: Path, siblings: dict[int, str]) -> Path:
    for number, text in siblings.items():
        (folder / f"cpu{number}/topology").mkdir(parents=True)
        (folder / f"cpu{number}/topology/thread_siblings_list").write_text(f"{text}\n")
    return folder


@pytest.mark.parametrize(
    ("siblings", "usable", "expected"),
    [
        ({0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5"}, [0, 1, 4, 5], [(0, 4), (1, 5)]),
        ({0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}, [0, 1, 2, 3], [(0, 1), (2, 3)]),
        ({0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5"}, [1, 4, 5], [(1, 5), (4,)]),
        ({0: "0", 1: "1"}, [1, 0], [(0,), (1,)]),
        ({}, [3, 7], [(3,), (7,)]),
    ],
)
def test_hardware_threads_of_a_core_are_together_and_only_those_that_may_be_used(tmp_path, siblings, usable, expected):
    assert physical_cores(usable, make_topology(tmp_path, siblings)) == expected


def make_cgroup(folder: Path, limit: tuple[str, str], used: tuple[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in (limit, used):
        (folder / name).write_text(f"{value}\n")


def test_the_tightest_memory_limit_of_the_nested_cgroups_counts(tmp_path):
    own, cgroups = tmp_path / "own", tmp_path / "cgroup"
    own.write_text("0::/system.slice/job_7/step_0\n")
    assert cgroup_free_bytes(own, cgroups) is None
    make_cgroup(cgroups / "system.slice/job_7/step_0", ("memory.max", "max"), ("memory.current", "5"))
    assert cgroup_free_bytes(own, cgroups) is None
    make_cgroup(cgroups / "system.slice/job_7", ("memory.max", "1000"), ("memory.current", "300"))
    make_cgroup(cgroups / "system.slice", ("memory.max", "5000"), ("memory.current", "4500"))
    assert cgroup_free_bytes(own, cgroups) == 500
    make_cgroup(cgroups, ("memory.max", "9000"), ("memory.current", "9001"))
    assert cgroup_free_bytes(own, cgroups) == 0


def test_memory_limits_of_the_older_cgroups_count_too(tmp_path):
    own, cgroups = tmp_path / "own", tmp_path / "cgroup"
    own.write_text("4:cpu,cpuacct:/a\n3:memory:/slurm/job_7\n0::/\n")
    make_cgroup(cgroups / "memory/slurm/job_7", ("memory.limit_in_bytes", "4096"), ("memory.usage_in_bytes", "1096"))
    assert cgroup_free_bytes(own, cgroups) == 3000
    assert cgroup_free_bytes(tmp_path / "absent", cgroups) is None


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2", [2]),
        ("3, 1", [1, 3]),
        ("1,7,2", [1]),
        ("GPU-33ab,GPU-00", [0, 3]),
        ("GPU-", []),
    ],
)
def test_only_gpus_that_the_scheduler_gave_are_counted(visible, expected):
    assert select_visible(GPUS, visible) == [GPUS[place] for place in expected]


@given(
    threads=st.lists(st.integers(1, 2), min_size=1, max_size=20),
    n_gpus=st.integers(0, 4),
    memory_mb=st.integers(100, 10**6),
    cores_per_device=st.integers(1, 6),
)
def test_a_machine_is_divided_among_its_devices(threads, n_gpus, memory_mb, cores_per_device):
    numbers = iter(range(100))
    cores = [tuple(next(numbers) for _ in range(n)) for n in threads]
    devices = plan_devices(cores, GPUS[:n_gpus], memory_mb, cores_per_device)
    gpus, sets = devices[:n_gpus], devices[n_gpus:]
    assert [device.gpu for device in gpus] == list(range(n_gpus))
    assert [device.memory_mb for device in gpus] == [gpu.free_mb for gpu in GPUS[:n_gpus]]
    assert len(sets) == -(-max(0, len(cores) - n_gpus) // cores_per_device)
    assert all(device.gpu is None for device in sets)
    assert sum(device.memory_mb for device in sets) <= memory_mb
    assert len({device.memory_mb for device in sets}) <= 1
    if sets:
        assert sum(device.cores for device in devices) == sum(threads)
    assert len({device.name for device in devices}) == len(devices) >= 1


def test_this_machines_devices_take_what_it_has_and_no_more():
    devices = [device for device in detect_devices() if device.gpu is None]
    assert 1 <= sum(device.cores for device in devices) <= len(usable_cores())
    assert sum(device.memory_mb for device in devices) <= available_memory_mb() * 1.2  # others take and give meanwhile


@pytest.mark.parametrize("options", [[], ["--cores-per-device", "64"]])
def test_the_printed_devices_are_a_valid_config_that_can_be_assigned(tmp_path, capsys, options, caplog):
    assert main(["devices", *options]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "config.yaml").write_text(printed)
    devices = load_config([tmp_path / "config.yaml"]).allocation.devices
    assert len(devices) == 1 or not options
    with caplog.at_level(logging.WARNING):
        assigned = assign_cores(devices)
    assert sorted(core for device in assigned for core in device.core_ids) == sorted(usable_cores())
    assert caplog.text == ""
    assert all(", ".join(map(str, device.core_ids)) in printed for device in assigned if device.gpu is None)


def test_devices_of_no_core_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["devices", "--cores-per-device", "0"])
    assert "0 is not a whole number of 1 or more" in capsys.readouterr().err


def test_a_gpu_that_does_not_exist_is_told_with_what_there_is(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(AllocationError, match="does not exist here") as caught:
        assign_cores([DeviceConfig(name="cpu0"), DeviceConfig(name="fast", gpu=1)])
    message = str(caught.value)
    assert "allocation.devices: fast: gpu 1" in message
    assert "found:    no GPU" in message
    assert "expected: 2 GPUs" in message
    assert "hint:     ensembleflow devices" in message


def test_one_gpu_is_not_two_devices():
    with pytest.raises(AllocationError, match="the same GPU") as caught:
        assign_cores([DeviceConfig(name="one", gpu=0), DeviceConfig(name="two", gpu=0)])
    assert "one: gpu 0, two: gpu 0" in str(caught.value)


def test_a_gpus_number_counts_from_0(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("allocation: {devices: [{name: gpu0, gpu: -1}], device_counts: [1]}")
    with pytest.raises(ConfigError, match="config is refused") as caught:
        load_config([path])
    assert "gpu" in str(caught.value)
