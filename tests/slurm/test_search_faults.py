"""Nothing of a search is lost or done twice, whatever the cluster or the user does to its jobs.

Two searches are disturbed, on one cluster and side by side, and compared with an undisturbed run of the same config.
In the midst of a trial a process is frozen (SIGSTOP) until its fault comes; so the faults find it there on any machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.cluster_search import ClusterSearch, aborted_together
from support.slurm_lab import SlurmLab
from support.whole_search import (
    CONFIG,
    MAX_EPOCHS,
    assert_each_epoch_is_trained_once,
    assert_each_slot_is_filled_once,
    assert_same_results,
    config_of,
    search_of_clone,
)

# ---- The faults ------------------------------------------------------------------------------------------------------


def cancel_and_warn(search: ClusterSearch, job: int) -> None:
    """Cancel a job, and warn its second copy as `sbatch --signal=USR1@60` does a minute before the time limit."""
    first = search.copy(job)
    search.freeze(first, slot=job)
    search.lab.client("scancel", str(first.id))
    second = search.copy(job, 1)
    process = search.freeze(second, slot=job)
    search.lab.client("scancel", "--signal=USR1", str(second.id))
    process.resume()


def exceed_time_limit(search: ClusterSearch, job: int) -> None:
    """Let a job come to the end of its time."""
    copy = search.copy(job)
    search.freeze(copy, slot=job)
    search.end_time(copy)


def take_node_away(search: ClusterSearch, job: int) -> None:
    """Cut off a job's node: its process trains on, beside the second copy of the job, until the node is back."""
    first = search.copy(job)
    orphan = search.freeze(first, slot=job)
    (node,) = first.nodes
    with search.lab.node_away(node):
        search.copy(job, 1)
        search.wait_until("a copy that waits for the orphan", lambda: "is held by process" in search.log(job))
        orphan.resume()
        search.freeze(first, slot=job)


def kill_workflow(search: ClusterSearch) -> None:
    """Kill Snakemake while its job trains, and start it again at once."""
    search.start(*search.job_outputs(1))
    process = search.freeze(search.copy(0), slot=0)
    search.kill()
    search.unlock()
    search.start(*search.job_outputs(1))
    search.copy(0, 1)
    search.wait_until("a second copy that waits for the first", lambda: "is held by process" in search.log(0))
    assert search.copies(0)[0].state == "RUNNING"
    process.resume()
    search.finish()


# ---- The runs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Runs:
    """All runs, finished."""

    undisturbed: Path
    disturbed: ClusterSearch
    restarted: ClusterSearch


@pytest.fixture(scope="module")
def runs(
    slurm_lab: SlurmLab,
    copy_repository: Callable[[Path], None],
    small_dataset: Path,
    undisturbed_search: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Runs]:
    searches = []
    for name, config in (("disturbed", CONFIG), ("restarted", config_of(n_trials=2, trials_per_job=2))):
        clone = tmp_path_factory.mktemp(name) / "ensembleflow"
        copy_repository(clone)
        searches.append(search_of_clone(slurm_lab, clone, config, small_dataset))
    disturbed, restarted = searches
    try:
        with ThreadPoolExecutor() as pool, aborted_together(searches):
            disturbed.start(*disturbed.job_outputs(3))
            faults = [
                pool.submit(cancel_and_warn, disturbed, 0),
                pool.submit(take_node_away, disturbed, 1),
                pool.submit(exceed_time_limit, disturbed, 2),
                pool.submit(kill_workflow, restarted),
            ]
            ended, _ = wait(faults, return_when=FIRST_EXCEPTION)
            for fault in ended:
                fault.result()
            disturbed.finish()
        yield Runs(undisturbed_search, disturbed, restarted)
    finally:
        for search in searches:
            search.sweep()


# ---- What must hold --------------------------------------------------------------------------------------------------


def test_the_faults_ended_the_jobs_as_they_should(runs: Runs) -> None:
    def states(search: ClusterSearch, job: int) -> list[str]:
        return [each.state for each in search.copies(job, settled=True)]

    assert states(runs.disturbed, 0) == ["CANCELLED", "FAILED", "COMPLETED"]
    assert states(runs.disturbed, 1) == ["NODE_FAIL", "COMPLETED"]
    assert states(runs.disturbed, 2) == ["TIMEOUT", "COMPLETED"]
    assert states(runs.restarted, 0) == ["COMPLETED", "COMPLETED"]


@pytest.mark.parametrize(
    ("job", "cause"), [(0, "it was cancelled"), (1, "its node failed"), (2, r"its time limit of \d+ min was over")]
)
def test_what_ended_a_job_is_shown(runs: Runs, job: int, cause: str) -> None:
    first = runs.disturbed.copies(job)[0]
    ended = rf" ended: {cause} \(Slurm job {first.id} on {first.nodes[0]}, after [\d:]+\)"
    assert re.search(ended, runs.disturbed.printed)


EACH_SEARCH = pytest.mark.parametrize(("name", "n_trials"), [("disturbed", 3), ("restarted", 2)])


@EACH_SEARCH
def test_every_slot_is_filled_once(runs: Runs, name: str, n_trials: int, tmp_path: Path) -> None:
    assert_each_slot_is_filled_once(getattr(runs, name).search_dir, n_trials, tmp_path)


@EACH_SEARCH
def test_each_epoch_is_trained_once_and_in_order(runs: Runs, name: str, n_trials: int, tmp_path: Path) -> None:
    assert_each_epoch_is_trained_once(getattr(runs, name).search_dir, n_trials, MAX_EPOCHS, tmp_path)


@EACH_SEARCH
def test_the_results_are_as_if_nothing_had_happened(runs: Runs, name: str, n_trials: int, tmp_path: Path) -> None:
    assert_same_results(getattr(runs, name).search_dir, runs.undisturbed, n_trials, tmp_path)


def test_a_job_that_was_told_to_stop_leaves_its_slot_free(runs: Runs) -> None:
    for job in (0, 2):
        assert "from dead process" not in runs.disturbed.log(job), "its lease was still there"
