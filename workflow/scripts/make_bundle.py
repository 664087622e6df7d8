"""Rule make_bundle: `ensembleflow.serving.make_bundle`."""

from pathlib import Path

from ensembleflow.io import rule_log
from ensembleflow.serving import make_bundle

with rule_log(snakemake.log[0]):
    make_bundle(
        selection_json=snakemake.input.ensemble,
        allocation_json=snakemake.input.allocation,
        exported_dir=snakemake.input.exported,
        predictions_h5=snakemake.input.predictions,
        dataset_h5=snakemake.input.dataset,
        output_dir=snakemake.output.bundle,
        cascade_json=next(iter(snakemake.input.cascade), None),
        store_dir=Path(snakemake.output.bundle).parent / "store",
    )
