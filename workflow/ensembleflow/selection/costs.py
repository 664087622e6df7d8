"""The library's `costs.csv`, as a selection needs it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensembleflow.config import PRIMARY_COST
from ensembleflow.errors import ArtefactError
from ensembleflow.io import read_csv, snakemake_command

__all__ = ["read_costs"]

FloatArray = npt.NDArray[np.float64]

# What says how far the costs can be trusted is no cost itself.
_NO_COST = ("other_work_percent",)


def read_costs(
    costs_path: str | Path, models: Sequence[str], predictions_path: str | Path, needed: Collection[str] = ()
) -> dict[str, FloatArray]:
    """The models' costs by column, in the order of `models`: float64 (models,) each.

    Args:
        costs_path: `costs.csv`.
        models: ids.
        predictions_path: the file that the models are of, for messages.
        needed: columns that a budget names, beside `cost_seconds`. Other columns are there if they can be a cost:
            a number above 0 for each model.

    Raises:
        ArtefactError: `costs.csv` lacks a model, has one more or one twice, lacks a needed column, or one of its
            values is no number above 0.
    """
    # As they stand there: `NA` and `null` are names like others.
    table = read_csv(costs_path, ["model", PRIMARY_COST], dtype={"model": str}, keep_default_na=False)
    twice = sorted(set(table.model[table.model.duplicated()]))
    missing = [model for model in models if model not in set(table.model)]
    unknown = sorted(set(table.model) - set(models))
    faults = [
        f"{what} {', '.join(model or 'a row without an id' for model in ids)}"
        for what, ids in (("twice:", twice), ("without a cost:", missing), ("not predicted:", unknown))
        if ids
    ]
    if faults:
        raise ArtefactError(
            "the costs and the predictions are not about the same models",
            where=costs_path,
            found="; ".join(faults),
            expected=f"one row for each of the {len(models)} models of {predictions_path}",
            hint=f"make both again from one library: {snakemake_command('library', near=costs_path)}",
        )
    table = table.set_index("model").reindex(list(models))
    columns = {}
    for column in (PRIMARY_COST, *(name for name in table.columns if name not in (PRIMARY_COST, *_NO_COST))):
        values = np.array(pd.to_numeric(table[column], errors="coerce"), dtype=np.float64)
        wrong = [place for place, value in enumerate(values) if not (math.isfinite(value) and value > 0)]
        if not wrong:
            columns[column] = values
        elif column == PRIMARY_COST or column in needed:
            raise ArtefactError(
                "a cost is not a time" if column == PRIMARY_COST else "a cost that the budget names is not a cost",
                where=f"{costs_path}, model {models[wrong[0]]}, column {column}",
                found="nothing" if table[column].iloc[wrong[0]] == "" else table[column].iloc[wrong[0]],
                expected="seconds, above 0" if column == PRIMARY_COST else "a number above 0 for each model",
            )
    return columns
