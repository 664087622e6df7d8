"""Rule study_pruning: `ensembleflow.selection.write_pruning_study`."""

import json

from ensembleflow.io import rule_log
from ensembleflow.selection import write_pruning_study

with rule_log(snakemake.log[0]):
    write_pruning_study(
        predictions_path=snakemake.input.predictions,
        costs_path=snakemake.input.costs,
        output_csv=snakemake.output.table,
        **json.loads(snakemake.params.study),
    )
