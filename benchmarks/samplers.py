"""What proposing a trial costs each algorithm, by the number of finished trials: the simulator's sampler seconds.

    python benchmarks/samplers.py
    python benchmarks/samplers.py --algorithms tpe --trials 10 100

The study is in memory, so that no storage's time is in it. Every trial has been trained to its end.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import optuna
import pandas as pd
from optuna.trial import TrialState

from ensembleflow.config import parse_config
from ensembleflow.io import write_csv
from ensembleflow.planning.search_plan import SearchPlan, plan_job
from ensembleflow.search.optuna_internals import add_trial
from ensembleflow.search.space import distributions, suggest_hyperparameters
from ensembleflow.search.study import claim_slot, open_study

# The paper's space: nothing fixed.
SPACE = {f"blocks_stage_{stage}": [1, 11] for stage in range(1, 5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", default=["random", "genetic", "tpe", "bohb", "gp", "smac"])
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 30, 100, 300, 1000])
    parser.add_argument("--proposals", type=int, default=3)
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    table = pd.DataFrame(measure(arguments.algorithms, arguments.trials, arguments.proposals))
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    if arguments.csv:
        write_csv(arguments.csv, table)


def measure(algorithms: list[str], counts: list[int], n_proposals: int) -> Iterator[dict[str, object]]:
    for algorithm in algorithms:
        # What is imported and compiled at the first proposal, each process pays once.
        (first,) = propose(algorithm, 20, 1)
        for n_finished in counts:
            seconds = median(propose(algorithm, n_finished, n_proposals))
            yield {"algorithm": algorithm, "finished_trials": n_finished, "seconds": seconds, "first_seconds": first}


def propose(algorithm: str, n_finished: int, n_proposals: int) -> list[float]:
    study, plan = finished_study(algorithm, n_finished)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for slot in range(n_finished, n_finished + n_proposals):
            trial = claim_slot(study, slot, Path(folder))
            begin = time.perf_counter()
            suggest_hyperparameters(trial, plan.search)
            seconds.append(time.perf_counter() - begin)
    return seconds


def finished_study(algorithm: str, n_trials: int) -> tuple[optuna.Study, SearchPlan]:
    search = {"algorithm": algorithm, "n_trials": 3 * max(n_trials, 1), "trials_per_job": 1, "space": SPACE}
    plan = SearchPlan.from_json(plan_job(parse_config({"search": search}), 0))
    storage = optuna.storages.InMemoryStorage()
    study = open_study(storage, plan, "benchmark")
    space = distributions(plan.search)
    sampler = optuna.samplers.RandomSampler(seed=0)
    draw = random.Random(0)
    blank = optuna.trial.create_trial(state=TrialState.WAITING)
    for _ in range(n_trials):
        values = {name: sampler.sample_independent(study, blank, name, each) for name, each in space.items()}
        error = draw.random()
        trial = optuna.trial.create_trial(
            value=error, params=values, distributions=space, intermediate_values={9: error}
        )
        add_trial(study, trial)
    return study, plan


if __name__ == "__main__":
    main()
