"""Kernels are cached where one may write, and compiled anew where one may not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "workflow/ensembleflow"
KERNEL = """
import numpy as np
from ensembleflow.selection.sums.compiled import compiled
from ensembleflow.selection.rivals import certificate_kernels
from ensembleflow.selection.sums import check_kernels, kernels, prediction_kernels
from ensembleflow.selection.sums.checks import ranges_of

found = ranges_of(np.array([[0.25, 0.75]]), np.array([0, 1]), 2, 0)
print(found.lowest.tolist(), found.highest.tolist())
"""
KERNEL_MODULES = {"compiled", "kernels", "check_kernels", "prediction_kernels", "certificate_kernels"}
TENSORFLOW_MODULES = {"gpu_sums"}
WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = sys.modules["llvmlite"] = None  # importing them fails
"""


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize("writable", ["nothing", "NUMBA_CACHE_DIR", "home"])
def test_kernels_compute_the_same_whatever_can_be_written(tmp_path: Path, writable: str) -> None:
    package = tmp_path / "ensembleflow"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    # Files in the folders' places, which not even root can write into.
    for folder in package.rglob("*"):
        if folder.is_dir():
            (folder / "__pycache__").touch()
    (tmp_path / "no_folder").touch()
    home = tmp_path / ("home" if writable == "home" else "no_folder/home")
    cache = tmp_path / ("cache" if writable == "NUMBA_CACHE_DIR" else "no_folder/cache")
    if writable == "home":
        home.mkdir()
    done = python(
        KERNEL,
        PYTHONPATH=str(tmp_path),
        HOME=str(home),
        XDG_CACHE_HOME=str(home / ".cache"),
        NUMBA_CACHE_DIR=str(cache) if writable == "NUMBA_CACHE_DIR" else "",
    )
    assert done.stdout.strip() == "[[0.25, 0.75]] [[0.25, 0.75]]", done.stderr
    kept = [path for path in tmp_path.rglob("*.nbc") if path.is_file()]
    assert bool(kept) == (writable != "nothing")


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["devices"]], ids=" ".join)
def test_a_command_that_selects_nothing_needs_no_kernels(arguments: list[str]) -> None:
    run = "from ensembleflow.cli import main\nmain(sys.argv[1:])"
    done = python(WITHOUT_NUMBA + run, *arguments, PYTHONPATH=str(PACKAGE.parent))
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_only_the_kernels_modules_import_numba() -> None:
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.stem not in KERNEL_MODULES | TENSORFLOW_MODULES and path.parent.name not in ("models", "engines")
    ]
    check = f"""
import importlib
for module in {modules!r}:
    importlib.import_module(module)
"""
    done = python(WITHOUT_NUMBA + check, PYTHONPATH=str(PACKAGE.parent))
    assert done.returncode == 0, done.stderr
