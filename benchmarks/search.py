"""The search stage against Ray Tune's ASHA and plain Optuna: the same networks, trials, epochs and workers.

    python -m venv /tmp/peers
    /tmp/peers/bin/pip install --require-hashes -r requirements.lock
    /tmp/peers/bin/pip install "ray[tune]"
    python benchmarks/search.py --peer-python /tmp/peers/bin/python

The trials are those of a search with the default config (`--data digits`, 8×8 images) or with larger networks on
made-up 32×32×3 images (`--data cifar_shaped`). Contenders take turns. Ours begins each round; the trials that it drew,
each for the epochs at which it stopped it, are what the others then train. The table gives medians over the rounds,
and medians of the rounds' ratios to ours. `--scaling` runs ours with one and with two workers instead.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import pandas as pd

from ensembleflow.io import write_csv

REPOSITORY = Path(__file__).resolve().parents[1]
PEERS = Path(__file__).parent / "peers"

DATA = {
    "digits": {"search": {"algorithm": "hyperband"}},
    "cifar_shaped": {
        "dataset": {
            "name": "cifar_shaped",
            "source": "synthetic",
            "synthetic": {"n_images": 4000, "image_shape": [32, 32, 3], "n_classes": 10},
        },
        "search": {
            "algorithm": "hyperband",
            "max_epochs": 3,
            "min_epochs": 1,
            "space": {"stem_filters": [16, 32], "stage_filters": [16, 32], "batch_size": [32, 48]},
        },
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=DATA, default="digits")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--trials-per-job", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--peer-python", type=Path, help="of the environment that has Ray")
    parser.add_argument("--scaling", action="store_true", help="ours with one and two workers, no peers")
    parser.add_argument("--csv", type=Path, help="write each round's seconds to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ensembleflow-benchmark-") as folder:
        (measure_scaling if arguments.scaling else measure_peers)(arguments, Path(folder))


def measure_peers(arguments: argparse.Namespace, folder: Path) -> None:
    peers = {"plain optuna": (Path(sys.executable), "plain_optuna.py")}
    if arguments.peer_python:
        peers["ray tune asha"] = (arguments.peer_python, "ray_asha.py")
    rows = []
    for number in range(1, arguments.rounds + 1):
        output = folder / f"ours-{number}"
        rows.append(("ours", number, ours(arguments, output, arguments.workers)))
        trials = recorded_trials(output)
        (folder / "trials.json").write_text(json.dumps(trials))
        (dataset,) = output.glob("results/datasets/*.h5")
        n_epochs = sum(trial["epochs"] for trial in trials)
        print(f"round {number}: {len(trials)} trials, {n_epochs} epochs, {arguments.workers} workers", flush=True)
        print(f"  ours: {rows[-1][2]:.1f} s; of the jobs' time {phases(output)}", flush=True)
        for name, (python, script) in peers.items():
            models = folder / f"{script}-{number}"
            command = [python, PEERS / script, folder / "trials.json", dataset, models, arguments.workers]
            rows.append((name, number, timed([str(part) for part in command], models)))
            n_models = len(list(models.rglob("trial-*.keras")))
            assert n_models == len(trials), f"{name} left {n_models} of {len(trials)} models"
            print(f"  {name}: {rows[-1][2]:.1f} s", flush=True)
            shutil.rmtree(models)
        shutil.rmtree(output)
    table = pd.DataFrame(rows, columns=["contender", "round", "seconds"]).pivot(
        index="round", columns="contender", values="seconds"
    )
    summary = pd.DataFrame({"median_seconds": table.median(), "times_ours": table.div(table["ours"], axis=0).median()})
    print(summary.sort_values("times_ours").to_string(float_format=lambda value: f"{value:.2f}"))
    if arguments.csv:
        write_csv(arguments.csv, table.reset_index())


def measure_scaling(arguments: argparse.Namespace, folder: Path) -> None:
    ratios = []
    for number in range(1, arguments.rounds + 1):
        rates = {}
        for workers in (1, 2):
            output = folder / f"{workers}-{number}"
            seconds = ours(arguments, output, workers, algorithm="random", max_epochs=4, min_epochs=1)
            rates[workers] = 3600 * sum(trial["epochs"] for trial in recorded_trials(output)) / seconds
            print(
                f"round {number}, {workers} workers: {rates[workers]:.0f} epochs per hour; {phases(output)}", flush=True
            )
            shutil.rmtree(output)
        ratios.append(rates[2] / rates[1])
    print(f"epochs per hour with two workers, times those with one: {ratios}, median {median(ratios):.2f}")


def ours(arguments: argparse.Namespace, output: Path, workers: int, **search: object) -> float:
    """`snakemake search` in a fresh results folder: seconds."""
    output.mkdir()
    config = json.loads(json.dumps(DATA[arguments.data]))
    config["results_dir"] = str(output / "results")
    config["search"].update(n_trials=arguments.trials, trials_per_job=arguments.trials_per_job, **search)
    (output / "config.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "snakemake", "search", "--cores", str(workers), "--quiet", "all"]
    place = ["--snakefile", str(REPOSITORY / "Snakefile"), "--configfile", str(output / "config.yaml")]
    return timed([*command, *place, "--directory", str(output)], output)


def timed(command: list[str], output: Path) -> float:
    output.mkdir(exist_ok=True)
    path = os.pathsep.join(filter(None, [str(REPOSITORY / "workflow"), os.environ.get("PYTHONPATH", "")]))
    started_at = time.perf_counter()
    with open(output / "output.txt", "w") as log:
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log, check=False)
    seconds = time.perf_counter() - started_at
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{(output / 'output.txt').read_text()[-3000:]}")
    return seconds


def recorded_trials(output: Path) -> list[dict[str, object]]:
    records = [
        trial
        for path in sorted(output.glob("results/*/search/trials/job-*.json"))
        for trial in json.loads(path.read_text())["trials"]
    ]
    return [
        {"slot": trial["slot"], "hyperparameters": trial["hyperparameters"], "epochs": len(trial["epochs"])}
        for trial in sorted(records, key=lambda trial: trial["slot"])
        if trial["epochs"]
    ]


def phases(output: Path) -> str:
    """Where the search jobs' processes spent their time."""
    (search,) = output.glob("results/*/search")
    trials, runs = pd.read_csv(search / "trials.csv"), pd.read_csv(search / "runs.csv")
    runs = runs.drop_duplicates(["host", "process_id"])
    seconds = {"start": float((runs.ready_at - runs.process_started_at).sum())}
    for phase in ("build", "input", "step", "valid", "checkpoint", "storage"):
        seconds[phase] = float(trials[f"{phase}_seconds"].sum())
    total = sum(seconds.values())
    return ", ".join(f"{name} {value:.1f} s ({100 * value / total:.0f} %)" for name, value in seconds.items())


if __name__ == "__main__":
    main()
