"""Which engine a library's costs were measured with."""

from __future__ import annotations

from pathlib import Path

from ensembleflow.errors import ArtefactError
from ensembleflow.io import read_csv, snakemake_command
from ensembleflow.models.engines import ENGINES

__all__ = ["engine_of_costs"]


def engine_of_costs(costs_csv: str | Path) -> str:
    """The engine with which the costs of a library were measured.

    Raises:
        ArtefactError: the table is missing or damaged, or does not say.
    """
    engines = read_csv(costs_csv, ["model", "engine"], dtype={"engine": str}).engine.unique()
    if len(engines) != 1 or engines[0] not in ENGINES:
        raise ArtefactError(
            "the costs do not say which engine they were measured with",
            where=f"{costs_csv}, column engine",
            found=", ".join(map(str, engines)) or "nothing",
            expected="one of " + ", ".join(ENGINES),
            hint=snakemake_command("--forcerun", "measure_costs", near=costs_csv),
        )
    return str(engines[0])
