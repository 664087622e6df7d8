"""One Slurm cluster for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from slurm_lab import SlurmLab, why_unavailable


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
