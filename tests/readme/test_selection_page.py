"""docs/selection.md as typed: its Python, its command, and the columns that it explains."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensembleflow.config import SelectionConfig
from ensembleflow.io import read_csv, write_csv
from ensembleflow.library import create_predictions
from ensembleflow.selection import collect_ensembles, compare_methods, select_ensemble

PAGE = (Path(__file__).resolve().parents[2] / "docs/selection.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n(?:\n```\n(.*?)```)?", PAGE, re.DOTALL)
(COMMAND,) = re.findall(r"^ensembleflow select results.*$", PAGE, re.MULTILINE)
LIBRARY = "results/digits-hyperband-s0/library"
N_MODELS, N_CLASSES, N_SAMPLES = 10, 4, 200
MEGABYTES = 2.0**20 * np.arange(20, 20 + N_MODELS)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the default run leaves of its library, made up."""
    folder = tmp_path_factory.mktemp("project")
    (folder / LIBRARY).mkdir(parents=True)
    models = [f"trial-{slot:05d}" for slot in range(N_MODELS)]
    random = np.random.default_rng(0)
    labels = {split: random.integers(0, N_CLASSES, N_SAMPLES) for split in ("valid", "test")}
    with create_predictions(
        folder / LIBRARY / "predictions.h5",
        study="digits-hyperband-s0",
        dataset_checksum="0" * 64,
        class_names=list("abcd"),
        models=models,
        weights_sha256=["0"] * N_MODELS,
        labels=labels,
    ) as writer:
        for split, truth in labels.items():
            for model in range(N_MODELS):
                powers = np.exp(random.normal(0, 1.5, (N_SAMPLES, N_CLASSES)) + 2 * np.eye(N_CLASSES)[truth])
                writer.write(split, model, 0, powers / powers.sum(axis=1, keepdims=True))
    seconds = random.uniform(1, 2, N_MODELS)
    costs = {"cost_seconds": seconds, "parameter_bytes": 1e6 * seconds, "peak_memory_bytes": MEGABYTES}
    write_csv(folder / LIBRARY / "costs.csv", pd.DataFrame({"model": models, **costs}))
    return folder


def typed(folder: Path, *command: str) -> str:
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": binaries}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", range(len(EXAMPLES)))
def test_the_pages_python_runs_in_a_fresh_interpreter_and_prints_what_the_page_shows(
    example: int, project: Path
) -> None:
    code, shown = EXAMPLES[example]
    output = typed(project, sys.executable, "-c", code)
    assert output
    if shown:
        assert output == shown


def test_the_pages_command_chooses_within_the_budget(project: Path) -> None:
    output = typed(project, "bash", "-c", COMMAND)
    assert "budget 3x,peak_memory_bytes=3x" in output
    assert "chosen" in output


def test_the_page_names_every_column_of_the_stages_tables(project: Path) -> None:
    files = project / LIBRARY / "predictions.h5", project / LIBRARY / "costs.csv"
    budgets = [project / f"budget-{budget}.json" for budget in ("2x", "4x")]
    tables = {name: project / f"{name}.csv" for name in ("ensembles", "pareto", "trace", "comparison", "fronts")}
    config = SelectionConfig(branch_and_bound_nodes=10)
    for path in budgets:
        select_ensemble(*files, config, path.stem.removeprefix("budget-"), path)
    collect_ensembles(budgets, tables["ensembles"], tables["pareto"], tables["trace"])
    compare_methods(*files, budgets, config, tables["comparison"], tables["fronts"])
    columns = {column for path in tables.values() for column in read_csv(path, []).columns}
    names = {re.sub("^(valid|test)_", "", column) for column in columns}
    assert sorted(name for name in names if f"`{name}`" not in PAGE) == []
