"""The lease on a slot, between real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ensembleflow.errors import SearchError
from ensembleflow.search.lease import Lease

HOLD = """
import sys, time
from pathlib import Path
from ensembleflow.search.lease import Lease
with Lease(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
    Path(sys.argv[1] + ".work-done").touch()
"""

COUNT = """
import sys, time
from pathlib import Path
from ensembleflow.search.lease import Lease
lease, counter = sys.argv[1], Path(sys.argv[2])
for _ in range(10):
    with Lease(lease, poll_seconds=0.005):
        value = int(counter.read_text())
        time.sleep(0.002)
        counter.write_text(str(value + 1))
"""


def hold(path: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_only_one_process_holds_it_at_a_time(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path / "slot.lease"), str(counter)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(120) for process in processes] == [0] * 4
    assert counter.read_text() == "40"


def test_a_live_holder_is_waited_for(tmp_path: Path) -> None:
    process = hold(tmp_path / "slot.lease", 1.0)
    with Lease(tmp_path / "slot.lease", poll_seconds=0.05):
        assert (tmp_path / "slot.lease.work-done").exists()
    assert process.wait(60) == 0


def test_a_killed_holders_lease_is_taken_over(tmp_path: Path) -> None:
    process = hold(tmp_path / "slot.lease", 600)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / "slot.lease").exists()
    with Lease(tmp_path / "slot.lease") as lease:
        lease.check()
    assert list(tmp_path.iterdir()) == []


def test_a_recycled_process_number_is_not_taken_for_the_holder(tmp_path: Path) -> None:
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "started_after_boot": 1.0, "token": "someone"}
    (tmp_path / "slot.lease").write_text(json.dumps(holder))
    with Lease(tmp_path / "slot.lease") as lease:
        lease.check()


def test_a_holder_on_another_machine_is_dead_once_it_stops_renewing(tmp_path: Path) -> None:
    path = tmp_path / "slot.lease"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started_after_boot": 1.0, "token": "someone"}))
    waiting = Lease(path, expire_seconds=30)
    assert waiting._alive(waiting._read(path))
    os.utime(path, (1, 1))
    with waiting as lease:
        lease.check()


def test_a_lease_that_a_power_cut_emptied_is_taken_over_after_its_time(tmp_path: Path) -> None:
    path = tmp_path / "slot.lease"
    path.touch()
    os.utime(path, (1, 1))
    with Lease(path) as lease:
        lease.check()


def test_a_zombie_holds_nothing(tmp_path: Path) -> None:
    process = hold(tmp_path / "slot.lease", 600)
    os.kill(process.pid, signal.SIGKILL)  # and not waited for: its entry stays in the table of processes
    with Lease(tmp_path / "slot.lease") as lease:
        lease.check()
    process.wait()


def test_a_holder_learns_that_its_lease_was_taken(tmp_path: Path) -> None:
    path = tmp_path / "slot.lease"
    with Lease(path) as lease:
        path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started_after_boot": 1.0, "token": "someone"}))
        with pytest.raises(SearchError, match="took over"):
            lease.check()
    assert path.exists(), "another's lease must not be removed"


def test_a_link_that_a_network_file_system_made_but_says_was_there_is_known_as_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_twice(source: Path, target: Path) -> None:  # as NFS does when its first answer is lost
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", link_twice)
    with Lease(tmp_path / "slot.lease", wait=False) as lease:
        assert lease.held
        assert not Lease(tmp_path / "slot.lease")._try_create()
    assert list(tmp_path.iterdir()) == []
