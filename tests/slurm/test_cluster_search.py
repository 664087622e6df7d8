"""A disturbed search that fails leaves nothing running and nobody waiting."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.cluster_search import ClusterSearch, aborted_together
from support.slurm_lab import SlurmLab


def a_search(lab: SlurmLab, folder: Path) -> ClusterSearch:
    return ClusterSearch(lab, folder, "study.yaml", "digits-random-s0")


def test_a_failure_ends_the_waits_of_other_threads_and_no_search_starts_again(
    slurm_lab: SlurmLab, tmp_path: Path
) -> None:
    searches = [a_search(slurm_lab, tmp_path / name) for name in ("disturbed", "restarted")]
    with ThreadPoolExecutor() as pool:
        with pytest.raises(ZeroDivisionError), aborted_together(searches):
            waits = [pool.submit(search.wait_until, "what never comes", lambda: False) for search in searches]
            raise ZeroDivisionError
        for wait in waits:
            with pytest.raises(AssertionError, match="given up"):
                wait.result()
    for search in searches:
        search.folder.mkdir()
        with pytest.raises(AssertionError, match="given up"):
            search.start("all")


def test_sweeping_cancels_the_searchs_jobs_and_no_others(slurm_lab: SlurmLab, tmp_path: Path) -> None:
    def submit(folder: Path) -> int:
        folder.mkdir()
        done = slurm_lab.client(
            "sbatch", "--parsable", f"--output={os.devnull}", f"--chdir={folder}", "--wrap", "sleep 300"
        )
        return int(done.stdout)

    own, other = submit(tmp_path / "own"), submit(tmp_path / "other")
    try:
        a_search(slurm_lab, tmp_path / "own").sweep()
        states = {job.id: job.state for job in slurm_lab.jobs()}
        assert states[own] == "CANCELLED"
        assert states[other] in ("PENDING", "RUNNING")
    finally:
        slurm_lab.client("scancel", str(other))
