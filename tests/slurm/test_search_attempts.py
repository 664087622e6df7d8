"""A trial may take more jobs than `retries` allows, as long as each finishes an epoch; and a failed job says why."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from support.cluster_search import ClusterSearch, aborted_together
from support.slurm_lab import SlurmLab
from support.whole_search import CONFIG, config_of, search_of_clone

MAX_EPOCHS = 6
# Two searches of one trial, whose jobs fit on one node.
RESOURCES = {"search": {"mem_mb": 3000, "runtime_minutes": 7}}
# An epoch of which takes long enough for an attempt to be stopped in its first.
SLOW_SPACE = {**CONFIG["search"]["space"], "batch_size": [1, 1], "blocks_stage_1": [8, 8], "blocks_stage_2": [8, 8]}
N_ATTEMPTS = 3  # the rule's retries, and one


def end_in_every_epoch(search: ClusterSearch) -> None:
    """End as many attempts as may fail without an epoch, each in the epoch after its first."""
    search.start(*search.job_outputs(1))
    for number in range(N_ATTEMPTS):
        copy = search.copy(0, number)
        process = search.freeze(copy, slot=0)
        if number == 0:
            search.end_time(copy)
        elif number == 1:
            os.kill(process.pid, signal.SIGKILL)  # as the system does for lack of memory
        else:
            search.lab.client("scancel", str(copy.id))
    search.finish()


def end_before_an_epoch(search: ClusterSearch) -> None:
    """Let time be over before an epoch is finished, each time."""
    search.start(*search.job_outputs(1))
    for number in range(N_ATTEMPTS):
        copy = search.copy(0, number)
        search.freeze(copy, slot=0, n_more_epochs=0)  # as Slurm may notice up to half a minute later
        search.end_time(copy)
    assert search.wait() == 1


@pytest.fixture(scope="module")
def searches(
    slurm_lab: SlurmLab,
    copy_repository: Callable[[Path], None],
    small_dataset: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, ClusterSearch]]:
    searches = {}
    for name, space in {"long": CONFIG["search"]["space"], "fruitless": SLOW_SPACE}.items():
        clone = tmp_path_factory.mktemp(name) / "ensembleflow"
        copy_repository(clone)
        config = config_of(n_trials=1, max_epochs=MAX_EPOCHS, space=space) | {"resources": RESOURCES}
        searches[name] = search_of_clone(slurm_lab, clone, config, small_dataset)
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
    assert searches["long"].n_epochs(0) == MAX_EPOCHS
    assert (searches["long"].folder / searches["long"].job_outputs(1)[0]).exists()


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
