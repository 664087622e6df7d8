"""The hyperparameter search: fixed slots, resumable trials, frozen tables."""

from typing import TYPE_CHECKING

from ensembleflow.lazy_names import lazy_names

if TYPE_CHECKING:
    from ensembleflow.search.job import run_search_job
    from ensembleflow.search.job_spec import JobSpec
    from ensembleflow.search.study_family import check_study_family
    from ensembleflow.search.tables import freeze_tables

__all__ = ["JobSpec", "check_study_family", "freeze_tables", "run_search_job"]

# The report reads the tables where neither Optuna nor Keras is installed.
__getattr__ = lazy_names(
    __name__,
    {
        "JobSpec": "job_spec",
        "check_study_family": "study_family",
        "freeze_tables": "tables",
        "run_search_job": "job",
    },
)
