"""The pipeline, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ensembleflow.allocation import MeasuredBench
from ensembleflow.config import AllocationConfig, DeviceConfig
from ensembleflow.errors import AllocationError
from ensembleflow.inference import (
    Deployment,
    Device,
    Limits,
    Member,
    MemberError,
    Pipeline,
    Placement,
    allocation_text,
    assign_cores,
)

IMAGE_SHAPE = (8, 8, 1)
CAPACITY_IMAGES = 50

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")


def make_devices() -> list[Device]:
    """Two devices of one core, one of two (the same two, where there are no more)."""
    one, two, both = (DeviceConfig(name=name, cores=n) for name, n in (("cpu0", 1), ("cpu1", 1), ("both", 2)))
    return [*assign_cores([one, two]), *assign_cores([both])]


def place(exported, *places: tuple[str, int]) -> tuple[Placement, ...]:
    return tuple(Placement(model, *each) for model, each in zip(exported.models, places, strict=True))


@pytest.fixture(scope="module")
def start(exported):
    return place(exported, ("cpu0", 16), ("cpu1", 16), ("cpu1", 64))


@pytest.fixture(scope="module")
def running(exported, start):
    members = [Member(model, exported.folder / model) for model in exported.models]
    limits = Limits(max_batch_images=CAPACITY_IMAGES)
    with Pipeline(Deployment(members, make_devices(), IMAGE_SHAPE, 10, limits), start) as pipeline:
        yield pipeline


@pytest.fixture
def pipeline(running, start):
    """The running pipeline in its first allocation, with all of its members alive."""
    running.reconfigure(start)
    return running


def pids(pipeline: Pipeline) -> list[int]:
    return [worker.pid for worker in pipeline.status()]


def cores_of_threads(pid: int) -> set[frozenset[int]]:
    return {frozenset(os.sched_getaffinity(int(thread.name))) for thread in Path(f"/proc/{pid}/task").iterdir()}


def exists(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def n_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def wait_until_gone(pids: list[int]) -> bool:
    for _ in range(600):
        if not any(map(exists, pids)):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("n_images", [0, 1, CAPACITY_IMAGES - 1, CAPACITY_IMAGES, CAPACITY_IMAGES + 1, 120])
def test_probabilities_are_the_members_average_whatever_the_length_of_the_request(pipeline, exported, images, n_images):
    probabilities = pipeline.predict(images[:n_images])
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (n_images, 10)
    np.testing.assert_allclose(probabilities, exported.average(images[:n_images]), atol=1e-6)


def test_images_of_another_shape_or_type_are_refused(pipeline, images):
    with pytest.raises(ValueError, match=r"expected uint8 \(n, \(8, 8, 1\)\)"):
        pipeline.predict(images.astype(np.float32))
    with pytest.raises(ValueError, match="expected uint8"):
        pipeline.predict(images[:, :4])


def test_an_allocation_of_other_members_or_devices_is_refused(pipeline, start):
    with pytest.raises(AllocationError, match="does not suit"):
        pipeline.reconfigure(start[::-1])
    with pytest.raises(AllocationError, match="does not suit"):
        pipeline.reconfigure((Placement(start[0].model, "gpu7", 8), *start[1:]))


def test_each_member_is_bound_to_its_device_and_knows_its_memory(pipeline):
    cores = {device.name: set(device.core_ids) for device in make_devices()}
    for worker, placement in zip(pipeline.status(), pipeline.allocation, strict=True):
        assert cores_of_threads(worker.pid) == {frozenset(cores[placement.device])}
        assert 100 < worker.peak_memory_mb < 2000


@two_cores
def test_a_new_batch_size_or_an_equal_device_restarts_nothing(pipeline, exported, images):
    before = pids(pipeline)
    pipeline.reconfigure(place(exported, ("cpu1", 8), ("cpu0", 100), ("cpu1", 32)))
    assert pids(pipeline) == before
    cores = {device.name: frozenset(device.core_ids) for device in make_devices()}
    assert [cores_of_threads(pid) for pid in before] == [{cores["cpu1"]}, {cores["cpu0"]}, {cores["cpu1"]}]
    np.testing.assert_allclose(pipeline.predict(images), exported.average(images), atol=1e-6)


@two_cores
def test_a_device_with_more_cores_restarts_only_the_member_that_moves(pipeline, exported, images):
    before = pids(pipeline)
    pipeline.reconfigure(place(exported, ("both", 16), ("cpu1", 16), ("cpu1", 64)))
    after = pids(pipeline)
    assert after[0] != before[0] and after[1:] == before[1:]
    assert not exists(before[0])
    np.testing.assert_allclose(pipeline.predict(images), exported.average(images), atol=1e-6)
    pipeline.reconfigure(place(exported, ("both", 16), ("cpu0", 16), ("cpu1", 64)))
    assert pids(pipeline) == after


def test_a_member_killed_at_work_fails_that_request_and_harms_no_other(pipeline, exported, images):
    before = pids(pipeline)
    os.kill(before[1], signal.SIGSTOP)  # so that it surely has not answered yet
    with ThreadPoolExecutor(1) as threads:
        request = threads.submit(pipeline.predict, images)
        while not request.running():
            time.sleep(0.001)
        time.sleep(1)  # until it has its order
        os.kill(before[1], signal.SIGKILL)
        with pytest.raises(MemberError) as caught:
            request.result(timeout=60)
    assert list(caught.value.failures) == [exported.models[1]]
    assert "SIGKILL" in str(caught.value)
    np.testing.assert_allclose(pipeline.predict(images), exported.average(images), atol=1e-6)
    after = pids(pipeline)
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] != before[1]


def test_shared_memory_has_no_name_that_could_be_left_behind(pipeline):
    for pid in pids(pipeline):
        shared = [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if line.split()[1] == "rw-s"]
        assert len(shared) == 2
        assert all("/memfd:ensembleflow (deleted)" in line for line in shared)


def test_a_member_that_fails_scores_zero_with_the_reason_and_the_next_bench_runs(pipeline, exported, images, start):
    bench = MeasuredBench(pipeline, images, AllocationConfig(latency_requests=3, bench_repeats=3))
    score = bench(place(exported, ("cpu0", 16), ("cpu1", 16), ("cpu1", 128)))
    assert score.value == 0 and score.values == ()
    assert "trial-00002" in score.failure and "out of pretended memory" in score.failure
    score = bench(start)
    assert score.failure == ""
    assert len(score.images_per_second) == len(score.latency_p50_ms) == len(score.latency_p99_ms) == 3
    assert 0 < score.quantile(0.25) <= score.value <= score.quantile(0.75)
    assert all(0 < p50 <= p99 for p50, p99 in zip(score.latency_p50_ms, score.latency_p99_ms, strict=True))


def test_a_hopeless_allocation_is_benched_once(pipeline, exported, images):
    bench = MeasuredBench(pipeline, images, AllocationConfig(latency_requests=0, bench_repeats=3))
    assert len(bench(place(exported, ("cpu0", 64), ("cpu1", 64), ("cpu1", 64))).values) == 3
    # An image a call takes many times as long.
    assert len(bench(place(exported, ("cpu0", 1), ("cpu1", 1), ("cpu1", 1))).values) == 1


def test_a_member_that_cannot_be_loaded_is_named_and_nothing_is_left(exported, tmp_path):
    open_files = n_open_files()
    (tmp_path / "trial-00009").mkdir()
    members = [Member("trial-00009", tmp_path / "trial-00009")]
    allocation = (Placement("trial-00009", "cpu0", 8),)
    pipeline = Pipeline(Deployment(members, make_devices(), IMAGE_SHAPE, n_classes=10), allocation)
    with pytest.raises(MemberError, match="failed") as caught, pipeline:
        pass
    assert "trial-00009: an exported model cannot be read" in str(caught.value)
    assert n_open_files() == open_files


def test_a_member_of_another_number_of_classes_is_refused(exported):
    members = [Member(exported.models[0], exported.folder / exported.models[0])]
    allocation = (Placement(exported.models[0], "cpu0", 8),)
    pipeline = Pipeline(Deployment(members, make_devices(), IMAGE_SHAPE, n_classes=7), allocation)
    with pytest.raises(MemberError, match="failed") as caught, pipeline:
        pass
    assert "the ensemble has 7 classes" in str(caught.value)


# It has no __main__ guard, as Snakemake's scripts have none: a child that ran it again would print twice.
_PARENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from ensembleflow.inference import Deployment, Device, Member, Pipeline, Placement
model, folder = sys.argv[1:]
deployment = Deployment([Member(model, folder)], [Device("cpu0", (%d,), 1000)], (8, 8, 1), n_classes=10)
pipeline = Pipeline(deployment, (Placement(model, "cpu0", 8),))
with pipeline:
    assert "tensorflow" not in sys.modules
    print("ready", *(worker.pid for worker in pipeline.status()), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("way_out", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_parent_that_is_stopped_leaves_no_process(exported, tmp_path, way_out):
    script = tmp_path / "script.py"
    script.write_text(_PARENT % min(os.sched_getaffinity(0)))
    model = exported.models[0]
    with subprocess.Popen(
        [sys.executable, script, model, exported.folder / model],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        word, *children = parent.stdout.readline().split()
        assert word == "ready"
        if way_out == signal.SIGINT:
            os.killpg(parent.pid, way_out)  # as Ctrl-C: the members' processes get it as well
        else:
            parent.kill()
        assert parent.stdout.read() == ""
        assert wait_until_gone([parent.pid, *map(int, children)])


def test_the_text_of_an_allocation_names_members_devices_and_batch_sizes(start):
    assert allocation_text(start[:1]) == "trial-00000@cpu0/16"
