"""Rule cache_predictions: `ensembleflow.library.cache_predictions`."""

from ensembleflow.config import PredictionsConfig
from ensembleflow.io import rule_log
from ensembleflow.library import cache_predictions

with rule_log(snakemake.log[0]):
    cache_predictions(
        models_csv=snakemake.input.models,
        model_folders=snakemake.input.trained,
        dataset_path=snakemake.input.dataset,
        study=snakemake.wildcards.study,
        config=PredictionsConfig.model_validate_json(snakemake.params.predictions),
        exported_dir=snakemake.output.exported,
        predictions_h5=snakemake.output.predictions,
        threads=snakemake.threads,
        use_gpu=snakemake.resources.gpu > 0,
        families=snakemake.input.families,
    )
