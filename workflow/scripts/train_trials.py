"""Rule train_trials: `ensembleflow.search.run_search_job`."""

from pathlib import Path

from ensembleflow.io import rule_log
from ensembleflow.search import run_search_job

with rule_log(snakemake.log[0], snakemake.resources.attempt):
    run_search_job(
        plan_json=snakemake.params.plan,
        dataset_path=snakemake.input.dataset,
        search_dir=Path(snakemake.output.trials).parents[1],
        output_json=snakemake.output.trials,
        output_models=snakemake.output.models,
        threads=snakemake.threads,
        use_gpu=snakemake.resources.gpu > 0,
        n_trials=snakemake.config["search"]["n_trials"],
    )
