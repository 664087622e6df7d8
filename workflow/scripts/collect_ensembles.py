"""Rule collect_ensembles: `ensembleflow.selection.collect_ensembles`."""

from ensembleflow.io import rule_log
from ensembleflow.selection import collect_ensembles

with rule_log(snakemake.log[0]):
    collect_ensembles(
        snakemake.input.ensembles, snakemake.output.ensembles, snakemake.output.pareto, snakemake.output.trace
    )
