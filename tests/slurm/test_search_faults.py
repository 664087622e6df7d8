"""Nothing of a search is lost or done twice, whatever the cluster or the user does to its jobs.

Two searches are disturbed, on one cluster and side by side, and compared with an undisturbed run of the same config.
In the midst of a trial a process is frozen (SIGSTOP) until its fault comes; so the faults find it there on any machine.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial

from cluster_search import ClusterSearch, aborted_together
from ensembleflow.config import Config, DatasetConfig, parse_config
from ensembleflow.datasets import prepare_dataset
from ensembleflow.search import freeze_tables
from slurm_lab import SlurmLab

RUN_JOB = Path(__file__).parents[1] / "search/run_job.py"
RESULTS = "results/digits-random-s0/search"
MAX_EPOCHS = 8
CONFIG: dict[str, Any] = {
    "search": {
        # Random, so that no trial depends on which others have ended before it.
        "algorithm": "random",
        "n_trials": 3,
        "trials_per_job": 1,
        "max_epochs": MAX_EPOCHS,
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
    "library": {"keep_fraction": 0.5},
    # More than half of a node's memory: each copy of a job has a node of its own.
    "resources": {"search": {"mem_mb": 5000, "runtime_minutes": 30}},
}


def config_of(**search: object) -> dict[str, Any]:
    return {**CONFIG, "search": {**CONFIG["search"], **search}}


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
    """Let a job come to the end of its time, which Slurm notices at its next look, twice a minute."""
    copy = search.copy(job)
    search.freeze(copy, slot=job)
    # The shortest limit is a minute; but a running job's end can be moved.
    soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 2))
    search.lab.client("scontrol", "update", f"JobId={copy.id}", f"EndTime={soon}")


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
    search.start(f"{RESULTS}/trials/job-0.json")
    process = search.freeze(search.copy(0), slot=0)
    search.kill()
    search.unlock()
    search.start(f"{RESULTS}/trials/job-0.json")
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
    slurm_lab: SlurmLab, copy_repository: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    dataset = tmp_path_factory.mktemp("dataset") / "digits.h5"
    prepare_dataset(DatasetConfig(), dataset)
    searches = []
    for name, config in (("disturbed", CONFIG), ("restarted", config_of(n_trials=2, trials_per_job=2))):
        clone = tmp_path_factory.mktemp(name) / "ensembleflow"
        copy_repository(clone)
        (clone / "results/datasets").mkdir(parents=True)
        shutil.copy(dataset, clone / "results/datasets/digits.h5")
        (clone / "study.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        searches.append(ClusterSearch(slurm_lab, clone, "study.yaml", parse_config(config).study))
    disturbed, restarted = searches
    undisturbed = tmp_path_factory.mktemp("undisturbed")
    try:
        with ThreadPoolExecutor() as pool, aborted_together(searches):
            disturbed.start(*(f"{RESULTS}/trials/job-{job}.json" for job in range(3)))
            faults = [
                pool.submit(cancel_and_warn, disturbed, 0),
                pool.submit(take_node_away, disturbed, 1),
                pool.submit(exceed_time_limit, disturbed, 2),
                pool.submit(kill_workflow, restarted),
            ]
            train_undisturbed(parse_config(config_of(trials_per_job=3)), dataset, undisturbed)
            ended, _ = wait(faults, return_when=FIRST_EXCEPTION)
            for fault in ended:
                fault.result()
            disturbed.finish()
        yield Runs(undisturbed, disturbed, restarted)
    finally:
        for search in searches:
            search.sweep()


def train_undisturbed(config: Config, dataset: Path, search_dir: Path) -> None:
    """All trials in one process, without Slurm and Snakemake."""
    (search_dir / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    command = [sys.executable, str(RUN_JOB), str(search_dir / "config.json"), "0", str(dataset), str(search_dir)]
    subprocess.run(command, check=True)


# ---- What must hold --------------------------------------------------------------------------------------------------


def tables(search_dir: Path, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of trials and of epochs, which cannot be made unless each slot is filled once."""
    paths = [folder / f"{name}.csv" for name in ("trials", "epochs", "runs")]
    freeze_tables(sorted((search_dir / "trials").iterdir()), *paths)
    return pd.read_csv(paths[0]), pd.read_csv(paths[1])


def told_to_optuna(search_dir: Path) -> list[FrozenTrial]:
    path = str(search_dir / "study.journal")
    storage = JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
    (study,) = storage.get_all_studies()
    return storage.get_all_trials(study._study_id)


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
    search_dir = getattr(runs, name).search_dir
    trials, _ = tables(search_dir, tmp_path)
    assert list(trials["slot"]) == list(range(n_trials))
    assert [trial.number for trial in told_to_optuna(search_dir)] == list(range(n_trials))
    assert all(trial.state.is_finished() for trial in told_to_optuna(search_dir))
    assert not list(search_dir.glob("store/*/*.lease"))


@EACH_SEARCH
def test_each_epoch_is_trained_once_and_in_order(runs: Runs, name: str, n_trials: int, tmp_path: Path) -> None:
    search_dir = getattr(runs, name).search_dir
    _, epochs = tables(search_dir, tmp_path)
    for slot in range(n_trials):
        own = epochs[epochs["slot"] == slot]
        assert list(own["epoch"]) == list(range(1, MAX_EPOCHS + 1))
        assert (own["started_at"].iloc[1:].to_numpy() >= own["ended_at"].iloc[:-1].to_numpy()).all()
    lines = [json.loads(line) for line in (search_dir / "study.journal").read_text().splitlines()]
    reports = Counter((line["trial_id"], line["step"]) for line in lines if "step" in line)
    assert len(reports) == n_trials * MAX_EPOCHS
    assert set(reports.values()) == {1}


@EACH_SEARCH
def test_the_results_are_as_if_nothing_had_happened(runs: Runs, name: str, n_trials: int, tmp_path: Path) -> None:
    for table, expected in zip(
        tables(getattr(runs, name).search_dir, tmp_path), tables(runs.undisturbed, tmp_path), strict=True
    ):
        columns = [
            name for name in map(str, expected) if not re.search(r"_at$|_seconds$|^(attempts|host|device)", name)
        ]
        assert {"slot", "valid_error", "train_error"} & set(columns)
        pd.testing.assert_frame_equal(
            table[columns], expected.loc[expected["slot"] < n_trials, columns], check_exact=True
        )


def test_a_job_that_was_told_to_stop_leaves_its_slot_free(runs: Runs) -> None:
    for job in (0, 2):
        assert "from dead process" not in runs.disturbed.log(job), "its lease was still there"
