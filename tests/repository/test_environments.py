"""The lock files and the conda environments describe the same software."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-gpu.lock", "requirements-engines.lock", "requirements-test.lock")
LOCK_OF_ENVIRONMENT = {
    "analysis.yaml": "requirements.lock",
    "paper.yaml": "requirements.lock",
    "training.yaml": "requirements.lock",
    "training-gpu.yaml": "requirements-gpu.lock",
}


@cache
def locked(lock: str) -> dict[str, set[str]]:
    """The locked versions of each package; two where they differ between Python versions."""
    versions: dict[str, set[str]] = {}
    for line in _entries(lock):
        requirement = Requirement(line.split(" --hash=")[0])
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        versions.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    return versions


def _entries(lock: str) -> list[str]:
    """The requirements of a lock file, each with its hashes in one line."""
    text = (REPOSITORY / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (re.sub(r"\s+", " ", line).strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def _environment(name: str) -> tuple[list[str], list[Requirement]]:
    """The conda packages and the pip requirements of an environment file."""
    content = yaml.safe_load((REPOSITORY / "envs" / name).read_text(encoding="utf-8"))
    assert content["channels"] == ["conda-forge", "nodefaults"]
    conda = [item for item in content["dependencies"] if isinstance(item, str)]
    (pip,) = (item["pip"] for item in content["dependencies"] if isinstance(item, dict))
    return conda, [Requirement(line) for line in pip]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_a_hash(lock: str) -> None:
    entries = _entries(lock)
    assert len(entries) > 50
    assert [line for line in entries if not re.search(r" --hash=sha256:[0-9a-f]{64}\b", line)] == []


@pytest.mark.parametrize("lock", LOCKS[1:])
def test_the_locks_agree_on_every_package_they_share(lock: str) -> None:
    base, other = locked("requirements.lock"), locked(lock)
    assert {name: other[name] for name in base.keys() & other.keys()} == {
        name: base[name] for name in base.keys() & other.keys()
    }
    assert base.keys() - other.keys() <= {"tensorflow-cpu"}


def test_tensorflow_has_one_version_on_every_device() -> None:
    (version,) = locked("requirements.lock")["tensorflow-cpu"]
    assert all(locked(lock)["tensorflow"] == {version} for lock in LOCKS)


@pytest.mark.parametrize("name", LOCK_OF_ENVIRONMENT)
def test_a_conda_environment_has_the_locked_versions(name: str) -> None:
    versions = locked(LOCK_OF_ENVIRONMENT[name])
    _, requirements = _environment(name)
    for requirement in requirements:
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        assert pin.version in versions[canonicalize_name(requirement.name)], requirement.name


@pytest.mark.parametrize("name", LOCK_OF_ENVIRONMENT)
def test_a_conda_environment_has_the_python_that_the_lock_was_made_for(name: str) -> None:
    conda, requirements = _environment(name)
    python = next(item.removeprefix("python=") for item in conda if item.startswith("python="))
    line = next(line for line in _entries("requirements.lock") if line.startswith("numpy=="))
    marker = Requirement(line.split(" --hash=")[0]).marker
    assert marker is not None and marker.evaluate({"python_full_version": f"{python}.0"})
    (numpy,) = (requirement for requirement in requirements if requirement.name == "numpy")
    assert str(numpy.specifier) == f"=={re.split('[= ;]+', line)[1]}"


def test_the_container_is_made_of_a_lock_file_whose_hashes_are_checked() -> None:
    definition = (REPOSITORY / "envs/ensembleflow.def").read_text(encoding="utf-8")
    (default,) = re.findall(r"^    lock=(\S+)$", definition, flags=re.MULTILINE)
    named = re.findall(r"--build-arg lock=(\S+)", definition)
    assert default == "requirements-gpu.lock"
    assert named == ["requirements.lock"]
    assert {default, *named} <= set(LOCKS)
    (copied,) = re.findall(r"^    \{\{ lock \}\} (\S+)$", definition, flags=re.MULTILINE)
    assert f"--require-hashes -r {copied}\n" in definition


def test_the_container_has_the_python_of_the_conda_environments() -> None:
    definition = (REPOSITORY / "envs/ensembleflow.def").read_text(encoding="utf-8")
    (python,) = re.findall(r"^From: python:(\d+\.\d+)-bookworm$", definition, flags=re.MULTILINE)
    assert f"python={python}" in _environment("training.yaml")[0]


def test_every_environment_is_checked() -> None:
    # Auto-Keras has requirements of its own: see below.
    names = {path.name for path in (REPOSITORY / "envs").glob("*.yaml")} - {"autokeras.yaml"}
    assert names == set(LOCK_OF_ENVIRONMENT)


def test_auto_keras_environment_pins_everything_to_one_version() -> None:
    assert yaml.safe_load((REPOSITORY / "envs/autokeras.yaml").read_text())["dependencies"][-1] == {
        "pip": ["-r autokeras.txt"]
    }
    lines = (REPOSITORY / "envs/autokeras.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if not line.startswith("#")]
    assert "autokeras" in {requirement.name for requirement in requirements}
    assert all([pin.operator for pin in requirement.specifier] == ["=="] for requirement in requirements)


def test_the_environments_pin_only_direct_dependencies() -> None:
    direct = [line for group in ("dependencies", "http", "workflow", "cpu") for line in _declared(group)]
    names = {canonicalize_name(Requirement(line).name) for line in direct}
    for environment in LOCK_OF_ENVIRONMENT:
        assert {canonicalize_name(item.name) for item in _environment(environment)[1]} <= names


@pytest.mark.parametrize(
    "group", ["dependencies", "http", "workflow", "cpu", "gpu", "onnxruntime", "openvino", "docs", "test"]
)
def test_every_dependency_of_the_package_is_locked_within_its_bounds(group: str) -> None:
    engines = dict.fromkeys(("onnxruntime", "openvino"), "requirements-engines.lock")
    tests = dict.fromkeys(("docs", "test"), "requirements-test.lock")
    lock = {"gpu": "requirements-gpu.lock", **engines, **tests}.get(group, "requirements.lock")
    for requirement in map(Requirement, _declared(group)):
        versions = locked(lock)[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), requirement.name


def _declared(group: str) -> list[str]:
    """What a group of pyproject.toml asks for itself, without the extras that it includes."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] if group == "dependencies" else project["optional-dependencies"][group]
    return [line for line in lines if Requirement(line).name != project["name"]]
