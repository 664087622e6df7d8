"""Rule fit_baseline: `ensembleflow.library.fit_baseline`."""

from ensembleflow.config import BaselineConfig
from ensembleflow.io import rule_log
from ensembleflow.library import fit_baseline

with rule_log(snakemake.log[0]):
    fit_baseline(
        dataset_path=snakemake.input.dataset,
        config=BaselineConfig.model_validate_json(snakemake.params.baseline),
        baseline_json=snakemake.output.baseline,
        answers_csv=snakemake.output.answers,
    )
