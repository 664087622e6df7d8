"""What a run makes of its config: what each dataset file and search job depends on, and a study's own config."""

from ensembleflow.planning.dataset_plan import plan_dataset, planned_dataset
from ensembleflow.planning.search_plan import SearchPlan, earlier_jobs, plan_family, plan_job, search_jobs
from ensembleflow.planning.studies import study_config

__all__ = [
    "SearchPlan",
    "earlier_jobs",
    "plan_dataset",
    "plan_family",
    "plan_job",
    "planned_dataset",
    "search_jobs",
    "study_config",
]
