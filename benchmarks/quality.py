"""What comes out, held against what a person would do instead: same images, same processor time, several seeds.

    sudo apt install dataset-fashion-mnist
    python3.11 -m venv /tmp/autokeras
    /tmp/autokeras/bin/pip install -r envs/autokeras.txt
    python benchmarks/quality.py --autokeras-python /tmp/autokeras/bin/python

For each data set and seed the workflow runs up to its ensembles, on one core. The processor seconds of that run, all
its processes counted, are then given to each of the others: the workflow without averaged weights (which trains as many
trials), a plain convolutional network trained again and again, and Auto-Keras. A support vector machine takes what it
takes. The seed is that of the split too: each seed has other training images, and of the digits other test images.

Means over the seeds with 95 % intervals (Student's t), then the differences to ours, taken seed by seed. `--jobs` runs
that many seeds side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ensembleflow.io import write_csv, write_json
from ensembleflow.report.paper.interval import mean_interval

REPOSITORY = Path(__file__).resolve().parents[1]
PEERS = Path(__file__).parent / "peers"

# Config file, and the epochs of a peer's network: about as many as it takes until more do not help.
DATA = {"digits": ("config/config.yaml", 60), "fashion": ("config/fashion_mnist.yaml", 15)}
OURS, UNAVERAGED = "ours", "ours, without averaging"
METRICS = ("error", "cross_entropy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="seeds side by side, a core each")
    parser.add_argument("--config", type=Path, help="other settings of ours, after those of the data set")
    parser.add_argument("--autokeras-python", type=Path, help="of the environment that has Auto-Keras")
    parser.add_argument(
        "--contenders", nargs="+", default=["unaveraged", "cnn", "autokeras", "svm"], help="beside ours"
    )
    parser.add_argument("--scratch", type=Path, help="keep results and logs here; a run that was stopped goes on")
    parser.add_argument("--csv", type=Path, help="write every answer of every seed to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ensembleflow-quality-") as folder:
        scratch = (arguments.scratch or Path(folder)).absolute()
        runs = [(data, seed) for data in arguments.data for seed in arguments.seeds]
        with ThreadPoolExecutor(arguments.jobs) as pool:
            answers = pd.concat(pool.map(partial(contest, arguments=arguments, scratch=scratch), runs))
    for data in arguments.data:
        print_summary(data, answers[answers["data"] == data])
    if arguments.csv:
        write_csv(arguments.csv, answers)


def contest(run: tuple[str, int], arguments: argparse.Namespace, scratch: Path) -> pd.DataFrame:
    """All contenders on one data set with one seed, one row per answer; what the scratch folder has is kept."""
    data, seed = run
    folder = scratch / f"{data}-{seed}"
    rows: list[dict[str, Any]] = []

    def add(name: str, run_contender: Callable[[], tuple[float, dict[str, Any]]]) -> float:
        result = folder / f"{name}.result.json"
        if not result.exists():
            cpu_seconds, answers = run_contender()
            write_json(result, {"cpu_seconds": cpu_seconds, "answers": answers})
        made = json.loads(result.read_text())
        for contender, answer in made["answers"].items():
            rows.append(
                {"data": data, "seed": seed, "contender": contender, "cpu_seconds": made["cpu_seconds"], **answer}
            )
            shown = f"{100 * answer['error']:.2f} %, cross-entropy {answer['cross_entropy']:.4f}"
            print(f"{data}, seed {seed}, {contender}: {shown}, {made['cpu_seconds']:.0f} CPU-s", flush=True)
        return float(made["cpu_seconds"])

    cpu_seconds = add("ours", lambda: run_workflow(folder / "ours", data, seed, OURS, arguments.config))
    (dataset,) = folder.glob("ours/results/datasets/*.h5")
    options = json.dumps({"cpu_seconds": cpu_seconds, "epochs": DATA[data][1], "seed": seed})

    def run_peer(python: Path | str, script: str) -> tuple[float, dict[str, Any]]:
        answers = folder / f"{script}.json"
        command = [str(python), str(PEERS / script), str(dataset), str(answers), options]
        return timed(command, folder / f"{script}.txt"), json.loads(answers.read_text())

    if "unaveraged" in arguments.contenders:
        last = {"search": {"average": "none"}}
        add("unaveraged", lambda: run_workflow(folder / "unaveraged", data, seed, UNAVERAGED, arguments.config, last))
    if "cnn" in arguments.contenders:
        add("cnn", lambda: run_peer(sys.executable, "plain_cnn.py"))
    if "autokeras" in arguments.contenders and arguments.autokeras_python:
        add("autokeras", lambda: run_peer(arguments.autokeras_python, "autokeras_timed.py"))
    if "svm" in arguments.contenders:
        add("svm", lambda: run_peer(sys.executable, "svm_pixels.py"))
    return pd.DataFrame(rows)


def run_workflow(
    folder: Path, data: str, seed: int, name: str, other: Path | None, *settings: dict[str, Any]
) -> tuple[float, dict[str, Any]]:
    """`snakemake --until collect_ensembles` in a fresh folder: processor seconds, and what the ensembles answer."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    own = {"seed": seed, "results_dir": str(folder / "results"), "dataset": {"split_seed": seed}}
    files = [REPOSITORY / DATA[data][0], *([other.absolute()] if other else [])]
    for number, block in enumerate((own, *settings)):
        files.append(folder / f"config-{number}.yaml")
        files[-1].write_text(yaml.safe_dump(block))
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--until", "collect_ensembles"]
    place = ["--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(folder)]
    seconds = timed([*command, *place, "--configfile", *map(str, files)], folder / "output.txt")
    return seconds, ensembles(folder, name)


def ensembles(folder: Path, name: str) -> dict[str, dict[str, float]]:
    """The ensembles of the smallest and of the largest budget; the latter is the contender's answer."""
    (path,) = folder.glob("results/*/selection/ensembles.csv")
    table = pd.read_csv(path)
    table = table[table["chosen"]]
    return {
        f"{name}{suffix}": {
            "networks": int(row["n_members"]),
            "error": float(row["test_error"]),
            "cross_entropy": float(row["test_cross_entropy"]),
        }
        for suffix, row in ((f", within {table['budget'].iloc[0]}", table.iloc[0]), ("", table.iloc[-1]))
    }


def timed(command: Sequence[str], output: Path) -> float:
    """Processor seconds of a command and of all the processes that it waited for."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY / "workflow"), os.environ.get("PYTHONPATH", "")]))
    with open(output, "w") as log:
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{output.read_text()[-3000:]}")
    return usage.ru_utime + usage.ru_stime


def print_summary(data: str, answers: pd.DataFrame) -> None:
    contenders = list(dict.fromkeys(answers["contender"]))
    rows = []
    for contender in contenders:
        own = answers[answers["contender"] == contender].set_index("seed")
        row: dict[str, str] = {
            "contender": contender,
            "networks": " ".join(str(int(n)) for n in own["networks"]),
            "CPU-s": f"{own['cpu_seconds'].median():.0f}",
        }
        for metric in METRICS:
            ours = answers[answers["contender"] == OURS].set_index("seed")[metric]
            unit, digits = (100, 2) if metric == "error" else (1, 4)
            row[metric] = spread(unit * own[metric], digits)
            row[f"{metric}: minus ours"] = "" if contender == OURS else spread(unit * (own[metric] - ours), digits)
        rows.append(row)
    print(f"\n{data}, seeds {sorted(set(answers['seed']))}; errors in %, 95 % intervals in brackets")
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


def spread(values: pd.Series, digits: int) -> str:
    mean, low, high = mean_interval([float(value) for value in values.dropna()])
    return f"{mean:.{digits}f}" + (f" [{low:.{digits}f}, {high:.{digits}f}]" if len(values.dropna()) > 1 else "")


if __name__ == "__main__":
    main()
