"""The studies that an item is drawn from: those that are whole, and what the others lack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ensembleflow.errors import ArtefactError
from ensembleflow.io import read_csv, read_json, snakemake_command
from ensembleflow.planning.paper_plan import PaperRun
from ensembleflow.report.drawing import as_bool

__all__ = ["BEST_SINGLE", "Sources", "Study", "read_sources"]

BEST_SINGLE = "best single"
"""The budget that figure 3's rows of the best single model name."""

_MAX_NAMED = 3


@dataclass(frozen=True)
class Study:
    """A study whose artefacts are all there.

    Attributes:
        name: the study's.
        algorithm: of the search.
        seed: of the study.
        folder: its artefacts.
        metric: what is called the error, `error` or `macro_f1_error`.
    """

    name: str
    algorithm: str
    seed: int
    folder: Path
    metric: str

    def table(self, name: str, columns: Sequence[str] = (), **options: Any) -> pd.DataFrame:
        """A CSV artefact by its path in the study, such as `search/trials.csv`; `options` go to pandas."""
        return read_csv(self.folder / name, columns, **options)

    def json(self, name: str, keys: Sequence[str] = ()) -> Any:
        """A JSON artefact by its path in the study."""
        return read_json(self.folder / name, keys)

    @cached_property
    def accounting(self) -> dict[str, Any]:
        """`search/accounting.json`."""
        keys = ["n_devices", "duration_seconds", "speed_up", "occupancy", "epochs"]
        accounts: dict[str, Any] = self.json("search/accounting.json", keys)
        return accounts

    @cached_property
    def ensembles(self) -> pd.DataFrame:
        """`selection/ensembles.csv`, its budgets as text; `test_error` is of the study's `metric`."""
        test = f"test_{self.metric}"
        columns = ["method", "budget", "weight", "n_members", "members", "cost_seconds", test, "chosen"]
        table = self.table("selection/ensembles.csv", columns, dtype={"budget": str})
        return table.assign(test_error=table[test])

    def chosen(self, budget: str) -> pd.Series | None:
        """The row of the ensemble chosen for a budget, or None where the study has no such budget."""
        rows = self.ensembles[as_bool(self.ensembles.chosen) & (self.ensembles.budget == budget)]
        return None if rows.empty else rows.iloc[0]

    def best_single(self) -> pd.Series:
        """The row of the single model that is best on validation, whatever its cost."""
        rows = self.ensembles[(self.ensembles.method == "best_single") & self.ensembles.budget.isna()]
        if rows.empty:
            raise ArtefactError("a study's ensembles lack the best single model", where=self.folder / "selection")
        return rows.iloc[0]


@dataclass(frozen=True)
class Sources:
    """What an item is drawn from.

    Attributes:
        item: its name.
        studies: those with all files, in the config's order.
        notes: what is missing or was left out, a sentence each, with the command that makes it.
    """

    item: str
    studies: list[Study]
    notes: list[str] = field(default_factory=list)

    def of(self, algorithm: str) -> list[Study]:
        """The studies of one algorithm, by seed as the config has them."""
        return [study for study in self.studies if study.algorithm == algorithm]


def read_sources(run: PaperRun, item: str) -> Sources:
    """Look which of an item's studies are whole, and say what the others lack.

    Failed slots are told as well: their studies are drawn without them.
    """
    studies, notes = [], []
    for algorithm, seed in run.studies(item):
        name = run.study(algorithm, seed)
        study = Study(name, algorithm, seed, Path(run.results_dir, name), run.metric)
        files = run.files(item, algorithm, seed)
        if missing := [path for path in files if not Path(path).exists()]:
            notes.append(_lacking(study, missing))
            continue
        studies.append(study)
        if any(Path(path).name == "trials.csv" for path in files):
            notes += _failed(study)
    return Sources(item, studies, notes)


def _lacking(study: Study, missing: Sequence[str]) -> str:
    jobs = study.folder / "search" / "trials"
    state = "is still running or was broken off" if jobs.is_dir() else "is not there"
    if (study.folder / "search" / "trials.csv").exists():
        state = "is not finished"
    names = ", ".join(str(Path(path).relative_to(study.folder)) for path in missing[:_MAX_NAMED])
    more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
    return (
        f"Study {study.name} {state}, so it is left out: it lacks {names}{more}. "
        f"`{snakemake_command(*missing, near=study.folder)}` makes it."
    )


def _failed(study: Study) -> list[str]:
    trials = study.table("search/trials.csv", ["slot", "state"])
    slots = trials.slot[trials.state == "FAIL"].astype(str).tolist()
    if not slots:
        return []
    trials_csv = study.folder / "search/trials.csv"
    command = snakemake_command("--forcerun", "train_trials", trials_csv, near=trials_csv)
    return [
        f"In study {study.name} {len(slots)} of {len(trials)} slots failed ({', '.join(slots)}) and count as no model; "
        "the column `reason` of its search/trials.csv says why. If it was memory, raise resources.search.mem_mb and "
        f"run `{command}`."
    ]
