"""Rule freeze_tables: `ensembleflow.search.freeze_tables`."""

from ensembleflow.io import rule_log
from ensembleflow.search import freeze_tables

with rule_log(snakemake.log[0]):
    freeze_tables(snakemake.input.jobs, snakemake.output.trials, snakemake.output.epochs, snakemake.output.runs)
