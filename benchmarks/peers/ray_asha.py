"""Ray Tune with its ASHA scheduler, one CPU a trial.

python peers/ray_asha.py TRIALS.json DATASET.h5 OUTPUT_DIR N_WORKERS

ASHA's grace period is longer than the longest trial, so that it stops none before the epochs that all contenders
train.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler


def main() -> None:
    trials_json, dataset, output, n_workers = sys.argv[1:5]
    trials = json.loads(Path(trials_json).read_text())
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    ray.init(
        num_cpus=int(n_workers),
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )

    def objective(config: dict[str, Any]) -> None:
        from keras_trial import train

        train(config["trial"], dataset, output, lambda epoch, error: tune.report({"error": error, "epoch": epoch}))

    # ASHA ends a trial that reports `max_t` at once, before its model is saved.
    never = 1 + max(trial["epochs"] for trial in trials)
    tuner = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        param_space={"trial": tune.grid_search(trials)},
        tune_config=tune.TuneConfig(
            scheduler=ASHAScheduler(
                metric="error", mode="min", time_attr="epoch", max_t=never, grace_period=never, reduction_factor=3
            )
        ),
        run_config=tune.RunConfig(storage_path=str(Path(output).resolve() / "ray"), verbose=0),
    )
    results = tuner.fit()
    if results.num_errors:
        sys.exit(f"{results.num_errors} trials failed")


if __name__ == "__main__":
    main()
