"""Rule measure_costs: `ensembleflow.library.measure_costs`."""

from ensembleflow.config import CostConfig
from ensembleflow.io import rule_log
from ensembleflow.library import engine_of_costs, measure_costs

kept_costs = snakemake.input.get("kept_costs")

with rule_log(snakemake.log[0]):
    measure_costs(
        models_csv=snakemake.input.models,
        exported_dir=snakemake.input.exported,
        predictions_h5=snakemake.input.predictions,
        dataset_path=snakemake.input.dataset,
        config=CostConfig.model_validate_json(snakemake.params.cost),
        costs_csv=snakemake.output.costs,
        # A whole library's costs are held against those of its kept models.
        engine=engine_of_costs(kept_costs) if kept_costs else snakemake.params.engine,
    )
