"""Float images and time series from arrays to a server: docs/own-networks.md as typed, and the residual networks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from ensembleflow.datasets import open_dataset
from ensembleflow.serving.client import ask_server
from support.clone import STUDY, Clone, edited
from support.exported_bundle import read_triton_config
from support.family_files import of_the_manual
from support.server_process import ServerProcess

TYPE_FP32 = 11  # of Triton's enumeration
SMALL = {
    "search.n_trials": 2,
    "search.max_epochs": 2,
    "selection.budgets": ["2x"],
    "allocation.max_benches": 1,
    "allocation.engines": ["tensorflow", "openvino", "onnxruntime"],
}


def clone_of(copy_repository: Callable[[Path], None], folder: Path) -> Clone:
    clone = Clone(folder / "ensembleflow")
    copy_repository(clone.folder)
    return clone


@pytest.fixture(scope="module")
def series(copy_repository: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the manual's time series have gone from an array to a bundle."""
    clone = clone_of(copy_repository, tmp_path_factory.mktemp("series"))
    subprocess.run([sys.executable, "-c", of_the_manual(holding="make_series")], cwd=clone.folder, check=True)
    config = yaml.safe_load(of_the_manual("yaml", "series.npz"))
    edits = {f"{block}.{key}": value for block in config for key, value in config[block].items()} | SMALL
    clone.write_config(edited({**edits, "search.family": ["resnet"]}, STUDY))
    refused = clone.snakemake()
    assert "a family does not take samples of this shape" in refused.stdout
    assert "Traceback" not in refused.stdout
    assert not list(clone.results.glob("*/search/store/*/trial-*")), "nothing is trained"

    (clone.folder / "networks").mkdir()
    (clone.folder / config["search"]["family"]).write_text(of_the_manual(holding="INPUT_RANKS"))
    clone.write_config(edited(edits, {**STUDY, "search": {**STUDY["search"], "space": {}}}))
    clone.run()
    return clone


@pytest.fixture(scope="module")
def float_images(copy_repository: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which residual networks have been trained with images of four channels far from 0 to 255."""
    from sklearn.datasets import load_digits

    clone = clone_of(copy_repository, tmp_path_factory.mktemp("floats"))
    digits = load_digits()
    channels = [1000 + digits.images, -1e-3 * digits.images, 30 * digits.images[:, ::-1], 0 * digits.images]
    np.savez(clone.folder / "floats.npz", images=np.stack(channels, axis=-1), labels=digits.target)
    dataset = {"dataset.name": "floats", "dataset.source": "arrays", "dataset.path": "floats.npz"}
    clone.write_config(edited({**SMALL, **dataset, "search.space.max_channel_shift": [0.1, 0.2]}))
    clone.run()
    return clone


@pytest.fixture(scope="module")
def server(series: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    bundle = series.results / "series-hyperband-s0/bundles/budget-2x"
    with ServerProcess(bundle, tmp_path_factory.mktemp("server")) as running:
        yield running.wait_until_ready()


def images_of_the_test(clone: Clone, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    with open_dataset(clone.results / f"datasets/{dataset}.h5") as data:
        return data.images("test"), data.labels("test")


def predicted(clone: Clone, study: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ensembleflow.cli", "predict", f"results/{study}/bundles/budget-2x", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=clone.folder)


@pytest.mark.parametrize("name", ["series", "floats"])
def test_networks_and_the_baseline_learn_from_float_values(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    clone: Clone = request.getfixturevalue("series" if name == "series" else "float_images")
    study = clone.results / f"{name}-hyperband-s0"
    samples, labels = images_of_the_test(clone, name)
    assert samples.dtype == np.float32
    chance = 1 - 1 / len(np.unique(labels))
    ensembles = pd.read_csv(study / "selection/ensembles.csv")
    assert ensembles["test_error"].min() < 0.8 * chance
    answers = pd.read_csv(study / "library/baseline.csv")
    assert (answers["label"] != answers["predicted"]).mean() < 0.3 * chance
    page = (clone.results / "report.html").read_text(encoding="utf-8")
    assert bool(re.search("<img[^>]*data:image/png", page)) == (name == "floats"), "what is no image is not shown"
    np.save(tmp_path / "many.npy", samples.astype(np.float64))
    np.save(tmp_path / "one.npy", samples[0])
    done = predicted(clone, study.name, str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told) == len(samples) + 1
    assert told[-1]["predictions"] == told[0]["predictions"]


def test_what_is_no_array_is_not_predicted(series: Clone, tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", np.zeros((3, 5, 1)))
    np.save(tmp_path / "nan.npy", np.full((64, 1), np.nan))
    image = series.folder / "docs/images/digit.png"
    done = predicted(series, "series-hyperband-s0", str(tmp_path), str(image))
    assert done.returncode == 1
    assert "3 of 3 files cannot be predicted" in done.stderr
    for part in ("float64 array (3, 5, 1)", "NaN", "takes arrays", "(64, 1) or (n, 64, 1)"):
        assert part in done.stderr


def test_series_are_not_augmented_and_the_tables_say_so(series: Clone) -> None:
    trials = pd.read_csv(series.results / "series-hyperband-s0/search/trials.csv")
    assert (trials[["max_zoom", "max_channel_shift"]] == 0).all(axis=None)


def test_the_server_takes_float_tensors_as_json_and_as_bytes(series: Clone, server: ServerProcess) -> None:
    samples, _ = images_of_the_test(series, "series")
    samples = samples[:5]
    model = "series-hyperband-s0"
    told = server.client.get(f"/v2/models/{model}").json()
    assert told["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 64, 1]}]
    config = server.client.get(f"/v2/models/{model}/config").json()
    assert (config["input"][0]["data_type"], config["input"][0]["format"]) == ("TYPE_FP32", "FORMAT_NONE")
    tensor = {"name": "images", "datatype": "FP32", "shape": [5, 64, 1], "data": samples.ravel().tolist()}
    answer = server.client.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]})
    assert answer.status_code == 200, answer.text
    as_bytes = ask_server(server.url, model, [samples])
    np.testing.assert_array_equal(np.float32(answer.json()["outputs"][0]["data"]).reshape(5, 3), as_bytes)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"datatype": "UINT8"}, ["another datatype", "UINT8", "expected: FP32"]),
        ({"data": [1e39] * 64}, ["numbers out of range", "1e+39"]),
        ({"shape": [1, 64]}, ["another shape", "[n, 64, 1]"]),
        ({"data": ["1"] * 64}, ["not numbers"]),
    ],
)
def test_the_server_refuses_other_tensors(server: ServerProcess, changes: dict[str, object], parts: list[str]) -> None:
    tensor = {"name": "images", "datatype": "FP32", "shape": [1, 64, 1], "data": [0.5] * 64, **changes}
    answer = server.client.post("/v2/models/series-hyperband-s0/infer", json={"inputs": [tensor]})
    assert answer.status_code == 400
    assert all(part in answer.json()["error"] for part in parts), answer.text


def test_the_server_refuses_numbers_that_are_none(server: ServerProcess) -> None:
    values = np.array([np.nan] * 64, "<f4").tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "images",
                    "datatype": "FP32",
                    "shape": [1, 64, 1],
                    "parameters": {"binary_data_size": len(values)},
                }
            ]
        }
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = server.client.post("/v2/models/series-hyperband-s0/infer", content=head + values, headers=headers)
    assert answer.status_code == 400
    assert "found: nan" in answer.json()["error"]


def test_the_server_takes_no_image_files(series: Clone, server: ServerProcess) -> None:
    answer = server.client.post("/classify", content=(series.folder / "docs/images/digit.png").read_bytes())
    assert answer.status_code == 415
    assert "takes arrays" in answer.json()["error"]


@pytest.mark.parametrize("export_format", ["onnx", "openvino", "triton"])
def test_an_ensemble_of_series_is_exported_with_float_inputs(export_format: str, series: Clone, tmp_path: Path) -> None:
    bundle = "results/series-hyperband-s0/bundles/budget-2x"
    command = [sys.executable, "-m", "ensembleflow.cli", "export", bundle, "--format", export_format]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out")], capture_output=True, text=True, check=False, cwd=series.folder
    )
    assert done.returncode == 0, done.stderr
    about = json.loads((tmp_path / "out/export.json").read_text())
    assert about["input"] == {"name": "images", "datatype": "FP32", "shape": [-1, 64, 1]}
    if export_format == "triton":
        (model,) = (read_triton_config(path) for path in (tmp_path / "out").rglob("config.pbtxt"))
        assert (model.input[0].data_type, list(model.input[0].dims)) == (TYPE_FP32, [64, 1])
