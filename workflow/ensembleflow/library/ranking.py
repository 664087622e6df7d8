"""Ranking a study's models and keeping the best (the paper's section 2.1, pruning)."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from ensembleflow.config import n_kept
from ensembleflow.datasets import open_dataset
from ensembleflow.errors import LibraryError
from ensembleflow.io import read_csv, write_csv
from ensembleflow.library.chance import are_at_chance

__all__ = ["kept_models", "rank_models"]

logger = logging.getLogger("ensembleflow.library")

_JUDGED = ("valid_error", "valid_macro_f1_error", "valid_cross_entropy")
_AT_CHANCE = "at chance"
_AT_CHANCE_BUT_KEPT = "at chance, kept for want of a better one"


def rank_models(
    trials_csv: str | Path, dataset_h5: str | Path, metric: str, keep_fraction: float, models_csv: str | Path
) -> None:
    """Rank all models by a validation metric and mark the kept ones, in `models.csv`.

    Every model takes part, early-stopped or not. Ties are broken by cross-entropy, then by slot. A trial
    that failed, or whose model is at chance (see `are_at_chance`), is listed last, with the reason for which it is
    dropped and without a rank. Where all are at chance, the best of them alone is ranked and kept all the same, so
    that the run ends with a report of what the search has found; its `dropped` says so.

    Args:
        trials_csv: the study's frozen table.
        dataset_h5: the dataset, of whose validation part the classes' shares are read.
        metric: `error`, `macro_f1_error` or `cross_entropy`, lower is better.
        keep_fraction: share of all trials to keep, rounded to the nearest whole number.
        models_csv: the table to write.

    Raises:
        LibraryError: no model is left to keep.
        ArtefactError: the table or the dataset is missing or damaged.
    """
    column = f"valid_{metric}"
    measured = dict.fromkeys([column, *_JUDGED])
    trials = read_csv(trials_csv, expected_columns=("slot", "model", "state", "reason", *measured))
    trials["dropped"] = [
        (reason if isinstance(reason, str) and reason else "failed") if state == "FAIL" else ""
        for state, reason in zip(trials["state"], trials["reason"], strict=True)
    ]
    unmeasured = (trials["dropped"] == "") & trials[column].isna()
    trials.loc[unmeasured, "dropped"] = "no validation metric"
    order = [column, "valid_cross_entropy", "slot"]
    _mark_chance(trials, order, dataset_h5)
    usable = trials[trials["dropped"].isin(["", _AT_CHANCE_BUT_KEPT])].sort_values(order)
    keep = min(n_kept(len(trials), keep_fraction), len(usable))
    if keep == 0:
        raise LibraryError(
            "no model is left to keep",
            where=trials_csv,
            found=f"{len(usable)} usable of {len(trials)} trials, keep_fraction {keep_fraction:g}",
            expected="at least one kept model",
            hint="raise library.keep_fraction or search.n_trials; the column `reason` says why trials failed",
        )
    usable.insert(0, "rank", range(1, len(usable) + 1))
    usable.insert(3, "kept", usable["rank"] <= keep)
    dropped = trials.drop(usable.index).sort_values("slot")
    dropped.insert(0, "rank", None)
    dropped.insert(3, "kept", False)
    table = pd.concat([usable, dropped], ignore_index=True)
    leading = ["rank", "model", "slot", "kept", "dropped"]
    table = table[leading + [name for name in table.columns if name not in leading]]
    for name in ("rank", "bracket", "n_parameters"):
        table[name] = table[name].astype("Int64")
    write_csv(models_csv, table)


def _mark_chance(trials: pd.DataFrame, order: list[str], dataset_h5: str | Path) -> None:
    """Fill in `dropped` of the models at chance, and warn of them."""
    usable = trials[trials["dropped"] == ""].sort_values(order)
    with open_dataset(dataset_h5) as dataset:
        labels = dataset.labels("valid")
    errors, macro_f1_errors, cross_entropies = (usable[column].to_numpy() for column in _JUDGED)
    at_chance = usable.index[are_at_chance(errors, macro_f1_errors, cross_entropies, labels)]
    trials.loc[at_chance, "dropped"] = _AT_CHANCE
    if len(at_chance) == 0:
        return
    logger.warning(
        "%d of %d networks learned nothing: try a lower learning rate, more epochs",
        *(len(at_chance), len(trials)),
        extra={"progress": True},
    )
    if len(at_chance) == len(usable):
        trials.loc[at_chance[0], "dropped"] = _AT_CHANCE_BUT_KEPT
        logger.warning(
            "no network is better than chance: %s is kept so that the run ends; do not use what it makes",
            trials["model"][at_chance[0]],
            extra={"progress": True},
        )


def kept_models(models_csv: str | Path) -> pd.DataFrame:
    """The kept models' rows, in rank order.

    Raises:
        ArtefactError: the table is missing or damaged.
    """
    table = read_csv(models_csv, expected_columns=("rank", "model", "slot", "kept", "weights_sha256"))
    return table[table["kept"]].sort_values("rank").reset_index(drop=True)
