"""Which hyperparameters tell a trial's outcome: permutation importances of a random forest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from sklearn.model_selection import KFold

from ensembleflow.search.tables import hyperparameter_columns

__all__ = ["N_FOLDS", "N_SHUFFLES", "Importances", "permutation_importances"]

N_FOLDS, N_SHUFFLES = 5, 10
_MIN_TRIALS = 4 * N_FOLDS
_N_TREES, _SEED = 100, 0


@dataclass(frozen=True)
class Importances:
    """What matters, the most important first.

    Attributes:
        table: `name`, `importance` (loss of rank correlation) and `deviation` (standard, over folds and shuffles).
        correlation: Spearman's, of the forest's predictions for held-out trials with the outcomes.
    """

    table: pd.DataFrame
    correlation: float


def permutation_importances(trials: pd.DataFrame, metric: str) -> Importances | None:
    """How much a random forest's ranking of held-out trials suffers when one column is shuffled.

    Outcomes are ranks, so that one diverged trial does not outweigh the others. The epochs trained are a column like
    the hyperparameters: most of a trial's outcome is how long it was trained. Forest and importances are
    scikit-learn's (Breiman, Random Forests, Machine Learning 2001).

    Args:
        trials: one row per trial with its hyperparameters and epochs.
        metric: column of the outcome; trials without one are left out.

    Returns:
        None where too few trials, or no differing hyperparameters, are left to tell.
    """
    known = trials[np.isfinite(trials[metric].astype(float)) & (trials.epochs > 0)]
    names = [name for name in (*hyperparameter_columns(trials), "epochs") if known[name].nunique() > 1]
    if len(known) < _MIN_TRIALS or not names or known[metric].nunique() < 2:
        return None
    columns = [
        # Of several families, a trial has its own's hyperparameters only.
        column.fillna(column.median()) if pd.api.types.is_numeric_dtype(column) else column.astype("category").cat.codes
        for column in (known[name] for name in names)
    ]
    inputs = np.column_stack([column.to_numpy(dtype=float) for column in columns])
    outcomes = known[metric].rank().to_numpy()
    predicted, losses = np.empty(len(known)), []
    for train, held_out in KFold(N_FOLDS, shuffle=True, random_state=_SEED).split(inputs):
        forest = RandomForestRegressor(_N_TREES, random_state=_SEED).fit(inputs[train], outcomes[train])
        predicted[held_out] = forest.predict(inputs[held_out])
        losses.append(
            permutation_importance(
                forest,
                inputs[held_out],
                outcomes[held_out],
                scoring=_rank_correlation,
                n_repeats=N_SHUFFLES,
                random_state=_SEED,
            ).importances
        )
    lost = np.concatenate(losses, axis=1)
    table = pd.DataFrame({"name": names, "importance": lost.mean(axis=1), "deviation": lost.std(axis=1)})
    table = table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    return Importances(table, _correlation(predicted, outcomes))


def _rank_correlation(forest: RandomForestRegressor, inputs: np.ndarray, outcomes: np.ndarray) -> float:
    return _correlation(_forest_predictions(forest, inputs), outcomes)


def _forest_predictions(forest: RandomForestRegressor, inputs: np.ndarray) -> np.ndarray:
    """What `forest.predict` answers, without all that it does around each of thousands of small calls."""
    rows = inputs.astype(np.float32)
    total = np.zeros(len(rows))
    for tree in forest.estimators_:
        total += tree.tree_.predict(rows).ravel()
    return total / len(forest.estimators_)


def _correlation(predicted: np.ndarray, outcomes: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where all predictions are the same."""
    ranks = pd.Series(predicted).rank().corr(pd.Series(outcomes).rank())
    return 0.0 if pd.isna(ranks) else float(ranks)
