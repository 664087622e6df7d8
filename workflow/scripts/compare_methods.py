"""Rule compare_methods: `ensembleflow.selection.compare_methods`."""

from ensembleflow.config import SelectionConfig
from ensembleflow.io import rule_log
from ensembleflow.selection import compare_methods, selection_workers

with (
    rule_log(snakemake.log[0]),
    selection_workers(
        n_workers=snakemake.threads,
        memory_bytes=snakemake.resources.mem_mb * 10**6,
        use_gpu=snakemake.resources.gpu > 0,
    ) as make_workers,
):
    compare_methods(
        predictions_path=snakemake.input.predictions,
        costs_path=snakemake.input.costs,
        budget_json_paths=snakemake.input.ensembles,
        config=SelectionConfig.model_validate_json(snakemake.params.selection),
        output_csv=snakemake.output.comparison,
        fronts_csv=snakemake.output.fronts,
        make_workers=make_workers,
        n_threads=snakemake.threads,
    )
