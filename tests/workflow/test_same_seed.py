"""Two runs with the same seed, each on one core, are the same run."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from clone import Clone

TIMES = {"started_at", "ended_at", "duration_seconds"}


@pytest.fixture(scope="module")
def second(untouched: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    clone = untouched.copy_to(tmp_path_factory.mktemp("second") / "ensembleflow")
    clone.run("results/digits-hyperband-s0/library/predictions.h5", cores=1)
    return clone


def rows_without_times(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


@pytest.mark.parametrize("table", ["search/trials.csv", "search/epochs.csv", "library/models.csv"])
def test_the_trials_are_the_same(finished: Clone, second: Clone, table: str) -> None:
    rows = rows_without_times(finished.study / table)
    assert len(rows) >= 4
    assert rows_without_times(second.study / table) == rows


@pytest.mark.parametrize("file", ["datasets/digits.h5", "digits-hyperband-s0/library/predictions.h5"])
def test_the_caches_are_the_same_byte_for_byte(finished: Clone, second: Clone, file: str) -> None:
    assert (second.results / file).read_bytes() == (finished.results / file).read_bytes()


def test_the_members_are_the_same_given_the_same_costs(finished: Clone, second: Clone) -> None:
    chosen = json.loads((finished.study / "selection/budget-2x.json").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "ensembleflow.cli", "select", str(second.study / "library/predictions.h5")]
    costs = str(finished.study / "library/costs.csv")
    done = subprocess.run(
        [*command, "--costs", costs, "--budget", "2x", "--json"], capture_output=True, text=True, check=True
    )
    again = json.loads(done.stdout)
    for key in ("members", "weight", "cost_seconds", "valid", "test", "trace"):
        assert again[key] == chosen[key]
