"""Ranking a study's models and keeping the best (the paper's section 2.1, pruning)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ensembleflow.config import n_kept
from ensembleflow.errors import LibraryError
from ensembleflow.io import read_csv, write_csv

__all__ = ["kept_models", "rank_models"]


def rank_models(trials_csv: str | Path, metric: str, keep_fraction: float, models_csv: str | Path) -> None:
    """Rank all models by a validation metric and mark the kept ones, in `models.csv`.

    Every model takes part, early-stopped or not. Ties are broken by cross-entropy, then by slot. A trial
    that failed is listed last, with the reason for which it is dropped and without a rank.

    Args:
        trials_csv: the study's frozen table.
        metric: `error`, `macro_f1_error` or `cross_entropy`, lower is better.
        keep_fraction: share of all trials to keep, rounded to the nearest whole number.
        models_csv: the table to write.

    Raises:
        LibraryError: no model is left to keep.
        ArtefactError: the table is missing or damaged.
    """
    column = f"valid_{metric}"
    trials = read_csv(trials_csv, expected_columns=("slot", "model", "state", "reason", column, "valid_cross_entropy"))
    trials["dropped"] = [
        (reason if isinstance(reason, str) and reason else "failed") if state == "FAIL" else ""
        for state, reason in zip(trials["state"], trials["reason"], strict=True)
    ]
    unmeasured = (trials["dropped"] == "") & trials[column].isna()
    trials.loc[unmeasured, "dropped"] = "no validation metric"
    usable = trials[trials["dropped"] == ""].sort_values([column, "valid_cross_entropy", "slot"])
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
    dropped = trials[trials["dropped"] != ""].sort_values("slot")
    dropped.insert(0, "rank", None)
    dropped.insert(3, "kept", False)
    table = pd.concat([usable, dropped], ignore_index=True)
    leading = ["rank", "model", "slot", "kept", "dropped"]
    table = table[leading + [name for name in table.columns if name not in leading]]
    for name in ("rank", "bracket", "n_parameters"):
        table[name] = table[name].astype("Int64")
    write_csv(models_csv, table)


def kept_models(models_csv: str | Path) -> pd.DataFrame:
    """The kept models' rows, in rank order.

    Raises:
        ArtefactError: the table is missing or damaged.
    """
    table = read_csv(models_csv, expected_columns=("rank", "model", "slot", "kept", "weights_sha256"))
    return table[table["kept"]].sort_values("rank").reset_index(drop=True)
