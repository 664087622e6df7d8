"""A search that trains in a second."""

from __future__ import annotations

from ensembleflow.config import Config, parse_config

SMALL_SPACE = {
    "batch_size": [64, 64],
    "stem_filters": [4, 4],
    "stage_filters": [4, 4],
    "blocks_stage_1": [1, 1],
    "blocks_stage_2": [1, 1],
    "block": ["v1"],
}


def search_config(**search: object) -> Config:
    values = {"n_trials": 4, "trials_per_job": 4, "max_epochs": 3, "min_epochs": 1, "metric": "error", **search}
    values["space"] = {**SMALL_SPACE, **values.get("space", {})}  # type: ignore[dict-item]
    return parse_config({"search": values, "library": {"keep_fraction": 0.5}})
