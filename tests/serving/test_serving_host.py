"""A host with `pip install ".[serve]"` alone serves and predicts, and says what it cannot do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.server_process import ServerProcess, write_answers
from support.serving_host import make_host

# Neither the workflow's own packages nor what reaches databases and clusters.
NOT_THERE = (
    "snakemake",
    "smac",
    "psycopg",
    "pymysql",
    "optuna",
    "dask",
    "distributed",
    "sklearn",
    "numba",
    "matplotlib",
)


@pytest.fixture(scope="module")
def make(copy_repository: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def make_with(extras: str) -> Path:
        folder = tmp_path_factory.mktemp("host")
        (folder / "repository").mkdir()
        copy_repository(folder / "repository")
        return make_host(folder, folder / "repository", extras)

    return make_with


@pytest.fixture(scope="module")
def python(make: Callable[[str], Path]) -> Path:
    return make("serve")


@pytest.fixture(autouse=True)
def _no_python_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)


def test_the_host_has_nothing_of_the_workflow(python: Path) -> None:
    code = f"from importlib.util import find_spec; print([name for name in {NOT_THERE} if find_spec(name)])"
    assert subprocess.check_output([python, "-c", code], text=True, cwd=os.sep) == "[]\n"


def served_probabilities(bundle: Path, python: Path, images: np.ndarray, folder: Path) -> np.ndarray:
    with ServerProcess(bundle, folder, python=python) as server:
        answer = server.wait_until_ready().infer(images)
    assert answer.status_code == 200, answer.text
    (output,) = [each for each in answer.json()["outputs"] if each["name"] == "probabilities"]
    return np.reshape(output["data"], output["shape"])


def test_it_serves_a_bundle(python: Path, small_bundle: Path, exported, images: np.ndarray, tmp_path: Path) -> None:
    answers = served_probabilities(small_bundle, python, images[:3], tmp_path)
    np.testing.assert_allclose(answers, exported.answers(exported.models[0], images[:3]), atol=1e-4)


def test_without_tensorflow_it_serves_members_that_another_engine_computes(
    make: Callable[[str], Path], small_bundle: Path, exported, images: np.ndarray, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    manifest = json.loads((bundle / "bundle.json").read_text())
    placements = [{**placement, "engine": "openvino"} for placement in manifest["allocation"]]
    write_answers(bundle, np.load(bundle / "check/probabilities.npy"), allocation=placements)
    python = make("http,openvino")
    assert not list(python.parents[1].glob("lib/python*/site-packages/tensorflow"))
    answers = served_probabilities(bundle, python, images[:3], tmp_path)
    np.testing.assert_allclose(answers, exported.answers(exported.models[0], images[:3]), atol=1e-4)


def test_it_predicts_with_a_bundle(python: Path, small_bundle: Path, images: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", images[:2])
    command = [python.with_name("ensembleflow"), "predict", small_bundle, tmp_path / "images.npy", "--json"]
    assert len(json.loads(subprocess.check_output(command, cwd=tmp_path, timeout=300))) == 2


def test_a_command_of_the_workflow_ends_in_one_message(python: Path, tmp_path: Path) -> None:
    command = [python.with_name("ensembleflow"), "progress"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith('hint:     pip install "ensembleflow[workflow]"\n')
