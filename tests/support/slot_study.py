"""A search over the real space whose trials cost nothing, in this process or in others."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna

from ensembleflow.config import Config, parse_config
from ensembleflow.models import Hyperparameters
from ensembleflow.planning.search_plan import SearchPlan, plan_job
from ensembleflow.search.lease import Lease
from ensembleflow.search.optuna_internals import should_stop
from ensembleflow.search.space import suggest_hyperparameters
from ensembleflow.search.storage import open_storage
from ensembleflow.search.study import claim_slot, open_study

ALGORITHMS = ("random", "hyperband", "gp", "bohb", "smac", "tpe", "genetic")
CHECKSUM = "checksum"
N_EPOCHS = 9

# Real processes, forked from one that has imported what they need.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["ensembleflow.search.study", "ensembleflow.search.remote_storage"])


# Where the optimum of `error_of` lies, whatever the default space is.
SPACE: dict[str, Any] = {
    "learning_rate": [0.001, 0.01],
    "batch_size": [16, 48],
    "l2": {"low": 1e-7, "high": 1e-4, "log": True},
    "max_zoom": [0.0, 0.2],
    "max_translation": [0.0, 0.15],
    "max_shear": [0.0, 0.2],
    "max_channel_shift": [0.0, 0.2],
    "max_rotation_degrees": [0, 15],
}


def search_config(algorithm: str, n_trials: int, seed: int = 0, **search: Any) -> Config:
    values = {"algorithm": algorithm, "n_trials": n_trials, "trials_per_job": 1, "max_epochs": N_EPOCHS}
    values |= {"min_epochs": 1, "metric": "error", "space": SPACE, **search}
    return parse_config({"seed": seed, "search": values, "library": {"keep_fraction": 1}})


def small_config(algorithm: str, n_trials: int, **search: Any) -> Config:
    """With eight random trials at first, or generations of eight."""
    if algorithm == "genetic":
        search = {"n_generations": -(-n_trials // 8), **search}
        search.pop("n_startup_trials", None)
    else:
        search = {"n_startup_trials": 8, **search}
    return search_config(algorithm, n_trials, **search)


def search_plan(config: Config) -> SearchPlan:
    return SearchPlan.from_json(plan_job(config, 0), config.search.metric)


def error_of(hyperparameters: Hyperparameters) -> float:
    """Smooth, with its minimum inside the space, and one choice that matters."""
    h = hyperparameters
    rate, filters = (h.learning_rate - 0.004) / 0.003, (h.stem_filters - 20) / 40
    return 0.05 + 0.1 * rate**2 + 0.1 * (h.activation != "relu") + 0.5 * h.max_zoom + filters**2


def run_slots(
    study: optuna.Study,
    config: Config,
    slots: Sequence[int],
    folder: Path,
    kill_at: tuple[int, Connection] | None = None,
) -> list[float]:
    """Run the slots that are not finished; at the slot of `kill_at`, after its first report, tell it and wait."""
    errors = []
    for slot in slots:
        with Lease(folder / f"{slot}.lease", poll_seconds=0.05):
            trial = claim_slot(study, slot, folder)
            if study.get_trials(deepcopy=False)[slot].state.is_finished():
                continue
            value = error_of(suggest_hyperparameters(trial, config.search))
            errors.append(value)
            state = optuna.trial.TrialState.COMPLETE
            for epoch in (1, 3, N_EPOCHS):
                if epoch not in study.get_trials(deepcopy=False)[slot].intermediate_values:
                    trial.report(value + 0.1 / epoch, step=epoch)
                if kill_at is not None and slot == kill_at[0]:
                    kill_at[1].send(dict(trial.params))
                    time.sleep(600)
                if epoch < N_EPOCHS and should_stop(study, slot, rung=None):
                    state = optuna.trial.TrialState.PRUNED
                    break
            study.tell(trial, value if state == optuna.trial.TrialState.COMPLETE else None, state=state)
    return errors


def run_process(
    storage_url: str | None,
    folder: Path,
    config: Config,
    slots: Sequence[int],
    kill_at: tuple[int, Connection] | None = None,
) -> BaseProcess:
    """Start a process that runs the slots."""
    return run_function(_run, storage_url, folder, config.model_dump_json(), slots, kill_at)


def run_function(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a process that calls a function, and is not waited for when a test fails."""
    process = _processes.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


def _run(
    storage_url: str | None, folder: Path, config_json: str, slots: range, kill_at: tuple[int, Connection] | None
) -> None:
    config = Config.model_validate_json(config_json)
    study = open_study(open_storage(folder, storage_url), search_plan(config), CHECKSUM)
    run_slots(study, config, slots, folder, kill_at)


def run_in_order(config: Config, folder: Path) -> list[dict[str, Any]]:
    """All slots one after the other: each trial's values."""
    study = open_study(open_storage(folder), search_plan(config), CHECKSUM)
    run_slots(study, config, range(config.search.n_trials), folder)
    return [trial.params for trial in study.get_trials(deepcopy=False)]


if __name__ == "__main__":
    # `slot_study.py FOLDER N_TRIALS`: run every algorithm and print the values of all trials.
    n_trials = int(sys.argv[2])
    print(
        json.dumps(
            {
                algorithm: run_in_order(small_config(algorithm, n_trials), Path(sys.argv[1], algorithm))
                for algorithm in ALGORITHMS
            }
        )
    )
