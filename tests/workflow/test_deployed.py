"""The workflow as a module of somebody's own folder, as `snakedeploy deploy-workflow` writes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ensembleflow.datasets import open_dataset

ADDRESS = "https://github.com/example/ensembleflow"
# What snakedeploy makes of its template, with the repository's config folder beside it.
SNAKEFILE = """
configfile: "config/config.yaml"


module ensembleflow:
    snakefile:
        github("example/ensembleflow", path="workflow/Snakefile", tag="v0")
    config:
        config


use rule * from ensembleflow
"""

RULES = ("prepare_dataset", "train_trials", "make_bundle", "make_report")


@pytest.fixture
def deployed(copy_repository: Callable[[Path], None], tmp_path: Path) -> Path:
    """A folder that has nothing of the repository but a Snakefile of a few lines and the config files."""
    repository = tmp_path / "repository"
    repository.mkdir()
    copy_repository(repository)
    git = ["git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "all"], ["tag", "v0"]):
        subprocess.run([*git, *words], cwd=repository, check=True)
    folder = tmp_path / "own"
    shutil.copytree(repository / "config", folder / "config")
    (folder / "workflow").mkdir()
    (folder / "workflow/Snakefile").write_text(SNAKEFILE, encoding="utf-8")
    return folder


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_without_a_target_everything_is_planned(
    copy_repository: Callable[[Path], None], tmp_path: Path, snakefile: str
) -> None:
    copy_repository(tmp_path)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--snakefile", snakefile]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(
        f"\n{rule} " in done.stdout for rule in ("prepare_dataset", "train_trials", "make_bundle", "make_report")
    )


def test_it_plans_everything_and_runs_with_the_installed_package(deployed: Path) -> None:
    # The forge's address leads to the local repository.
    forge = {"GIT_CONFIG_KEY_0": f"url.file://{deployed.parent}/repository.insteadOf", "GIT_CONFIG_VALUE_0": ADDRESS}
    environment = {**os.environ, **forge, "GIT_CONFIG_COUNT": "1", "XDG_CACHE_HOME": str(deployed.parent / "cache")}

    def snakemake(*words: str) -> str:
        command = [sys.executable, "-m", "snakemake", "--cores", "1", *words]
        done = subprocess.run(command, cwd=deployed, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    plan = snakemake("--dry-run")
    assert all(f"\n{rule} " in plan for rule in RULES)
    snakemake("results/datasets/digits.h5")
    with open_dataset(deployed / "results/datasets/digits.h5") as dataset:
        assert len(dataset.class_names) == 10
