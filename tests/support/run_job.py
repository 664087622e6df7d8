"""Run one search job in a process of its own: `run_job.py CONFIG.json JOB DATASET SEARCH_DIR`."""

import sys
from pathlib import Path

from ensembleflow.config import Config
from ensembleflow.io import rule_log
from ensembleflow.planning.search_plan import plan_job
from ensembleflow.search import JobSpec, run_search_job

config_json, job, dataset, search_dir = sys.argv[1:]
config = Config.model_validate_json(Path(config_json).read_text())
search = Path(search_dir)
search.mkdir(parents=True, exist_ok=True)
with rule_log(search / f"job-{job}.log"):
    run_search_job(
        JobSpec(
            plan_json=plan_job(config, int(job)),
            dataset_path=dataset,
            search_dir=str(search),
            storage_url=config.search.storage,
            n_trials=config.search.n_trials,
            metric=config.search.metric,
        ),
        search / "trials" / f"job-{job}.json",
        search / "models" / f"job-{job}",
        config.resources.search.concurrent_trials,
    )
