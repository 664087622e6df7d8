"""The digits, prepared once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import prepare_dataset


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("datasets") / "digits.h5"
    prepare_dataset(DatasetConfig(), path)
    return path
