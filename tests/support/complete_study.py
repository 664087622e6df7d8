"""All artefacts of a made-up study: search and library invented, selected from by the package itself."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from ensembleflow.config import Config
from ensembleflow.io import create_hdf5, read_csv, record_run, write_csv, write_json
from ensembleflow.report import tabulate_mistakes
from ensembleflow.search.accounting import PARTS, write_accounting
from ensembleflow.selection import collect_ensembles, select_ensemble
from ensembleflow.selection.rivals.comparison import compare_methods
from support.report_artefacts import STUDY, allocation_of, write_artefacts, write_baseline, write_predictions

BUDGETS = ("1x", "2x", "4x")
CLASS_NAMES = ("oak", "beech", "</script><b>elm</b>")
N_TEST, N_DEVICES, MAX_EPOCHS = 240, 2, 9


def write_study(
    results: Path, *, every_class: bool = True, objective: str = "throughput", bench_kind: str = "measured"
) -> Path:
    """Fill a results folder with a whole study of 48 trials; returns the study's folder."""
    rng = np.random.default_rng(1)
    study = results / STUDY
    config = Config.model_validate(
        {
            "search": {"metric": "error"},
            "selection": {"budgets": BUDGETS},
            "library": {"predictions": {"every_class": every_class}},
        }
    )
    made = write_artefacts(results, budgets=(), max_epochs=MAX_EPOCHS)
    trials = _vary(rng, read_csv(made.trials_csv))
    write_csv(made.trials_csv, trials)
    write_csv(study / "search" / "runs.csv", _runs(trials))
    write_accounting(study / "search", MAX_EPOCHS, study / "search" / "accounting.json")

    costs = read_csv(made.costs_csv)
    predictions = study / "library" / "predictions.h5"
    write_predictions(rng, predictions, read_csv(made.models_csv), CLASS_NAMES, N_TEST, every_class=every_class)
    write_baseline(rng, predictions)
    _draw_images(rng, results / "datasets" / "digits.h5")
    selection = study / "selection"
    chosen_jsons = [selection / f"budget-{budget}.json" for budget in BUDGETS]
    for budget, path in zip(BUDGETS, chosen_jsons, strict=True):
        select_ensemble(predictions, made.costs_csv, config.selection, budget, path)
    collect_ensembles(chosen_jsons, *(selection / f"{name}.csv" for name in ("ensembles", "pareto", "trace")))
    compare_methods(
        predictions,
        made.costs_csv,
        chosen_jsons,
        config.selection,
        selection / "comparison.csv",
        selection / "fronts.csv",
    )
    tables = [results / "tables" / f"{name}.csv" for name in ("classes", "confusion", "mistakes")]
    tabulate_mistakes(predictions, chosen_jsons, *tables)
    ensembles = pd.read_csv(selection / "ensembles.csv", dtype={"budget": str})
    for budget in BUDGETS:
        chosen = ensembles[ensembles.chosen & (ensembles.budget == budget)].iloc[0]
        allocation, benches = allocation_of(rng, chosen, N_DEVICES, costs, True, objective, bench_kind, "tensorflow")
        folder = study / "allocation" / f"budget-{budget}"
        write_json(folder / f"devices-{N_DEVICES}.json", allocation)
        write_csv(folder / f"search-{N_DEVICES}.csv", benches)
        if bench_kind == "measured":
            write_json(study / "bundles" / f"budget-{budget}" / "bundle.json", {"members": chosen.members.split()})
    recorded = json.dumps(config.model_dump(mode="json", exclude={"resources"}))
    record_run(recorded, results / "run_config.yaml", results / "provenance.json")
    return study


def _draw_images(rng: np.random.Generator, path: Path) -> None:
    """The dataset that was predicted, of noise."""
    with create_hdf5(path, "dataset", 1) as file:
        file.create_dataset("class_names", data=list(CLASS_NAMES), dtype=h5py.string_dtype("utf-8"))
        for split, n in (("train", 9), ("valid", 200), ("test", N_TEST)):
            file[f"{split}/images"] = rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
            file[f"{split}/labels"] = np.zeros(n, dtype=np.int64)
        file.attrs.update({"name": "digits", "source": "digits", "split_seed": 0, "checksum": "ab" * 32})


def _vary(rng: np.random.Generator, trials: pd.DataFrame) -> pd.DataFrame:
    """Hyperparameters that differ, and times that were measured."""
    n_trials = len(trials)
    varied = {
        "learning_rate": 10 ** rng.uniform(-4, -2, n_trials),
        "batch_size": rng.integers(16, 49, n_trials),
        "block": rng.choice(["v1", "v2", "next"], n_trials),
        "blocks_stage_1": rng.integers(1, 3, n_trials),
    }
    parts = {f"{part}_seconds": trials.duration_seconds / len(PARTS) for part in PARTS}
    return trials.assign(**varied, **parts)


def _runs(trials: pd.DataFrame) -> pd.DataFrame:
    """A run a trial, in two processes that worked side by side."""
    process = trials.slot % 2
    first = trials.groupby(process).started_at.transform("min")
    return pd.DataFrame(
        {"slot": trials.slot, "model": trials.model, "run": 0, "host": "node1", "device": "cpu", "device_id": "cpu"}
        | {"process_id": 100 + process, "process_started_at": first - 8.0, "ready_at": first - 0.5}
        | {"started_at": trials.started_at, "ended_at": trials.ended_at, "first_epoch": 1, "epochs": trials.epochs}
        | {"energy_joules": None}
    )
