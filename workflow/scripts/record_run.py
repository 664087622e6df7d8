"""Rule record_run: `ensembleflow.io.record_run`."""

from ensembleflow.io import record_run, rule_log

with rule_log(snakemake.log[0]):
    record_run(snakemake.params.config, snakemake.output.config, snakemake.output.provenance)
