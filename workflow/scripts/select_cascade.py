"""Rule select_cascade: `ensembleflow.selection.select_cascade`."""

from ensembleflow.config import CascadeConfig
from ensembleflow.io import rule_log
from ensembleflow.selection import select_cascade

with rule_log(snakemake.log[0]):
    select_cascade(
        selection_json=snakemake.input.ensemble,
        predictions_h5=snakemake.input.predictions,
        costs_csv=snakemake.input.costs,
        config=CascadeConfig.model_validate_json(snakemake.params.cascade),
        output_json=snakemake.output.cascade,
    )
