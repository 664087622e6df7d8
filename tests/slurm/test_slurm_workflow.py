"""The whole workflow on a cluster: `snakemake --profile slurm`, with a GPU for each search job."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ensembleflow.config import Config, load_config
from ensembleflow.planning.search_plan import search_jobs
from support.cluster_search import QUICK_SNAKEMAKE, SEARCH_RULE
from support.slurm_lab import Job, SlurmLab, Task

CONFIG_FILES = ("config/tiny.yaml", "tests/slurm/one_gpu.yaml")


@dataclass(frozen=True)
class ClusterRun:
    """A finished run: what Snakemake said, what it made, and what Slurm recorded of it."""

    returncode: int
    output: str
    results: Path
    config: Config
    jobs: list[Job]
    tasks: list[Task]

    @property
    def study(self) -> Path:
        """The folder of the study's results."""
        return self.results / self.config.study

    @property
    def search_jobs(self) -> list[Job]:
        """Slurm's jobs of the search."""
        return [job for job in self.jobs if job.rule == SEARCH_RULE]


@pytest.fixture(scope="module")
def run(
    slurm_lab: SlurmLab, copy_repository: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory
) -> ClusterRun:
    clone = tmp_path_factory.mktemp("clone") / "ensembleflow"
    copy_repository(clone)
    earlier = {job.id for job in slurm_lab.jobs()}
    command = [sys.executable, str(QUICK_SNAKEMAKE), "--profile", "slurm", "--configfile", *CONFIG_FILES]
    done = subprocess.run(
        command,
        cwd=clone,
        env=slurm_lab.environment,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    config = load_config([clone / name for name in CONFIG_FILES])
    jobs = [job for job in slurm_lab.jobs() if job.id not in earlier]
    ids = {job.id for job in jobs}
    return ClusterRun(
        returncode=done.returncode,
        output=done.stdout + done.stderr,
        results=clone / config.results_dir,
        config=config,
        jobs=jobs,
        tasks=[task for task in slurm_lab.tasks() if task.job in ids],
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_workflow_ends_well(run: ClusterRun) -> None:
    assert run.returncode == 0, run.output


def test_each_search_job_is_a_slurm_job_of_its_own(run: ClusterRun) -> None:
    expected = len(search_jobs(run.config.search))
    assert expected >= 2
    assert len(run.search_jobs) == expected
    assert len({job.comment for job in run.search_jobs}) == expected
    assert {job.state for job in run.search_jobs} == {"COMPLETED"}


def test_each_search_job_had_the_gpu_it_asked_for(run: ClusterRun, slurm_lab: SlurmLab) -> None:
    for job in run.search_jobs:
        assert job.nodes == (slurm_lab.gpu_node,)
        assert job.gpus == 1
        assert job.fields["TresPerJob"] == "gres:gpu:1"
        (device,) = {task.cuda_visible_devices for task in run.tasks if task.job == job.id}
        assert device in [str(index) for index in range(slurm_lab.n_gpus)]


def test_no_other_job_was_given_a_gpu(run: ClusterRun) -> None:
    others = [job for job in run.jobs if job.rule != SEARCH_RULE]
    assert others
    assert {job.gpus for job in others} == {0}


def test_the_search_code_itself_saw_the_gpu(run: ClusterRun) -> None:
    for job in run.search_jobs:
        number = job.comment.rpartition("_")[2]
        record = json.loads((run.study / f"search/trials/job-{number}.json").read_text(encoding="utf-8"))
        given = {task.cuda_visible_devices for task in run.tasks if task.job == job.id}
        assert {record["provenance"]["machine"]["cuda_visible_devices"]} == given


def test_the_jobs_asked_for_what_the_config_says(run: ClusterRun) -> None:
    asked = run.config.resources.search
    for job in run.search_jobs:
        assert job.cpus == asked.threads
        assert job.fields["MinMemoryNode"] in (f"{asked.mem_mb}M", f"{asked.mem_mb / 1000:g}G")
        assert job.fields["TimeLimit"] == f"00:{asked.runtime_minutes:02d}:00"


def test_every_trial_is_in_the_library(run: ClusterRun) -> None:
    models = {row["model"] for row in _rows(run.study / "library/models.csv")}
    assert len(models) == run.config.search.n_trials


@pytest.mark.parametrize(
    "artefact", ["search/trials.csv", "search/epochs.csv", "library/predictions.h5", "selection/ensembles.csv"]
)
def test_the_stages_artefacts_are_there(run: ClusterRun, artefact: str) -> None:
    assert (run.study / artefact).stat().st_size > 0


def test_each_budget_has_a_whole_bundle(run: ClusterRun) -> None:
    for budget in run.config.selection.budgets:
        bundle = run.study / f"bundles/budget-{budget}"
        members = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["members"]
        assert members
        assert {path.name for path in (bundle / "members").iterdir()} == set(members)


def test_the_report_is_there(run: ClusterRun) -> None:
    figures = {path.stem for path in run.results.glob("figures/*.png")}
    assert figures
    assert figures == {path.stem for path in run.results.glob("figures/*.svg")}
    assert figures <= {path.stem for path in run.results.glob("tables/*.csv")}
    assert {row["budget"] for row in _rows(run.results / "tables/budgets.csv")} >= set(run.config.selection.budgets)


def test_nothing_is_left_to_do(run: ClusterRun) -> None:
    clone = run.results.parent
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", "--configfile", *CONFIG_FILES],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Nothing to be done" in done.stdout + done.stderr
