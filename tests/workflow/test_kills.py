"""`kill -9` of Snakemake itself: its jobs go on without it, and the next run goes on from there."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from clone import REPOSITORY, STUDY, Clone, edited
from ensembleflow.config import parse_config


class Started:
    """A running Snakemake and, once it is killed, its orphans."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._log = open(folder / "killed.log", "w+", encoding="utf-8")  # noqa: SIM115 - closed by end
        self._process = subprocess.Popen(command, cwd=folder, stdout=self._log, stderr=subprocess.STDOUT)
        self.orphans: list[psutil.Process] = []

    def wait_for(self, sign: Callable[[], bool]) -> None:
        """Wait until there is a sign of it being where it should be killed."""
        deadline = time.monotonic() + 120
        while not sign():
            assert self._process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill Snakemake, and nothing else."""
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        self.orphans = [child for child in children if child.is_running()]

    def end(self) -> None:
        """End what is left of it."""
        with suppress(psutil.NoSuchProcess):
            self.orphans += psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        for orphan in self.orphans:
            with suppress(psutil.NoSuchProcess):
                orphan.kill()
        self._log.close()


@pytest.fixture
def start() -> Iterator[Callable[[list[str], Path], Started]]:
    running: list[Started] = []

    def begin(command: list[str], folder: Path) -> Started:
        running.append(Started(command, folder))
        return running[-1]

    yield begin
    for each in running:
        each.end()


def locks(clone: Clone) -> list[Path]:
    return list((clone.folder / ".snakemake/locks").glob("*"))


def unlock(clone: Clone) -> str:
    """The first thing that `make run` does."""
    command = [sys.executable, "workflow/unlock.py"]
    return subprocess.run(command, cwd=clone.folder, capture_output=True, text=True, check=True).stderr


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def reports(journal: Path) -> Counter[tuple[int, int]]:
    """How often each (trial, epoch) was reported to Optuna."""
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    return Counter((line["trial_id"], line["step"]) for line in lines if "step" in line)


def test_a_search_goes_on_after_a_kill(fresh_copy: Clone, start: Callable[[list[str], Path], Started]) -> None:
    n_trials = 3
    fresh_copy.write_config(edited({"search.n_trials": n_trials}))
    run = start(fresh_copy.command("search"), fresh_copy.folder)
    records = fresh_copy.study / "search/store"
    run.wait_for(lambda: any(json.loads(path.read_text())["epochs"] for path in records.glob("*/*/record.json")))
    assert unlock(fresh_copy) == ""
    assert locks(fresh_copy), "the lock of a Snakemake that runs is left alone"
    run.kill()
    assert run.orphans, "its jobs go on"

    refused = fresh_copy.snakemake("search")
    assert refused.returncode != 0
    assert "--unlock" in refused.stdout or "--rerun-incomplete" in refused.stdout
    fresh_copy.run("--unlock")
    fresh_copy.run("search", "--rerun-incomplete")

    trials, epochs = (rows(fresh_copy.study / f"search/{name}.csv") for name in ("trials", "epochs"))
    assert [row["slot"] for row in trials] == [str(slot) for slot in range(n_trials)]
    assert {row["state"] for row in trials} <= {"COMPLETE", "PRUNED"}
    assert len({row["weights_sha256"] for row in trials}) == n_trials
    for trial in trials:
        own = [row for row in epochs if row["slot"] == trial["slot"]]
        assert [int(row["epoch"]) for row in own] == list(range(1, int(trial["epochs"]) + 1))
        ends = [float(trial["started_at"]), *(float(row["ended_at"]) for row in own)]
        assert all(float(row["started_at"]) >= end for row, end in zip(own, ends, strict=False))
    told = reports(fresh_copy.study / "search/study.journal")
    assert len({trial for trial, _ in told}) == n_trials
    assert len(told) == len(epochs)
    assert set(told.values()) == {1}, "no epoch was trained twice"
    assert not list(records.glob("*/*.lease"))
    assert fresh_copy.plan("search") == set()


def test_make_run_simply_works_again_after_a_kill(
    finished_copy: Clone, start: Callable[[list[str], Path], Started]
) -> None:
    # `make run` takes the default config, and the environment that runs this test.
    config = parse_config(STUDY).model_dump(mode="json")
    (finished_copy.folder / "config/config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    environment = finished_copy.folder / ".venv"
    environment.symlink_to(Path(sys.prefix))
    for stamp in (REPOSITORY / ".venv").glob("*.stamp"):
        stamp.touch()  # newer than the clone's lock: nothing to install
    for budget in STUDY["selection"]["budgets"]:
        shutil.rmtree(finished_copy.study / f"bundles/budget-{budget}")
    run = start([sys.executable, "-m", "snakemake", "--cores", "2"], finished_copy.folder)
    run.wait_for(lambda: any((finished_copy.folder / ".snakemake/incomplete").iterdir()))
    run.kill()
    assert locks(finished_copy)

    done = subprocess.run(
        ["make", "run", "CORES=2"],
        cwd=finished_copy.folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "removing its lock" in done.stdout
    assert "report: results/report.html" in done.stdout
    assert not locks(finished_copy)
    assert finished_copy.plan() == set()
