"""An environment of its own in which `pip install ".[serve]"` was typed, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def make_host(folder: Path, repository: Path, extras: str) -> Path:
    """Install a copy of the repository with extras (`http,openvino`) by pip, and return the environment's Python.

    The packages that the extras ask for, and those that they ask for, are this environment's own files, linked: at the
    locked versions, without a download or gigabytes written. pip, which is given no index, ends with an error where one
    is missing.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHONPATH"))}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def run(*words: str | Path) -> None:
        done = subprocess.run([sys.executable, "-m", *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    run("venv", "--without-pip", folder / "venv")
    run("pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, repository)
    (site_packages,) = folder.glob("venv/lib/python*/site-packages")
    for name in needed_packages(repository, extras):
        _link(metadata.distribution(name), site_packages)
    (wheel,) = folder.glob("*.whl")
    python = folder / "venv/bin/python"
    run("pip", "--python", python, "install", "--no-index", f"ensembleflow[{extras}] @ {wheel.as_uri()}")
    return python


def needed_packages(repository: Path, extras: str) -> set[str]:
    """All packages that extras of pyproject.toml lead to, by what the installed ones say that they require."""
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(line) for line in project["dependencies"]]
    waiting.append(Requirement(f"{project['name']}[{extras}]"))
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for one in {*requirement.extras, ""} - {known for seen, known in found if seen == name}:
            found.add((name, one))
            if name != project["name"]:
                lines = metadata.requires(name) or []
            else:
                lines = project["optional-dependencies"][one] if one else []
            required = map(Requirement, lines)
            waiting += [each for each in required if each.marker is None or each.marker.evaluate({"extra": one})]
    return {name for name, _ in found} - {project["name"]}


def _link(distribution: metadata.Distribution, site_packages: Path) -> None:
    for file in distribution.files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = site_packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(Path(str(distribution.locate_file(file))).resolve())
