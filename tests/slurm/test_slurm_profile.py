"""The Slurm profile keeps a workflow going when the cluster takes a job away."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.cluster_search import QUICK_SNAKEMAKE
from support.slurm_lab import Job, SlurmLab

REPOSITORY = Path(__file__).parents[2]

# The first attempt of either job waits to be taken away; the second ends at once.
SNAKEFILE = """
rule all:
    input: "cancelled.txt", "lost.txt"

rule wait:
    output: "{job}.txt"
    resources: mem_mb=200, runtime=10
    shell: "echo $SLURMD_NODENAME >> {wildcards.job}.attempts; "
           "[ $(wc -l < {wildcards.job}.attempts) -gt 1 ] || sleep 600; touch {output}"
"""


@dataclass(frozen=True)
class Run:
    """A finished Snakemake run of the file above; `jobs` are those of either name, in order."""

    returncode: int
    output: str
    made: set[str]
    lost_node: str
    cancelled: list[Job]
    lost: list[Job]


@pytest.fixture(scope="module")
def run(slurm_lab: SlurmLab, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("profile")
    shutil.copytree(REPOSITORY / "profiles", folder / "profiles")
    (folder / "slurm").symlink_to("profiles/slurm")
    (folder / "Snakefile").write_text(SNAKEFILE, encoding="utf-8")
    earlier = {job.id for job in slurm_lab.jobs()}
    # The other jobs' node must stay alive, so the two first attempts may not share one: 2 cores a node.
    with subprocess.Popen(
        [sys.executable, str(QUICK_SNAKEMAKE), "--profile", "slurm", "--set-threads", "wait=2"],
        cwd=folder,
        env=slurm_lab.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            jobs: dict[str, Job] = {}
            for name in ("cancelled", "lost"):
                _wait_for(lambda name=name: (folder / f"{name}.attempts").exists(), process)  # type: ignore[misc]
                jobs[name] = _jobs_of(slurm_lab, name, earlier)[0]
            slurm_lab.client("scancel", str(jobs["cancelled"].id))
            (lost_node,) = jobs["lost"].nodes
            slurm_lab.node_down(lost_node)
            output, _ = process.communicate(timeout=150)
        finally:
            process.kill()
    made = {path.name for path in folder.glob("*.txt")}
    # Only now: the orphaned first attempt, ended when its node is back, deletes the file that the second one made.
    slurm_lab.node_up(lost_node)
    return Run(
        process.returncode,
        output,
        made,
        lost_node,
        _jobs_of(slurm_lab, "cancelled", earlier),
        _jobs_of(slurm_lab, "lost", earlier),
    )


def _jobs_of(lab: SlurmLab, name: str, earlier: set[int]) -> list[Job]:
    return [job for job in lab.jobs() if job.id not in earlier and job.comment == f"rule_wait_wildcards_{name}"]


def _wait_for(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline, "the first attempts do not start"
        time.sleep(0.1)


def test_the_workflow_ends_well(run: Run) -> None:
    assert run.returncode == 0, run.output
    assert run.made == {"cancelled.txt", "lost.txt"}


def test_a_cancelled_job_is_submitted_again(run: Run) -> None:
    assert [job.state for job in run.cancelled] == ["CANCELLED", "COMPLETED"]


def test_a_job_of_a_dead_node_is_submitted_again_by_snakemake_and_not_by_slurm(run: Run) -> None:
    assert [job.state for job in run.lost] == ["NODE_FAIL", "COMPLETED"]
    assert [job.fields["Restarts"] for job in run.lost] == ["0", "0"]
    assert run.lost[0].nodes == (run.lost_node,) != run.lost[1].nodes


def test_the_jobs_names_tell_the_project(run: Run) -> None:
    (name,) = {job.name for job in (*run.cancelled, *run.lost)}
    assert name.startswith("ensembleflow_")
    assert f"SLURM run ID: {name}" in run.output
