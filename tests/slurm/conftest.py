"""One Slurm cluster for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ensembleflow.config import DatasetConfig, parse_config
from ensembleflow.datasets import prepare_dataset
from support.slurm_lab import SlurmLab, why_unavailable
from support.whole_search import config_of, train_undisturbed


@pytest.fixture(scope="session")
def slurm_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmLab]:
    """Five nodes, the last with four fake GPUs; skipped without Slurm, except in CI, where that is a failure."""
    reason = why_unavailable()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with SlurmLab(tmp_path_factory.mktemp("slurm"), n_nodes=5, cores=2, memory_mb=8000, n_gpus=4) as lab:
        yield lab


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of `whole_search.CONFIG`, prepared."""
    dataset = tmp_path_factory.mktemp("dataset") / "digits.h5"
    prepare_dataset(DatasetConfig(), dataset)
    return dataset


@pytest.fixture(scope="session")
def undisturbed_search(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The search of `whole_search.CONFIG` in one process, without Slurm and Snakemake: what others must end with."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train_undisturbed(parse_config(config_of(trials_per_job=3)), small_dataset, folder)
    return folder
