"""Rule allocate_ensemble: `ensembleflow.allocation.allocate_ensemble`."""

from pathlib import Path

from ensembleflow.allocation import allocate_ensemble
from ensembleflow.config import AllocationConfig
from ensembleflow.io import rule_log

with rule_log(snakemake.log[0]):
    allocate_ensemble(
        selection_json=snakemake.input.ensemble,
        exported_dir=snakemake.input.exported,
        predictions_h5=snakemake.input.predictions,
        costs_csv=snakemake.input.costs,
        dataset_h5=snakemake.input.dataset,
        config=AllocationConfig.model_validate_json(snakemake.params.allocation),
        n_devices=int(snakemake.wildcards.n),
        output_json=snakemake.output.allocation,
        output_csv=snakemake.output.search,
        profiles_csv=snakemake.output.profiles,
        cascade_json=next(iter(snakemake.input.cascade), None),
        store_dir=Path(snakemake.output.allocation).parents[1] / "store",
    )
