"""`kill -9` of Snakemake itself: its jobs go on without it, and the next run goes on from there."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from ensembleflow.config import parse_config
from support.clone import REPOSITORY, STUDY, Clone
from support.killed_snakemake import Started, locks


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def reports(journal: Path) -> Counter[tuple[int, int]]:
    """How often each (trial, epoch) was reported to Optuna."""
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    return Counter((line["trial_id"], line["step"]) for line in lines if "step" in line)


def test_a_search_goes_on_after_a_kill(killed_and_resumed: Clone) -> None:
    n_trials = STUDY["search"]["n_trials"]
    trials, epochs = (rows(killed_and_resumed.study / f"search/{name}.csv") for name in ("trials", "epochs"))
    assert [row["slot"] for row in trials] == [str(slot) for slot in range(n_trials)]
    assert {row["state"] for row in trials} <= {"COMPLETE", "PRUNED"}
    assert len({row["weights_sha256"] for row in trials}) == n_trials
    for trial in trials:
        own = [row for row in epochs if row["slot"] == trial["slot"]]
        assert [int(row["epoch"]) for row in own] == list(range(1, int(trial["epochs"]) + 1))
        ends = [float(trial["started_at"]), *(float(row["ended_at"]) for row in own)]
        assert all(float(row["started_at"]) >= end for row, end in zip(own, ends, strict=False))
    told = reports(killed_and_resumed.study / "search/study.journal")
    assert len({trial for trial, _ in told}) == n_trials
    assert len(told) == len(epochs)
    assert set(told.values()) == {1}, "no epoch was trained twice"
    assert not list(killed_and_resumed.study.glob("search/store/*/*.lease"))
    assert killed_and_resumed.plan("search") == set()


@pytest.mark.parametrize("logger", [[], ["--logger", "ensembleflow"]], ids=["plain", "make run"])
def test_ctrl_c_says_what_is_kept_and_how_to_go_on(fresh_copy: Clone, logger: list[str]) -> None:
    command = fresh_copy.command("search", *logger)
    with Started(command, fresh_copy.folder) as run:
        records = fresh_copy.study / "search/store"
        run.wait_for(lambda: any(json.loads(path.read_text())["epochs"] for path in records.glob("*/*/record.json")))
        said = run.press_ctrl_c()
    for word in ("Traceback", "Error", "failed"):
        assert word not in said
    stops = [line for line in said.splitlines() if line.startswith("stopped")]
    assert len(stops) == said.count("; kept: trial-") + said.count("before a first epoch was done")
    assert "; kept: trial-0000" in said
    (way_on,) = [line for line in said.splitlines() if "to go on: " in line]
    ends = [path.read_text().splitlines()[-1] for path in fresh_copy.results.glob("logs/*/train_trials/*.log")]
    assert len(ends) == len(stops)
    assert all(" ended: it was interrupted; " in end for end in ends), ends
    if logger:
        assert "interrupted: " in said
        assert len(said.splitlines()) < 20, said
    typed = shlex.split(way_on.partition("to go on: ")[2])
    assert typed == ["snakemake", *command[3:]]
    done = subprocess.run(
        [sys.executable, "-m", *typed], cwd=fresh_copy.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = reports(fresh_copy.study / "search/study.journal")
    assert set(told.values()) == {1}, "no epoch was trained twice"


def test_make_run_simply_works_again_after_a_kill(finished_copy: Clone) -> None:
    # `make run` takes the default config, and the environment that runs this test.
    config = parse_config(STUDY).model_dump(mode="json")
    (finished_copy.folder / "config/config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    environment = finished_copy.folder / ".venv"
    environment.symlink_to(Path(sys.prefix))
    for stamp in (REPOSITORY / ".venv").glob("*.stamp"):
        stamp.touch()  # newer than the clone's lock: nothing to install
    for budget in STUDY["selection"]["budgets"]:
        shutil.rmtree(finished_copy.study / f"bundles/budget-{budget}")
    with Started([sys.executable, "-m", "snakemake", "--cores", "2"], finished_copy.folder) as run:
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
