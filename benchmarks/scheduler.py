"""What Snakemake and Slurm cost a job: jobs submitted per second, and seconds of a job that does nothing.

    sudo python benchmarks/scheduler.py             # 50 jobs on a Slurm of this machine (tests/support/slurm_lab.py)
    sudo python benchmarks/scheduler.py --jobs 200
    sudo python benchmarks/scheduler.py --jobs 200 --array     # submitted as a job array

All jobs are submitted at once, as for a search whose jobs fit the profile's `jobs`; one node with one core runs them
one after the other, so that a job's time is not shared with another's. Only the first few are waited for.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.slurm_lab import SlurmLab  # noqa: E402 - it lies beside the tests that use it

SNAKEFILE = """
rule all:
    input:
        expand("out/{job}.txt", job=range(JOBS))

rule nothing:
    output:
        "out/{job}.txt"
    script:
        "nothing.py"
"""
SCRIPT = """
import json, time, psutil
with open(snakemake.output[0], "w") as file:
    json.dump({"started_at": psutil.Process().create_time(), "script_at": time.time()}, file)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--wait-for", type=int, default=5, help="jobs whose end is waited for")
    parser.add_argument("--array", action="store_true", help="submit the jobs as a job array")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "Snakefile").write_text(SNAKEFILE.replace("JOBS", str(arguments.jobs)))
        (folder / "nothing.py").write_text(SCRIPT)
        with (
            SlurmLab(folder / "lab", n_nodes=1, cores=1, n_gpus=0) as lab,
            running_snakemake(folder, lab, arguments.jobs, array=arguments.array) as started_at,
        ):
            jobs = wait_for(lab, arguments.jobs, arguments.wait_for, folder / "snakemake.log")
    submitted = sorted(_seconds(job.submitted) for job in jobs)
    ended = [_seconds(job.ended) - _seconds(job.started) for job in jobs if job.state == "COMPLETED"]
    span = submitted[-1] - submitted[0]
    print(f"Snakemake's start until the first submission: about {submitted[0] - started_at:.0f} s")
    rate = (len(jobs) - 1) / max(span, 1)
    print(f"{len(submitted)} jobs submitted in {span:.0f} s (told to the second): {rate:.1f} a second")
    print(f"a job that does nothing, from Slurm's start of it to its end: {median(ended):.1f} s of {sorted(ended)}")


@contextmanager
def running_snakemake(folder: Path, lab: SlurmLab, n_jobs: int, *, array: bool) -> Iterator[float]:
    command = [sys.executable, "-m", "snakemake", "--executor", "slurm", "--jobs", str(n_jobs)]
    if array:
        # All jobs at once: see "Job arrays" in docs/cluster.md.
        command += ["--slurm-array-jobs", "nothing", "--slurm-array-limit", "30", "--max-jobs-per-timespan", "1000/1s"]
    options = ["--slurm-status-command", "squeue", "--default-resources", "mem_mb=100", "runtime=10"]
    with open(folder / "snakemake.log", "wb") as log:
        process = subprocess.Popen([*command, *options], cwd=folder, env=lab.environment, stdout=log, stderr=log)
    try:
        yield time.time()
    finally:
        process.kill()
        process.wait()


class SlurmJob(NamedTuple):
    """A job, or a member of a job array, and when it was submitted, started and ended, in whole seconds."""

    state: str
    submitted: str
    started: str
    ended: str


def wait_for(lab: SlurmLab, n_jobs: int, n_ended: int, log: Path) -> list[SlurmJob]:
    """What Slurm knows of the jobs, when all are submitted and some have ended."""
    command = ("squeue", "--array", "--states=all", "--noheader", "--format=%T %V %S %e")
    deadline = time.time() + 600
    while time.time() < deadline:
        jobs = [SlurmJob(*line.split()) for line in lab.client(*command).stdout.splitlines()]
        if len(jobs) >= n_jobs and sum(job.state == "COMPLETED" for job in jobs) >= n_ended:
            return jobs
        time.sleep(1.0)
    sys.exit(log.read_text(errors="replace"))


def _seconds(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


if __name__ == "__main__":
    main()
