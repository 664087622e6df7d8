"""Members forked from a process that has imported TensorFlow, with real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from ensembleflow.allocation import profile_members
from ensembleflow.inference import (
    Deployment,
    Device,
    ForkServer,
    Member,
    MemberError,
    Pipeline,
    Placement,
    fork_server_process,
    worker_process,
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="nothing is forked here")

CORES = tuple(sorted(os.sched_getaffinity(0)))
DEVICES = [Device("cpu0", CORES[:1], 4096), Device("cpu1", CORES[-1:], 4096)]


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as server:
        yield server


def pipeline_of(exported, server: ForkServer, models: tuple[str, ...] = (), n_classes: int = 10) -> Pipeline:
    models = models or exported.models
    members = [Member(model, exported.folder / model) for model in models]
    allocation = tuple(Placement(model, DEVICES[place % 2].name, 16) for place, model in enumerate(models))
    return Pipeline(Deployment(members, DEVICES, (8, 8, 1), n_classes, fork_server=server), allocation)


def process_of(server: ForkServer) -> psutil.Process:
    assert server._process is not None
    return psutil.Process(server._process.pid)


def is_gone(pid: int) -> bool:
    for _ in range(600):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_forked_members_answer_as_others_do_each_on_its_own_core(exported, images, server):
    with pipeline_of(exported, server) as pipeline:
        np.testing.assert_allclose(pipeline.predict(images), exported.average(images), atol=1e-6)
        forked = [psutil.Process(member.pid) for member in pipeline.status()]
        assert {member.parent() for member in forked} == {process_of(server)}
        for place, member in enumerate(forked):
            threads = [os.sched_getaffinity(thread.id) for thread in member.threads()]
            assert len(threads) > 1  # it has used TensorFlow
            assert set(map(frozenset, threads)) == {frozenset(DEVICES[place % 2].core_ids)}
    # The server has not: else it could not be forked any more.
    assert process_of(server).num_threads() == 1
    assert process_of(server).children() == []


def test_a_forked_profile_is_the_same_kind_of_number_as_of_a_process_of_its_own(exported, images, server):
    members = [Member(exported.models[0], exported.folder / exported.models[0])]
    expected = {exported.models[0]: exported.answers(exported.models[0], images)}
    forked, afresh = (
        profile_members(
            members, DEVICES, ["tensorflow"], [1, 64], images, expected=expected, seconds=0.05, fork_server=used
        )
        for used in (server, None)
    )
    for ours, theirs in zip(forked, afresh, strict=True):
        assert (ours.batch_size, ours.failure, theirs.failure) == (theirs.batch_size, "", "")
        assert ours.images_per_second > 0
        # Memory decides what fits on a device: a forked process must not seem to need less than one started afresh.
        assert 0.9 * theirs.peak_memory_mb <= ours.peak_memory_mb <= 1.2 * theirs.peak_memory_mb


def test_a_killed_member_is_told_and_forked_again(exported, images, server):
    with pipeline_of(exported, server) as pipeline:
        victim = pipeline.status()[1].pid
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(MemberError, match=r"trial-00001: its process was killed by SIGKILL"):
            while True:
                pipeline.predict(images)
        np.testing.assert_allclose(pipeline.predict(images), exported.average(images), atol=1e-6)
        assert psutil.Process(pipeline.status()[1].pid).parent() == process_of(server)


def test_what_a_forked_member_says_at_its_end_is_told(exported, server):
    with pytest.raises(MemberError, match="the ensemble has 7 classes"), pipeline_of(exported, server, n_classes=7):
        pass
    assert process_of(server).is_running()


def test_without_its_server_a_member_works_on_and_the_next_one_is_started_afresh(exported, images):
    with ForkServer() as server, pipeline_of(exported, server, exported.models[:2]) as pipeline:
        own = process_of(server)
        own.kill()
        expected = exported.average(images, exported.models[:2])
        np.testing.assert_allclose(pipeline.predict(images), expected, atol=1e-6)
        os.kill(pipeline.status()[0].pid, signal.SIGKILL)
        with pytest.raises(MemberError, match="trial-00000"):
            while True:
                pipeline.predict(images)
        np.testing.assert_allclose(pipeline.predict(images), expected, atol=1e-6)
        afresh = pipeline.status()[0].pid
        assert psutil.Process(afresh).ppid() == os.getpid()
    assert is_gone(afresh)


def test_a_process_with_threads_is_not_forked():
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert fork_server_process._fork(theirs, lambda *_: 0, [os.dup(1)]) is None
    over.set()
    other.join()


def test_a_server_that_cannot_start_is_no_failure(monkeypatch):
    # As where the job has no TensorFlow: the member's own process then says so.
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with ForkServer() as server, tempfile.TemporaryFile() as output:
        assert server.fork(Path(worker_process.__file__), [], output) is None
        assert server.fork(Path(worker_process.__file__), [], output) is None


# It has no __main__ guard, as Snakemake's scripts have none.
_PARENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from ensembleflow.inference import Deployment, Device, ForkServer, Member, Pipeline, Placement
model, folder, core = sys.argv[1:]
members, devices = [Member(model, folder)], [Device("cpu0", (int(core),), 1000)]
with ForkServer() as server, Pipeline(
    Deployment(members, devices, (8, 8, 1), 10, fork_server=server), (Placement(model, "cpu0", 8),)
) as pipeline:
    assert "tensorflow" not in sys.modules
    print(server._process.pid, *(worker.pid for worker in pipeline.status()), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("way_out", [signal.SIGKILL, signal.SIGINT, None], ids=["killed", "interrupted", "done"])
def test_a_job_that_ends_leaves_neither_server_nor_members(exported, tmp_path, way_out):
    script = tmp_path / "script.py"
    script.write_text(_PARENT)
    model = exported.models[0]
    with subprocess.Popen(
        [sys.executable, script, model, exported.folder / model, str(CORES[0])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        left = list(map(int, parent.stdout.readline().split()))
        assert len(left) == 2
        if way_out is None:
            parent.stdin.close()
        elif way_out == signal.SIGINT:
            os.killpg(parent.pid, way_out)  # as Ctrl-C: the server and the member get it as well
        else:
            parent.kill()
        assert parent.stdout.read() == ""
        assert all(map(is_gone, [parent.pid, *left]))
