"""The library of models: ranked, the best kept, their predictions cached and their costs measured."""

from typing import TYPE_CHECKING

from ensembleflow.lazy_names import lazy_names

if TYPE_CHECKING:
    from ensembleflow.library.baseline import fit_baseline
    from ensembleflow.library.cache import cache_predictions
    from ensembleflow.library.cost_engine import engine_of_costs
    from ensembleflow.library.costs import measure_costs
    from ensembleflow.library.predictions import FileSource, Predictions, open_predictions
    from ensembleflow.library.predictions_file import PredictionsWriter, create_predictions
    from ensembleflow.library.ranking import rank_models

__all__ = [
    "FileSource",
    "Predictions",
    "PredictionsWriter",
    "cache_predictions",
    "create_predictions",
    "engine_of_costs",
    "fit_baseline",
    "measure_costs",
    "open_predictions",
    "rank_models",
]

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("FileSource", "Predictions", "open_predictions"), "predictions"),
        **dict.fromkeys(("PredictionsWriter", "create_predictions"), "predictions_file"),
        "cache_predictions": "cache",
        "engine_of_costs": "cost_engine",
        "fit_baseline": "baseline",
        "measure_costs": "costs",
        "rank_models": "ranking",
    },
)
