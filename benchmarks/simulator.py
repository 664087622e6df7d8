"""How well `ensembleflow plan` predicts: real searches on one and on two workers, each predicted from each.

    python benchmarks/simulator.py                           # 24 trials of the default config, about four minutes
    python benchmarks/simulator.py --trials 8 --rounds 1     # a quick look
    python benchmarks/simulator.py --folder FOLDER           # keep the recordings; found ones are not made again

Every round runs the search once with each number of workers, in folders of their own; a worker is a process that
takes the next job when its job has ended, as under Snakemake. The machine must have a core to spare for each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pandas as pd

from ensembleflow.config import Config, load_config
from ensembleflow.datasets import prepare_dataset
from ensembleflow.io import provenance, write_csv
from ensembleflow.planning.search_plan import plan_job, search_jobs
from ensembleflow.search import JobSpec, freeze_tables, run_search_job
from ensembleflow.search.accounting import account_study, write_accounting
from ensembleflow.search.simulation import Limits, TrialSource, read_recording, simulate

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", type=Path, nargs="+", default=[], help="over config/config.yaml")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--trials-per-job", type=int, default=4)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the searches go (default: a temporary folder)")
    parser.add_argument("--job", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        run_job(*arguments.job)
        return
    config = load_config([ROOT / "config/config.yaml", *arguments.configfile])
    search = config.search.model_copy(update={"n_trials": arguments.trials, "trials_per_job": arguments.trials_per_job})
    config = config.model_copy(update={"search": search})
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        rows = list(compare(config, folder, arguments.workers, arguments.rounds))
        table = pd.DataFrame(rows)
        if arguments.folder:
            write_csv(folder / "predictions.csv", table)
    report(table)


def compare(config: Config, folder: Path, workers: list[int], rounds: int) -> Iterator[dict[str, object]]:
    dataset = folder / "dataset.h5"
    if not dataset.exists():
        prepare_dataset(config.dataset, dataset)
    for number in range(rounds):
        searches = {n: folder / f"round-{number}" / f"workers-{n}" for n in workers}
        for n, search_dir in searches.items():
            if not (search_dir / "accounting.json").exists():
                run_search(config, dataset, search_dir, n)
        for recorded, source_dir in searches.items():
            for planned, target_dir in searches.items():
                yield {"round": number, **predict(config, recorded, source_dir, planned, target_dir)}


def run_search(config: Config, dataset: Path, search_dir: Path, n_workers: int) -> None:
    search_dir.mkdir(parents=True, exist_ok=True)
    config_json = search_dir / "config.json"
    config_json.write_text(config.model_dump_json())
    waiting = list(range(len(search_jobs(config.search))))
    running: list[subprocess.Popen[bytes]] = []
    print(f"{search_dir}: {len(waiting)} jobs on {n_workers} workers", flush=True)
    while waiting or running:
        while waiting and len(running) < n_workers:
            running.append(start_job(config_json, waiting.pop(0), dataset, search_dir))
        time.sleep(0.02)
        for process in [each for each in running if each.poll() is not None]:
            if process.returncode:
                sys.exit(f"a job failed: its log is in {search_dir}")
            running.remove(process)
    tables = [search_dir / f"{name}.csv" for name in ("trials", "epochs", "runs")]
    jobs = [search_dir / "trials" / f"job-{job}.json" for job in range(len(search_jobs(config.search)))]
    freeze_tables(jobs, *tables)
    write_accounting(search_dir, config.search.max_epochs, search_dir / "accounting.json")


def start_job(config_json: Path, job: int, dataset: Path, search_dir: Path) -> subprocess.Popen[bytes]:
    search_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--job", str(config_json), str(job), str(dataset), str(search_dir)]
    with open(search_dir / f"job-{job}.log", "wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def run_job(config_json: str, job: str, dataset: str, search_dir: str) -> None:
    config = Config.model_validate_json(Path(config_json).read_text())
    folder = Path(search_dir)
    run_search_job(
        JobSpec(plan_job(config, int(job)), dataset, search_dir, n_trials=config.search.n_trials),
        folder / "trials" / f"job-{job}.json",
        folder / "models" / f"job-{job}",
    )


def predict(config: Config, recorded: int, source_dir: Path, planned: int, target_dir: Path) -> dict[str, object]:
    recording = read_recording(source_dir, config.search.metric)
    real = account_study(target_dir, config.search.max_epochs)
    epochs = pd.read_csv(target_dir / "trials.csv").set_index("slot")["epochs"]
    limits = Limits(
        launch_seconds=recording.launch_seconds or 0.0,
        start_seconds=recording.start_seconds,
        between_seconds=recording.between_seconds,
        jobs_per_second=1000.0,
        open_seconds_per_trial=0.0,  # a process's recorded start has it
    )
    found = simulate(
        config.search,
        TrialSource(recording, config.search.max_epochs),
        planned,
        limits,
        study_name=json.loads((source_dir / "trials/job-0.json").read_text())["optuna_study"],
        recorded_algorithm=config.search.algorithm,
    )
    return {
        "recorded": recorded,
        "planned": planned,
        "real_seconds": real["duration_seconds"],
        "simulated_seconds": found.duration_seconds,
        "error_percent": 100 * (found.duration_seconds / real["duration_seconds"] - 1),
        "real_epochs": real["epochs"]["trained"],
        "simulated_epochs": sum(found.epochs),
        "other_slots": sum(epochs[slot] != n for slot, n in enumerate(found.epochs)),
        "real_occupancy": real["occupancy"],
        "simulated_occupancy": found.occupancy,
    }


def report(table: pd.DataFrame) -> None:
    print(table.to_string(index=False, float_format=lambda value: f"{value:.2f}"))
    for (recorded, planned), rows in table.groupby(["recorded", "planned"]):
        errors = rows["error_percent"]
        worst = errors.loc[errors.abs().idxmax()]
        print(f"recorded on {recorded}, planned for {planned}: error {median(errors):+.1f} % (worst {worst:+.1f} %)")
    print(json.dumps(provenance(), indent=1))


if __name__ == "__main__":
    main()
