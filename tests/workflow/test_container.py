"""`--software-deployment-method apptainer` runs each job's script in the image that envs/ensembleflow.def makes.

In place of Apptainer, which CI's machine cannot have, stands a script that notes what it is asked for and runs the
command here: the test is of what Snakemake asks for, not of the image.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

STAND_IN = """#!/bin/sh
[ "$1" != --version ] || { echo "apptainer version 1.3.0"; exit; }
printf '%s\\n' "$*" >> "$ASKED"
while [ $# -gt 3 ]; do shift; done # SHELL -c COMMAND are left
exec "$@"
"""


def run_dataset_rule(clone: Path, folder: Path, *options: str) -> list[str]:
    """Make the data set; returns the lines that the stand-in was called with."""
    (folder / "bin").mkdir()
    stand_in = folder / "bin/apptainer"
    stand_in.write_text(STAND_IN, encoding="utf-8")
    stand_in.chmod(0o755)
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "config/tiny.yaml", *options]
    done = subprocess.run(
        [*command, "--", "results/datasets/digits.h5"],
        cwd=clone,
        env={**os.environ, "PATH": path, "ASKED": str(folder / "asked.txt")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    asked = folder / "asked.txt"
    return asked.read_text(encoding="utf-8").splitlines() if asked.exists() else []


@pytest.fixture
def clone(copy_repository: Callable[[Path], None], tmp_path: Path) -> Path:
    folder = tmp_path / "ensembleflow"
    copy_repository(folder)
    return folder


def test_a_job_runs_in_the_image_and_with_the_options_given(clone: Path, tmp_path: Path) -> None:
    options = ["--software-deployment-method", "apptainer", "--apptainer-args=--nv"]
    (asked,) = [line for line in run_dataset_rule(clone, tmp_path, *options) if "prepare_dataset" in line]
    words = shlex.split(asked, posix=False)
    assert words[0] == "exec"
    assert "--nv" in words
    assert str(clone / "ensembleflow.sif") in words
    assert str(clone) in words[words.index("--home") + 1]


def test_without_the_option_nothing_asks_for_apptainer(clone: Path, tmp_path: Path) -> None:
    assert run_dataset_rule(clone, tmp_path) == []
