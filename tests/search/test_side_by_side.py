"""Several trials of one job trained at the same time, in processes that share its device."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from ensembleflow.config import Config, parse_config
from ensembleflow.search import train_process
from support.search_jobs import results, run, start, wait_for_epochs
from support.small_search import SMALL_SPACE


def config(concurrent_trials: int, **space: object) -> Config:
    search = {"algorithm": "random", "n_trials": 4, "trials_per_job": 4, "max_epochs": 2, "min_epochs": 1}
    return parse_config(
        {
            "search": {**search, "space": {**SMALL_SPACE, **space}},
            "library": {"keep_fraction": 0.5},
            "resources": {"search": {"concurrent_trials": concurrent_trials, "threads": 2}},
        }
    )


def processes_of(parent: int) -> list[psutil.Process]:
    return [each for each in psutil.Process(parent).children() if each.cmdline()[-1:] == [train_process.__file__]]


def test_trials_trained_side_by_side_are_those_trained_one_by_one(digits: Path, tmp_path: Path) -> None:
    run(config(1), 0, digits, tmp_path / "one")
    run(config(2), 0, digits, tmp_path / "two")
    assert results(tmp_path / "two") == results(tmp_path / "one")
    trials = json.loads((tmp_path / "two/trials/job-0.json").read_text())["trials"]
    workers = [{run["process_id"] for run in trial["runs"]} for trial in trials]
    assert all(len(each) == 1 for each in workers), "no trial was trained twice"
    assert len(set.union(*workers)) == 2


@pytest.mark.parametrize("victim", ["the job", "a process of it"])
def test_whichever_process_is_killed_the_others_end_and_the_trials_go_on_later(
    digits: Path, tmp_path: Path, victim: str
) -> None:
    job = start(config(2), 0, digits, tmp_path)
    wait_for_epochs(tmp_path, 0, 1)
    processes = processes_of(job.pid)
    assert len(processes) == 2
    os.kill(job.pid if victim == "the job" else processes[0].pid, signal.SIGKILL)
    stderr = job.communicate(timeout=120)[1]
    assert job.returncode != 0
    if victim != "the job":
        assert "ended" in stderr and "killed" in stderr and "Traceback" not in stderr
    deadline = time.monotonic() + 60
    while any(process.is_running() for process in processes):
        assert time.monotonic() < deadline, "an orphan goes on"
        time.sleep(0.1)
    run(config(2), 0, digits, tmp_path)
    assert [len(trial["epochs"]) for trial in results(tmp_path)] == [2] * 4


def test_a_job_tells_how_far_the_study_is_when_a_trial_of_its_own_has_ended(digits: Path, tmp_path: Path) -> None:
    values = config(2).model_dump(mode="json")
    values["search"]["trials_per_job"] = 2
    told = [run(parse_config(values), job, digits, tmp_path) for job in (0, 1)]
    assert "search 2/4 trials" in told[0]
    assert "search 4/4 trials" in told[1]
    assert "search 2/4 trials" not in told[1], "these are the other job's"


def test_what_does_not_fit_beside_others_is_tried_alone(digits: Path, tmp_path: Path) -> None:
    huge = config(2, stem_filters=[2_000_000, 2_000_000], stage_filters=[2_000_000, 2_000_000])
    stderr = run(huge, 0, digits, tmp_path)
    log = (tmp_path / "job-0.log").read_text()
    assert log.count("trained alone later") >= 4
    assert stderr.count("out of memory in epoch") == 4
    assert {trial["state"] for trial in results(tmp_path)} == {"FAIL"}


def test_a_users_mistake_is_told_once_and_in_full(digits: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "digits.h5"
    damaged.write_bytes(digits.read_bytes())
    job = start(config(2), 0, damaged, tmp_path / "search")
    wait_for_epochs(tmp_path / "search", 0, 1)
    job.terminate()
    job.wait(60)
    for path in (tmp_path / "search").glob("store/*/*/epoch-*.npz"):
        path.unlink()
    again = start(config(2), 0, damaged, tmp_path / "search")
    stderr = again.communicate(timeout=120)[1]
    assert again.returncode == 1
    assert stderr.count("checkpoint is gone") == 1
    assert "Traceback" not in stderr
