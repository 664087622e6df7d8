"""Search jobs that share a node with several GPUs each see one of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.cluster_search import QUICK_SNAKEMAKE
from support.slurm_lab import SlurmLab

REPOSITORY = Path(__file__).parents[2]

# Asks for what `train_trials` asks for with `resources.search.gpus: 1`; a job ends when all have begun.
SNAKEFILE = """
N_GPUS = {n_gpus}

rule all:
    input: expand("job-{{job}}.txt", job=range(N_GPUS))

rule train_trials:
    output: "job-{{job}}.txt"
    threads: 1
    resources: mem_mb=500, runtime=10, gpu=1
    shell:
        "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES > begun-{{wildcards.job}}; "
        "until [ $(ls begun-* | wc -l) -eq {n_gpus} ]; do sleep 0.1; done; cp begun-{{wildcards.job}} {{output}}"
"""


@pytest.fixture(scope="module")
def seen(slurm_lab: SlurmLab, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Node and CUDA_VISIBLE_DEVICES of as many jobs as a node has GPUs, all running at once."""
    folder = tmp_path_factory.mktemp("gpus")
    shutil.copytree(REPOSITORY / "profiles", folder / "profiles")
    (folder / "slurm").symlink_to("profiles/slurm")
    snakefile = SNAKEFILE.format(n_gpus=slurm_lab.n_gpus)
    (folder / "Snakefile").write_text(snakefile, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(QUICK_SNAKEMAKE), "--profile", "slurm"],
        cwd=folder,
        env=slurm_lab.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [(folder / f"job-{job}.txt").read_text(encoding="utf-8") for job in range(slurm_lab.n_gpus)]
    return [(node, device) for node, device in (line.split() for line in lines)]


def test_they_run_side_by_side_on_the_node_with_the_gpus(slurm_lab: SlurmLab, seen: list[tuple[str, str]]) -> None:
    assert slurm_lab.n_gpus > 1
    assert {node for node, _ in seen} == {slurm_lab.gpu_node}


def test_each_sees_one_gpu_and_no_two_the_same(slurm_lab: SlurmLab, seen: list[tuple[str, str]]) -> None:
    assert sorted(device for _, device in seen) == [str(index) for index in range(slurm_lab.n_gpus)]
