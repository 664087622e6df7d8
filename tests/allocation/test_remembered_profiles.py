"""What one job has measured of a member, other jobs take."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensembleflow.allocation import Profile
from ensembleflow.allocation.remembered_profiles import remembered_profiles
from ensembleflow.inference import Device, Member

IMAGES = np.zeros((4, 8, 8, 1), np.uint8)
SETTINGS: dict[str, Any] = {
    "exported": "/somewhere",
    "engine": "tensorflow",
    "core_ids": (0,),
    "gpu": False,
    "images_shape": IMAGES.shape,
    "expected": np.full((4, 10), 0.1, np.float32),
    "tolerance": 1e-4,
    "batch_sizes": [8, 32],
    "min_calls": 5,
    "seconds": 0.5,
}
ONE_CORE = Device("cpu0", (0,), 1000)


def member_of(folder: Path, model: str = "trial-00000", weights: str = "weights") -> Member:
    exported = folder / model
    exported.mkdir(exist_ok=True)
    (exported / "variables").write_text(weights)
    return Member(model, exported)


class Job:
    """A job that wants a member's profiles; its measurements are numbered over all jobs."""

    n_measured = 0
    failure = ""

    def __init__(self, store: Path, taker: str) -> None:
        self.recall = remembered_profiles(store, taker)

    def ask(self, member: Member, device: Device = ONE_CORE, images: np.ndarray = IMAGES, **changes: Any) -> float:
        settings = {**SETTINGS, **changes}

        def measure() -> list[Profile]:
            Job.n_measured += 1
            sizes = settings["batch_sizes"]
            speed = 0.0 if Job.failure else Job.n_measured + 0.1 + 0.2
            return [Profile(member.model, device.kind, "tensorflow", size, speed, 100.3, Job.failure) for size in sizes]

        found = self.recall(member, device, images, settings, measure)
        assert [(each.model, each.device_kind) for each in found] == [(member.model, device.kind)] * len(found)
        assert [each.batch_size for each in found] == settings["batch_sizes"]
        (speed,) = {each.images_per_second for each in found}
        return speed if Job.failure else speed - 0.1 - 0.2


@pytest.fixture(autouse=True)
def nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "n_measured", 0)
    monkeypatch.setattr(Job, "failure", "")


def test_a_member_of_several_ensembles_is_measured_once_and_again_for_a_job_that_is_run_again(tmp_path: Path) -> None:
    a, b = member_of(tmp_path, "a", "1"), member_of(tmp_path, "b", "2")
    store = tmp_path / "store"
    first, second, third = (Job(store, taker) for taker in ("1x-devices-2", "4x-devices-2", "8x-devices-2"))
    assert first.ask(a) == pytest.approx(1)
    assert [second.ask(a), second.ask(b)] == pytest.approx([1, 2])
    # Run again, a job measures again, and those that had not asked take what it found.
    assert first.ask(a) == pytest.approx(3)
    assert [third.ask(a), third.ask(b)] == pytest.approx([3, 2])


def test_what_is_in_the_folder_counts_not_its_name_nor_which_device_of_a_kind(tmp_path: Path) -> None:
    one, same = member_of(tmp_path, "a"), member_of(tmp_path, "b")
    assert Job(tmp_path / "store", "1x").ask(one) == pytest.approx(1)
    other = Device("cpu1", (1,), 2000)
    changes = {"exported": "/elsewhere", "core_ids": (1,)}
    assert Job(tmp_path / "store", "2x").ask(same, other, **changes) == pytest.approx(1)


@pytest.mark.parametrize(
    "changes",
    [
        {"device": Device("both", (0, 1), 1000)},
        {"device": Device("gpu0", (0,), 1000, gpu="0", gpu_name="NVIDIA H100")},
        {"images": IMAGES + 1},
        {"engine": "openvino"},
        {"expected": SETTINGS["expected"] + 0.01},
        {"expected": None},
        {"tolerance": 2e-4},
        {"batch_sizes": [8]},
        {"min_calls": 6},
        {"seconds": 1.0},
        {"weights": "others"},
    ],
    ids=str,
)
def test_whatever_the_numbers_depend_on_makes_them_measured_anew(tmp_path: Path, changes: dict[str, Any]) -> None:
    Job(tmp_path / "store", "1x").ask(member_of(tmp_path))
    member = member_of(tmp_path, weights=changes.pop("weights", "weights"))
    assert Job(tmp_path / "store", "2x").ask(member, **changes) == pytest.approx(2)


def test_a_failure_is_told_to_nobody_else(tmp_path: Path) -> None:
    member = member_of(tmp_path)
    Job.failure = "its process was killed by SIGKILL (out of memory?)"
    assert Job(tmp_path / "store", "1x").ask(member) == 0
    Job.failure = ""
    assert Job(tmp_path / "store", "2x").ask(member) == pytest.approx(2)


_ASK = """
import sys, time
from pathlib import Path
import numpy as np
from ensembleflow.allocation import Profile
from ensembleflow.inference import Device, Member
from ensembleflow.allocation.remembered_profiles import remembered_profiles

store, exported, taker, seconds = sys.argv[1:]


def measure():
    print("measuring", flush=True)
    time.sleep(float(seconds))
    return [Profile("a", "cpu-1", "tensorflow", 8, float(taker), 1.0)]


settings = {"engine": "tensorflow", "expected": None, "batch_sizes": [8]}
(found,) = remembered_profiles(store, taker)(
    Member("a", Path(exported)), Device("cpu0", (0,), 9), np.zeros(1, np.uint8), settings, measure
)
print(found.images_per_second, flush=True)
"""


def ask(store: Path, member: Member, taker: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _ASK, str(store), str(member.exported), str(taker), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_of_jobs_that_want_a_member_at_once_one_measures_it(tmp_path: Path) -> None:
    jobs = [ask(tmp_path / "store", member_of(tmp_path), taker, 0.5) for taker in (1, 2, 3)]
    printed = [job.communicate(timeout=300)[0].split() for job in jobs]
    assert sum(each[0] == "measuring" for each in printed) == 1
    assert len({each[-1] for each in printed}) == 1


def test_a_job_killed_while_it_measures_leaves_the_next_one_to_measure(tmp_path: Path) -> None:
    store, member = tmp_path / "store", member_of(tmp_path)
    with ask(store, member, 1, 600) as killed:
        assert killed.stdout is not None and killed.stdout.readline() == "measuring\n"
        waiting = ask(store, member, 2, 0)
        time.sleep(0.2)
        killed.kill()
    assert waiting.communicate(timeout=300)[0].split() == ["measuring", "2.0"]
    (entry,) = (path for path in store.iterdir() if (path / "profiles.json").exists())
    assert json.loads((entry / "profiles.json").read_text())["profiles"][0]["images_per_second"] == 2.0
