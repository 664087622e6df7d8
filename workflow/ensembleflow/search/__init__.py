"""The hyperparameter search: fixed slots, resumable trials, frozen tables."""

from ensembleflow.search.job import run_search_job
from ensembleflow.search.open_job import SearchJob
from ensembleflow.search.tables import freeze_tables

__all__ = ["SearchJob", "freeze_tables", "run_search_job"]
