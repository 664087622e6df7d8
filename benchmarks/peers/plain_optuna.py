"""The plain thing: worker processes that call `study.optimize`, with `model.fit` inside.

python peers/plain_optuna.py TRIALS.json DATASET.h5 OUTPUT_DIR N_WORKERS
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import optuna
from keras_trial import train
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend


def open_study(output: str) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(Path(output) / "study.journal")))
    return optuna.create_study(
        storage=storage, study_name="plain", sampler=optuna.samplers.RandomSampler(), load_if_exists=True
    )


def work(trials_json: str, dataset: str, output: str) -> None:
    trials = json.loads(Path(trials_json).read_text())

    def objective(optuna_trial: optuna.Trial) -> float:
        trial = trials[optuna_trial.suggest_int("index", 0, len(trials) - 1)]
        errors: list[float] = []

        def report(epoch: int, error: float) -> None:
            errors.append(error)
            optuna_trial.report(error, epoch)

        train(trial, dataset, output, report)
        return errors[-1]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = open_study(output)
    while any(trial.state == optuna.trial.TrialState.WAITING for trial in study.get_trials(deepcopy=False)):
        study.optimize(objective, n_trials=1)


def main() -> None:
    trials_json, dataset, output, n_workers = sys.argv[1:5]
    if n_workers == "0":
        work(trials_json, dataset, output)
        return
    study = open_study(output)
    for index in range(len(json.loads(Path(trials_json).read_text()))):
        study.enqueue_trial({"index": index})
    command = [sys.executable, __file__, trials_json, dataset, output, "0"]
    workers = [subprocess.Popen(command) for _ in range(int(n_workers))]
    if sum(worker.wait() for worker in workers):
        sys.exit("a worker failed")


if __name__ == "__main__":
    main()
