"""Rule select_ensemble: `ensembleflow.selection.select_ensemble`."""

from ensembleflow.config import SelectionConfig
from ensembleflow.io import rule_log
from ensembleflow.selection import select_ensemble

with rule_log(snakemake.log[0]):
    select_ensemble(
        predictions_path=snakemake.input.predictions,
        costs_path=snakemake.input.costs,
        config=SelectionConfig.model_validate_json(snakemake.params.selection),
        budget=snakemake.wildcards.budget,
        output_path=snakemake.output.ensemble,
    )
