"""The cascade of one budget's ensemble: `cascade-{budget}.json`."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.config import PRIMARY_COST, CascadeConfig
from ensembleflow.datasets import CALIBRATION
from ensembleflow.errors import ArtefactError, SelectionError
from ensembleflow.io import provenance, read_json, write_json
from ensembleflow.library import Predictions, open_predictions
from ensembleflow.models.tolerances import ANSWER_TOLERANCE, cache_rounding
from ensembleflow.selection.cascade import Cascade, Stages, calibrate_cascade, share_interval
from ensembleflow.selection.costs import read_costs

__all__ = ["select_cascade"]

logger = logging.getLogger("ensembleflow.selection")


def select_cascade(
    selection_json: str | Path,
    predictions_h5: str | Path,
    costs_csv: str | Path,
    config: CascadeConfig,
    output_json: str | Path,
) -> None:
    """Write `selection/cascade-{budget}.json`: where the images of one budget's ensemble may stop.

    Its members answer cheapest first. The full ensemble's cost, which no image exceeds, is within the budget; the mean
    cost is lower. An ensemble of one member is a cascade of one stage, which needs no guarantee.

    Args:
        selection_json: the chosen ensemble (`budget-{budget}.json`).
        predictions_h5: the library's `predictions.h5`, with calibration images.
        costs_csv: the library's `costs.csv`.
        config: the share of changed images, and the confidence.
        output_json: the JSON to write.

    Raises:
        ArtefactError: a file is missing or broken, or they are not about the same models.
        SelectionError: there are no or too few calibration images.
    """
    assert config.max_changed is not None  # the rule is not asked for otherwise
    selection = read_json(selection_json, ["study", "budget", "members", "limits"])
    with open_predictions(predictions_h5) as predictions:
        cost_of = dict(
            zip(
                predictions.models,
                read_costs(costs_csv, predictions.models, predictions_h5)[PRIMARY_COST].tolist(),
                strict=True,
            )
        )
        missing = [model for model in selection["members"] if model not in cost_of]
        if missing:
            raise ArtefactError(
                "members of the ensemble have no cached predictions", where=predictions_h5, found=", ".join(missing)
            )
        members = sorted(selection["members"], key=lambda model: (cost_of[model], model))
        costs = [cost_of[model] for model in members]
        if len(members) > 1 and CALIBRATION not in predictions.splits:
            raise SelectionError(
                "there are no calibration images for a cascade",
                where=predictions_h5,
                found=", ".join(predictions.splits),
                hint="set dataset.calibration_fraction, to 0.5 for example",
            )
        splits = {split: _answers(predictions, split, members) for split in predictions.splits}
        tolerance = ANSWER_TOLERANCE + cache_rounding(predictions.probabilities("valid").dtype)
    cascade = None
    if len(members) > 1:
        stages = {split: stages for split, (stages, _) in splits.items()}
        cascade = calibrate_cascade(
            stages["valid"], stages[CALIBRATION], costs, config.max_changed, config.confidence, tolerance
        )
    thresholds = () if cascade is None else cascade.thresholds
    measured = {
        split: _measured(stages, labels, thresholds, costs, config.confidence)
        for split, (stages, labels) in splits.items()
    }
    _log(str(selection["budget"]), cascade, measured)
    write_json(
        output_json,
        {
            "study": selection["study"],
            "budget": selection["budget"],
            "members": members,
            "costs_seconds": costs,
            # JSON has no infinity.
            "thresholds": [threshold if math.isfinite(threshold) else None for threshold in thresholds],
            "max_changed": config.max_changed,
            "confidence": config.confidence,
            "guarantee": None if cascade is None else asdict(cascade.guarantee),
            "cost_seconds": math.fsum(costs),
            "mean_cost_seconds": measured[CALIBRATION if CALIBRATION in measured else "valid"]["mean_cost_seconds"],
            **measured,
            "provenance": provenance(),
        },
    )


def _answers(predictions: Predictions, split: str, members: Sequence[str]) -> tuple[Stages, npt.NDArray[np.int64]]:
    cached = predictions.probabilities(split)
    places = [predictions.models.index(model) for model in members]
    return Stages.of(np.stack([np.asarray(cached[place], np.float64) for place in places])), predictions.labels(split)


def _measured(
    stages: Stages,
    labels: npt.NDArray[np.int64],
    thresholds: Sequence[float],
    costs: Sequence[float],
    confidence: float,
) -> dict[str, Any]:
    """What the cascade does with a split's images, and by how much its error differs from the full ensemble's."""
    n_images, reached = stages.n_images, stages.reached(thresholds)
    n_changed = int(stages.changed(thresholds).sum())
    right, right_in_full = stages.answers(thresholds) == labels, stages.classes[-1] == labels
    shares = [int(each) / n_images for each in reached]
    return {
        "n_images": n_images,
        "shares": shares,
        "share_intervals": [share_interval(int(each), n_images, confidence) for each in reached],
        "mean_cost_seconds": math.fsum(share * cost for share, cost in zip(shares, costs, strict=True)),
        "n_changed": n_changed,
        "changed_interval": share_interval(n_changed, n_images, confidence),
        "n_wrong": int((~right).sum()),
        "error": float((~right).mean()),
        "full_error": float((~right_in_full).mean()),
        "n_gained": int((right & ~right_in_full).sum()),
        "n_lost": int((right_in_full & ~right).sum()),
    }


def _log(budget: str, cascade: Cascade | None, measured: dict[str, dict[str, Any]]) -> None:
    if cascade is None:
        logger.info("budget %s: an ensemble of one member has nothing to stop for", budget, extra={"progress": True})
        return
    shares = ", ".join(f"{share:.1%}" for share in measured[CALIBRATION]["shares"])
    guarantee = cascade.guarantee
    logger.info(
        "budget %s: the stages of the cascade see %s of the images; %d of %d calibration images change their class, at "
        "most %.3g %% of any, with %g %% confidence",
        *(budget, shares, guarantee.n_changed, guarantee.n_images),
        *(100 * guarantee.upper_bound, 100 * guarantee.confidence),
        extra={"progress": True},
    )
    if not any(map(math.isfinite, cascade.thresholds)):
        logger.warning("budget %s: no image may stop early: even the most cautious thresholds change too many", budget)
