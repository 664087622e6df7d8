"""Made-up studies of a paper run: searches and predictions are drawn, what follows from them is selected for real."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensembleflow.config import Config, SelectionConfig, parse_config
from ensembleflow.io import write_csv, write_json
from ensembleflow.library import create_predictions, rank_models
from ensembleflow.planning.paper_plan import WHOLE_LIBRARY, PaperRun
from ensembleflow.selection import collect_ensembles, compare_methods, select_ensemble, write_pruning_study
from support.labelled_file import write_labels
from support.report_artefacts import STUDY, write_artefacts

BUDGETS = ("1x", "2x", "4x")
N_TRIALS, KEEP_FRACTION, N_CLASSES = 12, 0.5, 4
SELECTION = SelectionConfig(budgets=list(BUDGETS))


def paper_config(results: Path, **paper: Any) -> Config:
    """A config whose studies `write_study` makes up."""
    values = {"algorithms": ["random", "hyperband"], "seeds": [0, 1], "workers": [1, 3], "snapshots": [0.4, 1.0]}
    values |= {"keep_fractions": [0.25, 0.5, 1.0], "allocated_budgets": ["1x", "2x"], "simulated_gpus": [0, 1]}
    return parse_config(
        {
            "results_dir": str(results),
            "search": {"n_trials": N_TRIALS, "trials_per_job": 3, "max_epochs": 9, "min_epochs": 1},
            "library": {"keep_fraction": KEEP_FRACTION},
            "selection": {"budgets": list(BUDGETS)},
            "allocation": {"device_counts": [1, 2]},
            "report": {"dpi": 60},
            "paper": {**values, **paper},
        }
    )


def paper_run(results: Path, **paper: Any) -> PaperRun:
    """What the items of `paper_config` depend on."""
    return PaperRun.of(paper_config(results, **paper))


def write_study(results: Path, algorithm: str = "hyperband", seed: int = 0) -> Path:
    """Write all artefacts of one study; slots 5 and 11 have failed."""
    brackets = (0, 1) if algorithm == "hyperband" else None
    scratch = results / "scratch"
    options: dict[str, Any] = {"n_trials": N_TRIALS, "brackets": brackets, "budgets": BUDGETS}
    write_artefacts(scratch, **options, device_counts=(1, 2), with_failed_bench=False, seed=100 + seed)
    study = results / f"digits-{algorithm}-s{seed}"
    shutil.move(scratch / STUDY, study)
    shutil.rmtree(scratch)
    shutil.rmtree(study / "selection")
    for path in study.glob("allocation/*/devices-*.json"):
        shutil.copy(path, path.with_name(path.name.replace("devices", "simulated")))
    trials = pd.read_csv(study / "search/trials.csv")
    _write_runs(study, trials)
    kept, whole = study / "library", study / WHOLE_LIBRARY
    write_labels(results / "data.h5", [100] * 20)
    for folder, keep_fraction in ((kept, KEEP_FRACTION), (whole, 1.0)):
        rank_models(study / "search/trials.csv", results / "data.h5", "error", keep_fraction, folder / "models.csv")
        _write_library(folder, study.name)
    jsons = [study / f"selection/budget-{budget}.json" for budget in BUDGETS]
    files = kept / "predictions.h5", kept / "costs.csv"
    for budget, path in zip(BUDGETS, jsons, strict=True):
        select_ensemble(*files, SELECTION, budget, path)
    collect_ensembles(jsons, *(study / f"selection/{name}.csv" for name in ("ensembles", "pareto", "trace")))
    compare_methods(*files, jsons, SELECTION, *(study / f"selection/{name}.csv" for name in ("comparison", "fronts")))
    write_pruning_study(
        whole / "predictions.h5",
        whole / "costs.csv",
        study / "selection/pruning.csv",
        budget="4x",
        keep_fractions=(0.01, 0.25, 0.5, 1.0),
        weights=(0.1, 0.01, 0.001),
        loss="cross_entropy",
        rank_by="error",
    )
    return study


def _write_runs(study: Path, trials: pd.DataFrame) -> None:
    columns = ["slot", "model", "host", "device", "started_at", "ended_at", "epochs"]
    runs = trials[columns].assign(run=0, device_id="cpu", process_id=1, first_epoch=1, energy_joules=None)
    started_at = float(trials.started_at.min())
    runs = runs.assign(process_started_at=started_at - 5, ready_at=started_at - 1)
    write_csv(study / "search/runs.csv", runs)
    duration = float(trials.ended_at.max()) - started_at + 5
    accounts = {"started_at": started_at - 5, "duration_seconds": duration, "n_devices": 2, "speed_up": 1.8}
    accounts |= {"occupancy": 0.9, "epochs": {"trained": int(trials.epochs.sum())}}
    write_json(study / "search/accounting.json", accounts)


def _write_library(folder: Path, study: str) -> None:
    models = pd.read_csv(folder / "models.csv")
    kept = models[models.kept]
    rng = np.random.default_rng(7)
    labels = {split: rng.integers(0, N_CLASSES, n) for split, n in (("valid", 160), ("test", 120))}
    with create_predictions(
        folder / "predictions.h5",
        study=study,
        dataset_checksum="0" * 64,
        class_names=list("abcd"),
        models=kept.model.tolist(),
        weights_sha256=kept.weights_sha256.tolist(),
        labels=labels,
        dtype="float32",
        every_class=True,
    ) as writer:
        for place, (slot, error) in enumerate(zip(kept.slot, kept.valid_error, strict=True)):
            for split, truth in labels.items():
                writer.write(split, place, 0, _predicted(int(slot), float(error), truth))
    # A second measurement never gives the same.
    again = 1.0 + 0.2 * (kept.slot % 3) if folder.name == "whole" else 1.0
    costs = (0.5 + kept.slot % 5 / 4) * again
    write_csv(folder / "costs.csv", pd.DataFrame({"model": kept.model, "cost_seconds": costs}))


def _predicted(slot: int, error: float, truth: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng([slot, len(truth)])
    logits = rng.normal(0, 1.5, (len(truth), N_CLASSES))
    logits[np.arange(len(truth)), truth] += 3.5 * (1 - error)
    values: npt.NDArray[np.float32] = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    return values
