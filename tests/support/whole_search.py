"""A small search, and what must hold of it when it has ended, whatever was done to its jobs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial

from ensembleflow.config import Config, parse_config
from ensembleflow.search import freeze_tables
from support.cluster_search import ClusterSearch
from support.slurm_lab import SlurmLab

RUN_JOB = Path(__file__).with_name("run_job.py")
MAX_EPOCHS = 8
CONFIG: dict[str, Any] = {
    "search": {
        # Random, so that no trial depends on which others have ended before it.
        "algorithm": "random",
        "n_trials": 3,
        "trials_per_job": 1,
        "max_epochs": MAX_EPOCHS,
        "min_epochs": 1,
        "space": {
            "block": ["v1"],
            "batch_size": [16, 24],
            "stem_filters": [4, 4],
            "stage_filters": [4, 4],
            "blocks_stage_1": [1, 1],
            "blocks_stage_2": [1, 1],
        },
    },
    "library": {"keep_fraction": 0.5},
    # More than half of a node's memory: each copy of a job has a node of its own.
    "resources": {"search": {"mem_mb": 5000, "runtime_minutes": 30}},
}


def config_of(**search: object) -> dict[str, Any]:
    """The small search's config with other values in its block `search`."""
    return {**CONFIG, "search": {**CONFIG["search"], **search}}


def search_of_clone(
    lab: SlurmLab, clone: Path, config: dict[str, Any], dataset: Path, profile: str | Path = "slurm"
) -> ClusterSearch:
    """The search of a config, which is put with its data set into a clone of the repository."""
    (clone / "results/datasets").mkdir(parents=True)
    shutil.copy(dataset, clone / "results/datasets" / dataset.name)
    (clone / "study.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return ClusterSearch(lab, clone, "study.yaml", parse_config(config).study, profile)


def train_undisturbed(config: Config, dataset: Path, search_dir: Path) -> None:
    """All trials in one process, without Slurm and Snakemake."""
    (search_dir / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    command = [sys.executable, str(RUN_JOB), str(search_dir / "config.json"), "0", str(dataset), str(search_dir)]
    subprocess.run(command, check=True)


def tables(search_dir: Path, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of trials and of epochs, which cannot be made unless each slot is filled once."""
    paths = [folder / f"{name}.csv" for name in ("trials", "epochs", "runs")]
    freeze_tables(sorted((search_dir / "trials").iterdir()), *paths)
    return pd.read_csv(paths[0]), pd.read_csv(paths[1])


def told_to_optuna(search_dir: Path) -> list[FrozenTrial]:
    path = str(search_dir / "study.journal")
    storage = JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
    (study,) = storage.get_all_studies()
    return storage.get_all_trials(study._study_id)


def assert_each_slot_is_filled_once(search_dir: Path, n_trials: int, folder: Path) -> None:
    """One trial a slot, finished, for us and for Optuna; `folder` takes the tables."""
    trials, _ = tables(search_dir, folder)
    assert list(trials["slot"]) == list(range(n_trials))
    assert [trial.number for trial in told_to_optuna(search_dir)] == list(range(n_trials))
    assert all(trial.state.is_finished() for trial in told_to_optuna(search_dir))
    assert not list(search_dir.glob("store/*/*.lease"))


def assert_each_epoch_is_trained_once(search_dir: Path, n_trials: int, max_epochs: int, folder: Path) -> None:
    """All epochs of each trial, one after the other, each told to Optuna once."""
    _, epochs = tables(search_dir, folder)
    for slot in range(n_trials):
        own = epochs[epochs["slot"] == slot]
        assert list(own["epoch"]) == list(range(1, max_epochs + 1))
        assert (own["started_at"].iloc[1:].to_numpy() >= own["ended_at"].iloc[:-1].to_numpy()).all()
    lines = [json.loads(line) for line in (search_dir / "study.journal").read_text().splitlines()]
    reports = Counter((line["trial_id"], line["step"]) for line in lines if "step" in line)
    assert len(reports) == n_trials * max_epochs
    assert set(reports.values()) == {1}


def assert_same_results(search_dir: Path, undisturbed: Path, n_trials: int, folder: Path) -> None:
    """Hyperparameters and errors are those of an undisturbed search, bit for bit, in its first `n_trials` trials."""
    for table, expected in zip(tables(search_dir, folder), tables(undisturbed, folder), strict=True):
        columns = [
            name for name in map(str, expected) if not re.search(r"_at$|_seconds$|^(attempts|host|device)", name)
        ]
        assert {"slot", "valid_error", "train_error"} & set(columns)
        pd.testing.assert_frame_equal(
            table[columns], expected.loc[expected["slot"] < n_trials, columns], check_exact=True
        )
