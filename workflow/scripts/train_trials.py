"""Rule train_trials: `ensembleflow.search.run_search_job`."""

from pathlib import Path

from ensembleflow.io import rule_log
from ensembleflow.search import JobSpec, run_search_job

with rule_log(snakemake.log[0], snakemake.resources.attempt):
    search = snakemake.config["search"]
    run_search_job(
        JobSpec(
            plan_json=snakemake.params.plan,
            dataset_path=snakemake.input.dataset,
            search_dir=str(Path(snakemake.output.trials).parents[1]),
            storage_url=search["storage"],
            threads=snakemake.threads,
            use_gpu=snakemake.resources.gpu > 0,
            n_trials=search["n_trials"],
            metric=search["metric"],
        ),
        output_json=snakemake.output.trials,
        output_models=snakemake.output.models,
        concurrent_trials=snakemake.config["resources"]["search"]["concurrent_trials"],
    )
