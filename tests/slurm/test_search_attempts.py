"""A trial may take more jobs than `retries` allows, as long as each finishes an epoch; and a failed job says why."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster_search import ClusterSearch, aborted_together
from ensembleflow.config import DatasetConfig, parse_config
from ensembleflow.datasets import prepare_dataset
from slurm_lab import Job, SlurmLab

JOB = "results/digits-random-s0/search/trials/job-0.json"
CONFIG: dict[str, Any] = {
    "search": {
        "algorithm": "random",
        "n_trials": 1,
        "trials_per_job": 1,
        "max_epochs": 6,
        "min_epochs": 1,
        "space": {
            "block": ["v1"],
            "batch_size": [16, 24],
            "stem_filters": [4, 4],
            "stage_filters": [4, 4],
            "blocks_stage_1": [1, 1],
            "blocks_stage_2": [1, 1],
        },
    },
    "library": {"keep_fraction": 1.0},
    "resources": {"search": {"mem_mb": 3000, "runtime_minutes": 7}},
}
# An epoch of which takes a minute, so that no attempt finishes one before Slurm has ended it.
SLOW_SPACE = {"batch_size": [1, 1], "blocks_stage_1": [8, 8], "blocks_stage_2": [8, 8]}
N_ATTEMPTS = 3  # the rule's retries, and one


def end_time(search: ClusterSearch, copy: Job) -> None:
    """Let a job's time be over: the shortest limit is a minute, but a running job's end can be moved."""
    soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 1))
    search.lab.client("scontrol", "update", f"JobId={copy.id}", f"EndTime={soon}")


def end_in_every_epoch(search: ClusterSearch) -> None:
    """End as many attempts as may fail without an epoch, each in the epoch after its first."""
    search.start(JOB)
    for number in range(N_ATTEMPTS):
        copy = search.copy(0, number)
        process = search.freeze(copy, slot=0)
        if number == 0:
            end_time(search, copy)
        elif number == 1:
            os.kill(process.pid, signal.SIGKILL)  # as the system does for lack of memory
        else:
            search.lab.client("scancel", str(copy.id))
    search.finish()


def end_before_an_epoch(search: ClusterSearch) -> None:
    """Let time be over before an epoch is finished, each time."""
    search.start(JOB)
    for number in range(N_ATTEMPTS):
        copy = search.copy(0, number)
        # Not before its step: a job that is over cannot start one, and fails by that.
        search.wait_until(
            f"the step of Slurm job {copy.id}",
            lambda copy=copy: (copy.id, "0") in {(task.job, task.step) for task in search.lab.tasks()},  # type: ignore[misc]
        )
        end_time(search, copy)
    assert search.wait() == 1


@pytest.fixture(scope="module")
def searches(
    slurm_lab: SlurmLab, copy_repository: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, ClusterSearch]]:
    dataset = tmp_path_factory.mktemp("dataset") / "digits.h5"
    prepare_dataset(DatasetConfig(), dataset)
    searches = {}
    slow = {**CONFIG, "search": {**CONFIG["search"], "space": {**CONFIG["search"]["space"], **SLOW_SPACE}}}
    for name, config in {"long": CONFIG, "fruitless": slow}.items():
        clone = tmp_path_factory.mktemp(name) / "ensembleflow"
        copy_repository(clone)
        (clone / "results/datasets").mkdir(parents=True)
        shutil.copy(dataset, clone / "results/datasets/digits.h5")
        (clone / "study.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        searches[name] = ClusterSearch(slurm_lab, clone, "study.yaml", parse_config(config).study)
    try:
        with ThreadPoolExecutor() as pool, aborted_together(list(searches.values())):
            ends = [
                pool.submit(end_in_every_epoch, searches["long"]),
                pool.submit(end_before_an_epoch, searches["fruitless"]),
            ]
            done, _ = wait(ends, return_when=FIRST_EXCEPTION)
            for end in done:
                end.result()
            for end in ends:
                end.result()
        yield searches
    finally:
        for search in searches.values():
            search.sweep()


def errors_shown(search: ClusterSearch) -> list[str]:
    """What Snakemake showed of each failed attempt, its log included."""
    return re.split(r"^Error in rule train_trials:\n    message: SLURM-job", search.printed, flags=re.MULTILINE)[1:]


def test_a_trial_goes_on_in_more_jobs_than_may_fail(searches: dict[str, ClusterSearch]) -> None:
    states = [copy.state for copy in searches["long"].copies(0, settled=True)]
    assert states == ["TIMEOUT", "FAILED", "CANCELLED", "COMPLETED"]
    assert searches["long"].n_epochs(0) == CONFIG["search"]["max_epochs"]
    assert (searches["long"].folder / JOB).exists()


def test_jobs_that_finish_no_epoch_end_the_search(searches: dict[str, ClusterSearch]) -> None:
    assert [copy.state for copy in searches["fruitless"].copies(0, settled=True)] == ["TIMEOUT"] * N_ATTEMPTS
    assert searches["fruitless"].n_epochs(0) == 0


def test_what_is_shown_of_a_failed_job_is_its_own_log_and_ends_with_what_ended_it(
    searches: dict[str, ClusterSearch],
) -> None:
    causes = [
        "its time limit of",
        "SIGKILL ended its process: perhaps its node's memory was full",
        "it was cancelled",
    ]
    shown = errors_shown(searches["long"])
    assert len(shown) == len(causes)
    for text, cause in zip(shown, causes, strict=True):
        assert "Detailed failure reason unavailable" not in text
        log = text.rpartition("Logfile results/logs/")[2].splitlines()
        rule = next(number for number, line in enumerate(log[2:], 2) if set(line) == {"="})
        first, last = log[2], log[rule - 1]
        assert re.match(r"[\d-]{10} [\d:,]+ INFO ensembleflow\.search: ", first), first
        assert f" ended: {cause}" in last
        assert re.search(r" \(Slurm job \d+ on n\d, after [\d:]+\); \d more epochs? kept, so this attempt", last), last


def test_the_message_says_which_limit_to_raise_and_by_how_much(searches: dict[str, ClusterSearch]) -> None:
    shown = errors_shown(searches["fruitless"])
    assert len(shown) == N_ATTEMPTS
    for number, text in enumerate(shown, 1):
        assert "ERROR a search job's time limit is too short for one epoch" in text
        assert "where:    resources.search.runtime_minutes" in text
        assert re.search(r"hint: +raise it by \d.*resources: \{search: \{runtime_minutes: \d+\}\}", text)
        assert f"attempt {number} of {N_ATTEMPTS} that finished no epoch" in text
