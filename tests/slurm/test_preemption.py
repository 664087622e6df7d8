"""Jobs of a search that make way for more urgent ones lose nothing, whichever way the partition preempts.

Each of three search jobs runs in a partition of its own: one requeues the jobs that it preempts, one cancels them, one
warns them a minute before. In the midst of a trial comes a job of the default partition that needs the node.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from support.cluster_search import ClusterSearch, aborted_together
from support.slurm_lab import Job, SlurmLab
from support.whole_search import (
    CONFIG,
    MAX_EPOCHS,
    assert_each_epoch_is_trained_once,
    assert_each_slot_is_filled_once,
    assert_same_results,
    search_of_clone,
)

REPOSITORY = Path(__file__).parents[2]
PARTITIONS = ("spare_requeue", "spare_cancel", "spare_grace")
REQUEUED, CANCELLED, WARNED = range(3)
SET_RESOURCES = f"""
set-resources:
  train_trials:
    slurm_partition: "{PARTITIONS}[int(wildcards.job)]"
"""


def preemptible_profile(folder: Path) -> Path:
    """The profile that docs/cluster.md tells to make, with a partition for each job."""
    original = (REPOSITORY / "profiles/slurm/config.yaml").read_text(encoding="utf-8")
    changed = re.sub("^slurm-no-requeue: true$", "slurm-requeue: true", original, flags=re.MULTILINE)
    assert changed != original
    folder.mkdir()
    (folder / "config.yaml").write_text(changed + SET_RESOURCES, encoding="utf-8")
    return folder


def documented_requeue() -> str:
    """What docs/cluster.md has running beside Snakemake where preempted jobs are cancelled, without its loop."""
    page = (REPOSITORY / "docs/cluster.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^while sleep \d+; do (.*); done$", page, flags=re.MULTILINE)
    return str(command)


def preempt(search: ClusterSearch, job: int) -> Job:
    """Have a job in the midst of a trial make way; the other job has ended when its node is wanted again."""
    copy = search.copy(job)
    process = search.freeze(copy, slot=job)
    (node,) = copy.nodes
    urgent = ["--partition=all", f"--nodelist={node}", f"--mem={CONFIG['resources']['search']['mem_mb']}"]
    search.lab.client("sbatch", "--output=/dev/null", *urgent, "--wrap", "sleep 1")
    search.wait_until(f"Slurm to preempt job {copy.id}", lambda: is_preempted(search, job))
    with suppress(psutil.NoSuchProcess):
        process.resume()  # to hear that it must stop
    return copy


def is_preempted(search: ClusterSearch, job: int) -> bool:
    first = search.copies(job)[0]
    return first.state != "RUNNING" or first.fields.get("PreemptTime", "None") != "None"


def start_now(search: ClusterSearch, job: Job) -> None:
    """Spare a requeued job the two minutes that Slurm has it wait."""

    def is_pending() -> bool:
        return next(each.state for each in search.lab.jobs(settled=False) if each.id == job.id) == "PENDING"

    search.wait_until(f"Slurm to requeue job {job.id}", is_pending)
    search.lab.client("scontrol", "update", f"JobId={job.id}", "StartTime=now")


def preempt_and_requeue(search: ClusterSearch) -> None:
    start_now(search, preempt(search, REQUEUED))


def preempt_and_cancel(search: ClusterSearch) -> None:
    copy = preempt(search, CANCELLED)
    search.wait_until("a cancelled job", lambda: search.copies(CANCELLED)[0].state == "PREEMPTED")
    search.wait_until("Snakemake to see it", lambda: "A Job preemption" in search.printed)
    subprocess.run(["sh", "-c", documented_requeue()], env=search.lab.environment, check=True)
    start_now(search, copy)


def preempt_with_warning(search: ClusterSearch) -> None:
    preempt(search, WARNED)


@pytest.fixture(scope="module")
def preempted(
    slurm_lab: SlurmLab,
    copy_repository: Callable[[Path], None],
    small_dataset: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ClusterSearch]:
    folder = tmp_path_factory.mktemp("preempted")
    clone = folder / "ensembleflow"
    copy_repository(clone)
    search = search_of_clone(slurm_lab, clone, CONFIG, small_dataset, preemptible_profile(folder / "mycluster"))
    try:
        with ThreadPoolExecutor() as pool, aborted_together([search]):
            search.start(*search.job_outputs(3))
            faults = [
                pool.submit(fault, search) for fault in (preempt_and_requeue, preempt_and_cancel, preempt_with_warning)
            ]
            ended, _ = wait(faults, return_when=FIRST_EXCEPTION)
            for fault in ended:
                fault.result()
            search.finish()
        yield search
    finally:
        search.sweep()


@pytest.mark.parametrize(
    ("job", "states", "restarts"),
    [(REQUEUED, ["COMPLETED"], "1"), (CANCELLED, ["COMPLETED"], "1"), (WARNED, ["FAILED", "COMPLETED"], "0")],
)
def test_slurm_restarts_a_job_or_snakemake_submits_it_again(
    preempted: ClusterSearch, job: int, states: list[str], restarts: str
) -> None:
    copies = preempted.copies(job, settled=True)
    assert [copy.state for copy in copies] == states
    assert {copy.fields["Partition"] for copy in copies} == {PARTITIONS[job]}
    assert {copy.fields["Restarts"] for copy in copies} == {restarts}


def test_every_slot_is_filled_once(preempted: ClusterSearch, tmp_path: Path) -> None:
    assert_each_slot_is_filled_once(preempted.search_dir, 3, tmp_path)


def test_each_epoch_is_trained_once_and_in_order(preempted: ClusterSearch, tmp_path: Path) -> None:
    assert_each_epoch_is_trained_once(preempted.search_dir, 3, MAX_EPOCHS, tmp_path)


def test_the_results_are_as_if_nothing_had_happened(
    preempted: ClusterSearch, undisturbed_search: Path, tmp_path: Path
) -> None:
    assert_same_results(preempted.search_dir, undisturbed_search, 3, tmp_path)


def test_a_preempted_job_leaves_its_slot_free(preempted: ClusterSearch) -> None:
    for job in range(3):
        assert "from dead process" not in preempted.log(job), "its lease was still there"
