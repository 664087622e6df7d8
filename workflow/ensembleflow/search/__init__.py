"""The hyperparameter search: fixed slots, resumable trials, frozen tables."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ensembleflow.search.job import run_search_job
    from ensembleflow.search.job_spec import JobSpec
    from ensembleflow.search.tables import freeze_tables

__all__ = ["JobSpec", "freeze_tables", "run_search_job"]

_MODULES = {"JobSpec": "job_spec", "freeze_tables": "tables", "run_search_job": "job"}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the report reads the tables where neither Optuna nor Keras is installed.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
