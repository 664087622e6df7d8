"""Rule rank_models: `ensembleflow.library.rank_models`."""

import json

from ensembleflow.io import rule_log
from ensembleflow.library import rank_models

with rule_log(snakemake.log[0]):
    rank_models(
        snakemake.input.trials,
        snakemake.input.dataset,
        **json.loads(snakemake.params.library),
        models_csv=snakemake.output.models,
    )
