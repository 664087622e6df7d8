"""All models of a study, cached and measured: what could have been selected from some of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.config import SelectionConfig
from ensembleflow.library import Predictions, open_predictions
from ensembleflow.models.metrics import classification_metrics
from ensembleflow.planning.paper_plan import WHOLE_LIBRARY
from ensembleflow.report.paper.sources import Study
from ensembleflow.selection.arrays import smobf
from ensembleflow.selection.budget import Spending
from ensembleflow.selection.costs import read_costs

__all__ = ["WholeLibrary", "open_whole_library"]

_KEPT_COSTS = "library/costs.csv"


class WholeLibrary:
    """The opened cache of all models of a study.

    Attributes:
        models: their ids, the best by the study's metric first.
        costs: by column, (models,) in the same order.
    """

    def __init__(self, predictions: Predictions, costs: dict[str, npt.NDArray[np.float64]], metric: str) -> None:
        self.models, self.costs, self._metric = predictions.models, costs, metric
        self._probabilities = {split: predictions.probabilities(split) for split in ("valid", "test")}
        self._labels = {split: predictions.labels(split) for split in ("valid", "test")}
        self._finite = [
            all(bool(np.isfinite(self._probabilities[split][place]).all()) for split in self._probabilities)
            for place in range(len(self.models))
        ]

    def select(self, models: Sequence[str], limits: dict[str, float], config: SelectionConfig) -> dict[str, Any] | None:
        """SMOBF's ensemble from some models alone: members, cost, validation loss, the errors; None if nothing fits.

        Args:
            models: ids to choose from; one that has diverged is not chosen.
            limits: the most that each cost column's sum may be.
            config: weights and loss.
        """
        # By id, as ties fall in a selection from a cache.
        places = sorted((self.models.index(model) for model in models), key=lambda place: self.models[place])
        places = [place for place in places if self._finite[place]]
        columns = {column: values[places] for column, values in self.costs.items()}
        if not places or not Spending(columns, limits).fits(np.arange(len(places))).any():
            return None
        valid = np.stack([self._probabilities["valid"][place] for place in places])
        chosen = smobf(valid, self._labels["valid"], columns, limits or None, config.cost_weights, config.loss)
        members = [places[member] for member in chosen.members]
        return {
            "n_members": len(members),
            "members": " ".join(self.models[place] for place in members),
            "cost_seconds": chosen.cost,
            "valid_loss": chosen.loss,
            **{f"{split}_error": self.error(members, split) for split in ("valid", "test")},
        }

    def error(self, places: Sequence[int], split: str) -> float:
        """Error, by the study's `metric`, of the average of models, given by place, on `valid` or `test`."""
        mean = np.mean([self._probabilities[split][place] for place in places], axis=0, dtype=np.float64)
        return classification_metrics(mean, self._labels[split])[self._metric]


@contextmanager
def open_whole_library(study: Study) -> Iterator[WholeLibrary]:
    """Open the cache of all models of a study.

    Its kept models cost what they cost in the study's own selection: a second measurement differs by some per cent, and
    what is selected at a budget's edge with it.

    Raises:
        ArtefactError: a file is damaged, lacks classes, or costs and cache are not about the same models.
    """
    folder = study.folder / WHOLE_LIBRARY
    with open_predictions(folder / "predictions.h5") as predictions:
        costs = read_costs(folder / "costs.csv", predictions.models, folder / "predictions.h5")
        known = set(study.table(_KEPT_COSTS, ["model"], dtype=str, keep_default_na=False).model)
        places = [place for place, model in enumerate(predictions.models) if model in known]
        kept = [predictions.models[place] for place in places]
        for column, values in read_costs(study.folder / _KEPT_COSTS, kept, folder / "predictions.h5").items():
            costs[column][places] = values
        yield WholeLibrary(predictions, costs, study.metric)
