"""What a result was made with: versions, commit, device."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

import ensembleflow
from ensembleflow.config.storage_url import without_passwords
from ensembleflow.io.atomic import atomic_path, write_json

__all__ = ["provenance", "record_run"]

_PACKAGES = (
    "tensorflow-cpu",
    "tensorflow",
    "keras",
    "optuna",
    "numpy",
    "h5py",
    "dask",
    "snakemake",
    "scikit-learn",
    "pandas",
)


def provenance() -> dict[str, Any]:
    """Versions of Python and the packages that matter, the source's commit, and this machine.

    `commit` is null outside a git checkout; `commit_dirty` says whether tracked files were edited.
    """
    commit, dirty = _commit()
    return {
        "ensembleflow": ensembleflow.__version__,
        "commit": commit,
        "commit_dirty": dirty,
        "python": platform.python_version(),
        "packages": _versions(),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        },
    }


def record_run(config_json: str, run_config_yaml: str | Path, provenance_json: str | Path) -> None:
    """Write the merged config as YAML, without passwords, and the provenance as JSON, beside the results."""
    with atomic_path(run_config_yaml) as aside:
        aside.write_text(yaml.safe_dump(without_passwords(json.loads(config_json)), sort_keys=False), encoding="utf-8")
    write_json(provenance_json, {**provenance(), "written_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})


@cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def _commit() -> tuple[str | None, bool | None]:
    def git(*arguments: str) -> str:
        folder = Path(ensembleflow.__file__).parent
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
