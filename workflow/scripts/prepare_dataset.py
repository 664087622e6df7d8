"""Rule prepare_dataset: `ensembleflow.datasets.prepare_dataset`."""

from ensembleflow.datasets import prepare_dataset
from ensembleflow.io import rule_log
from ensembleflow.planning.dataset_plan import planned_dataset

with rule_log(snakemake.log[0]):
    config, _ = planned_dataset(snakemake.params.dataset)
    prepare_dataset(config, snakemake.output.dataset, threads=snakemake.threads)
