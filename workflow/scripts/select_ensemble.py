"""Rule select_ensemble: `ensembleflow.selection.select_ensemble`."""

from pathlib import Path

from ensembleflow.config import SelectionConfig
from ensembleflow.io import rule_log
from ensembleflow.selection import select_ensemble, selection_workers

with (
    rule_log(snakemake.log[0]),
    selection_workers(
        cluster=snakemake.config["resources"]["selection"]["cluster"],
        n_workers=snakemake.threads,
        n_nodes=snakemake.resources.nodes,
        memory_bytes=snakemake.resources.mem_mb * 10**6,
        scratch_dir=Path(snakemake.log[0]).parent,
        report_html=snakemake.log.dask,
        use_gpu=snakemake.resources.gpu > 0,
    ) as make_workers,
):
    select_ensemble(
        predictions_path=snakemake.input.predictions,
        costs_path=snakemake.input.costs,
        config=SelectionConfig.model_validate_json(snakemake.params.selection),
        budget=snakemake.wildcards.budget,
        output_path=snakemake.output.ensemble,
        make_workers=make_workers,
        n_threads=snakemake.threads,
    )
