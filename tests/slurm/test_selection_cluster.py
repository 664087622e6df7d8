"""A selection whose samples are shared by Dask workers on the nodes of one Slurm job."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from ensembleflow.io import create_hdf5
from ensembleflow.library import open_predictions
from ensembleflow.selection import smobf
from support.cluster_search import QUICK_SNAKEMAKE
from support.slurm_lab import SlurmLab

STUDY = "digits-hyperband-s0"
N_MODELS, N_NODES = 8, 2
# Three blocks of samples, so that both nodes have some.
N_SAMPLES = 2 * 2**20 + 5000
COSTS = [1.0 + 0.1 * place for place in range(N_MODELS)]
CONFIG = f"""\
selection:
  budgets: [5x]
resources:
  selection:
    cluster: slurm
    nodes: {N_NODES}
    threads: 1
    mem_mb: 3000
    runtime_minutes: 10
"""


def write_library(folder: Path) -> None:
    """True-class probabilities of a segmentation set, as the library stage would have written them."""
    rng = np.random.default_rng(0)
    with create_hdf5(folder / "predictions.h5", "predictions", 1) as file:
        file.attrs["study"], file.attrs["dataset_checksum"] = STUDY, "0" * 64
        file.attrs["class_names"] = np.array(list("ab"), dtype=h5py.string_dtype())
        file.create_dataset("models", data=[f"trial-{i:05}" for i in range(N_MODELS)], dtype=h5py.string_dtype())
        for split, n_samples in (("valid", N_SAMPLES), ("test", 1000)):
            group = file.create_group(split)
            values = rng.beta(3, 1, (N_MODELS, n_samples))
            group.create_dataset("true_class_probability", data=values.astype(np.float16))
            group.create_dataset("labels", data=np.zeros(n_samples, dtype=np.int64))
    rows = [f"trial-{i:05},{cost}" for i, cost in enumerate(COSTS)]
    (folder / "costs.csv").write_text("\n".join(["model,cost_seconds", *rows, ""]), encoding="utf-8")


@pytest.fixture(scope="module")
def clone(copy_repository: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone") / "ensembleflow"
    copy_repository(folder)
    (folder / "nodes.yaml").write_text(CONFIG, encoding="utf-8")
    library = folder / "results" / STUDY / "library"
    library.mkdir(parents=True)
    write_library(library)
    return folder


def test_two_nodes_of_one_job_choose_the_members_of_one_thread(slurm_lab: SlurmLab, clone: Path) -> None:
    target = f"results/{STUDY}/selection/budget-5x.json"
    command = [sys.executable, str(QUICK_SNAKEMAKE), "--profile", "slurm", "--configfile", "nodes.yaml"]
    earlier = {job.id for job in slurm_lab.jobs()}
    done = subprocess.run(
        [*command, "--allowed-rules", "select_ensemble", "--", target],
        cwd=clone,
        env=slurm_lab.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    log = clone / f"results/logs/{STUDY}/select_ensemble/budget-5x.log"
    said = done.stdout + done.stderr + (log.read_text(encoding="utf-8") if log.exists() else "")
    assert done.returncode == 0, said
    (job,) = [job for job in slurm_lab.jobs() if job.id not in earlier]
    assert len(job.nodes) == N_NODES
    tasks = [task for task in slurm_lab.tasks() if task.job == job.id]
    workers = {task.node for task in tasks if task.step == max(task.step for task in tasks)}
    assert workers == set(job.nodes)
    assert "Dask dashboard of the selection: http://127.0.0.1:" in said
    assert "only 1 of 2 Dask workers" not in said
    assert (log.parent / "budget-5x.dask.html").stat().st_size > 10_000
    assert not list(log.parent.glob(".dask-*"))
    chosen = json.loads((clone / target).read_text(encoding="utf-8"))
    with open_predictions(clone / f"results/{STUDY}/library/predictions.h5") as predictions:
        expected = smobf(predictions, None, COSTS, budget="5x")
        assert chosen["members"] == [predictions.models[member] for member in expected.members]
    assert len(chosen["members"]) > 1
    assert chosen["valid"]["error"] is None
    assert chosen["valid"]["cross_entropy"] == pytest.approx(expected.loss, abs=1e-12)
