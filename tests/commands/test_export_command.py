"""`ensembleflow export`: what it prints, writes and refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ensembleflow.cli import main
from ensembleflow.models.engines import ONNX_FILE, convert_to_onnx
from support.exported_bundle import answers_of_onnx_runtime, answers_of_openvino, write_bundle
from support.exported_functions import IMAGE_SHAPE, Exported

_HIDDEN = """
import sys
hidden, *words = sys.argv[1:]
for name in hidden.split(","):
    sys.modules[name] = None  # importing it fails as if it was not installed
from ensembleflow.cli import main
raise SystemExit(main(words))
"""
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *IMAGE_SHAPE), dtype=np.uint8)


@pytest.fixture(scope="module")
def bundle(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without ONNX files, called `budget-2x`."""
    folder = tmp_path_factory.mktemp("bundles") / "budget-2x"
    members = {model: exported.folder / model for model in exported.models}
    return write_bundle(folder, members, IMAGES, exported.average(IMAGES)).path


@pytest.fixture(scope="module")
def onnx_bundle(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one member on ONNX Runtime."""
    folder = tmp_path_factory.mktemp("onnx")
    model = exported.models[0]
    convert_to_onnx({exported.folder / model: folder / model / ONNX_FILE})
    return write_bundle(folder / "bundle", {model: folder / model}, IMAGES, exported.answers(model, IMAGES)).path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run_without(hidden: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _HIDDEN, hidden, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ})


def test_the_files_answer_as_predict_does(bundle: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("images.npy", IMAGES[:7])
    assert main(["predict", str(bundle), "images.npy", "--json"]) == 0
    predicted = [each["predictions"][0] for each in json.loads(capsys.readouterr().out)]
    read: dict[str, tuple[str, Callable[[Path, np.ndarray], np.ndarray]]] = {
        "onnx": ("model.onnx", answers_of_onnx_runtime),
        "openvino": ("leaves-random-s0/1/model.xml", answers_of_openvino),
    }
    for export_format, (file, answers_of) in read.items():
        assert main(["export", str(bundle), "--format", export_format]) == 0
        answers = answers_of(here / f"budget-2x-{export_format}" / file, IMAGES[:7])
        assert [f"class {row.argmax()}" for row in answers] == [each["class"] for each in predicted]
        np.testing.assert_allclose(answers.max(axis=1), [each["probability"] for each in predicted], atol=2e-6)


def test_it_tells_what_it_wrote_how_near_that_is_and_how_to_use_it(
    onnx_bundle: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(onnx_bundle), "--format", "triton", "--output", "a b/models", "--name", "digits"]
    assert main(words) == 0
    wrote, near, *use = capsys.readouterr().out.splitlines()
    assert wrote.startswith("a b/models/digits/1/model.onnx: 1 member, ")
    assert wrote.endswith(" KB, operator set 17")
    assert near.startswith("ONNX Runtime 1.")
    assert near.endswith("(allowed: 0.0001), 0 classes (0.0 %) are others")
    assert f"-v '{here.resolve()}/a b/models:/models:ro'" in use[-1]
    assert main([*words[:3], "openvino", *words[4:]]) == 0
    assert "--config_path /models/config.json" in capsys.readouterr().out.splitlines()[-2]
    assert sorted(path.name for path in Path("a b/models").iterdir()) == ["config.json", "digits", "export.json"]


def test_the_line_that_it_prints_for_onnx_runtime_computes_the_graph(
    onnx_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    assert main(["export", str(onnx_bundle), "--format", "onnx"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    (answers,) = eval(line.strip(), {"onnxruntime": onnxruntime, "images": IMAGES})
    assert answers.shape == (40, 10)


def test_what_is_no_bundle_or_a_damaged_one_ends_in_one_message(
    onnx_bundle: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "nothing", "--format", "onnx"]) == 1
    assert capsys.readouterr().err.startswith("there is no bundle\n")
    copy = here / "copy"
    subprocess.run(["cp", "-r", str(onnx_bundle), str(copy)], check=True)
    (copy / "check/probabilities.npy").write_bytes(b"")
    assert main(["export", "copy", "--format", "onnx"]) == 1
    assert capsys.readouterr().err.startswith("the bundle's files are not those that were written\n")
    assert main(["export", str(onnx_bundle), "--format", "onnx", "--output", "copy"]) == 1
    assert capsys.readouterr().err.startswith("the output holds something else\n")
    assert [path.name for path in here.iterdir()] == ["copy"]


def test_another_format_is_a_slip_in_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", "bundle", "--format", "caffe"])
    assert caught.value.code == 2
    assert "invalid choice: 'caffe'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("hidden", "export_format", "extras"),
    [
        ("onnx,onnxruntime,tf2onnx", "onnx", "onnxruntime"),
        ("openvino,tf2onnx", "openvino", "openvino,onnxruntime"),
        ("tensorflow", "triton", "cpu"),
    ],
)
def test_packages_that_are_missing_are_told_together_with_what_to_type(
    bundle: Path, here: Path, hidden: str, export_format: str, extras: str
) -> None:
    done = run_without(hidden, "export", bundle, "--format", export_format)
    assert done.returncode == 1
    first, found, hint = done.stderr.splitlines()
    assert first == "exporting needs packages that are not installed"
    assert found == f"  found:    {', '.join(hidden.split(','))}"
    assert hint.startswith(f'  hint:     pip install "ensembleflow[{extras}]", or')
    assert not [*here.iterdir()]


def test_a_bundle_with_onnx_files_needs_no_converter_and_no_package_of_the_server(onnx_bundle: Path) -> None:
    done = run_without(
        "tensorflow,tf2onnx,keras,fastapi,orjson,prometheus_client", "export", onnx_bundle, "--format", "triton"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
