"""Two runs with the same seed, each on one core, are the same run, though the second one was killed and resumed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.clone import Clone


def rows_without_times(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: value for name, value in row.items() if not name.endswith(("_at", "_seconds"))}
            for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize("table", ["search/trials.csv", "search/epochs.csv", "library/models.csv"])
def test_the_trials_are_the_same(finished: Clone, killed_and_resumed: Clone, table: str) -> None:
    rows = rows_without_times(finished.study / table)
    assert len(rows) >= 4
    assert rows_without_times(killed_and_resumed.study / table) == rows


@pytest.mark.parametrize("file", ["datasets/digits.h5", "digits-hyperband-s0/library/predictions.h5"])
def test_the_caches_are_the_same_byte_for_byte(finished: Clone, killed_and_resumed: Clone, file: str) -> None:
    assert (killed_and_resumed.results / file).read_bytes() == (finished.results / file).read_bytes()


def test_the_members_are_the_same_given_the_same_costs(finished: Clone, killed_and_resumed: Clone) -> None:
    chosen = json.loads((finished.study / "selection/budget-2x.json").read_text(encoding="utf-8"))
    predictions, costs = killed_and_resumed.study / "library/predictions.h5", finished.study / "library/costs.csv"
    command = [sys.executable, "-m", "ensembleflow.cli", "select", str(predictions), "--costs", str(costs)]
    done = subprocess.run([*command, "--budget", "2x", "--json"], capture_output=True, text=True, check=True)
    again = json.loads(done.stdout)
    for key in ("members", "weight", "cost_seconds", "valid", "test", "trace"):
        assert again[key] == chosen[key]
