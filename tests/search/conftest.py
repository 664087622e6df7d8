"""A small dataset and a search config that trains in a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensembleflow.config import Config, DatasetConfig, parse_config
from ensembleflow.datasets import prepare_dataset

SMALL_SPACE = {
    "batch_size": [64, 64],
    "stem_filters": [4, 4],
    "stage_filters": [4, 4],
    "blocks_stage_1": [1, 1],
    "blocks_stage_2": [1, 1],
    "block": ["v1"],
}


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("datasets") / "digits.h5"
    prepare_dataset(DatasetConfig(), path)
    return path


@pytest.fixture
def small_config() -> Config:
    return search_config()


def search_config(**search: object) -> Config:
    values = {"n_trials": 4, "trials_per_job": 4, "max_epochs": 3, **search}
    values["space"] = {**SMALL_SPACE, **values.get("space", {})}  # type: ignore[dict-item]
    return parse_config({"search": values, "library": {"keep_fraction": 0.5}})
