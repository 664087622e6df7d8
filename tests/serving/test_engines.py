"""Each engine answers as the exported function does, on real networks of each block and stem."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.child_process import child_environment
from ensembleflow.errors import ArtefactError, EngineError
from ensembleflow.models.engines import (
    ENGINES,
    FLOAT32_ENGINES,
    ONNX_FILE,
    LoadedEngine,
    check_engine,
    convert_to_onnx,
    installed_engines,
    load_engine,
    prepare_members,
)
from ensembleflow.models.engines.openvino_bfloat16 import _PairsOrMore
from ensembleflow.models.tolerances import ANSWER_TOLERANCE, answer_tolerance
from support.processor import has_bfloat16

TESTS = Path(__file__).resolve().parents[1]
NETWORKS = ["v1-large", "v2-small", "next-small", "next-large", "v1-floats"]
# TensorFlow's answers are made by another process.
OTHERS = [engine for engine in FLOAT32_ENGINES if engine != "tensorflow"]
TASKS = Path("/proc/self/task")


@dataclass(frozen=True)
class Network:
    """A member's folder, and what the network answers to some images."""

    folder: Path
    images: np.ndarray
    answers: np.ndarray
    tensorflow_answers: np.ndarray


def files(folder: Path) -> Iterator[tuple[str, int, int]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    environment = child_environment()
    environment["PYTHONPATH"] += f"{os.pathsep}{TESTS}"
    subprocess.run(
        [sys.executable, str(TESTS / "support/export_networks.py"), str(folder)],
        check=True,
        env=environment,
        timeout=300,
    )
    return folder


@pytest.fixture(scope="module")
def networks(exported, tmp_path_factory) -> dict[str, Network]:
    before = list(files(exported))
    folders = prepare_members([exported / name for name in NETWORKS], tmp_path_factory.mktemp("members"), ENGINES)
    assert list(files(exported)) == before  # they belong to the rule that made them
    made = {}
    for folder in folders:
        arrays = np.load(exported / f"{folder.name}.npz")
        made[folder.name] = Network(folder, arrays["images"], arrays["keras"], arrays["tensorflow"])
    return made


@pytest.fixture(params=NETWORKS)
def network(request, networks) -> Network:
    return networks[request.param]


@pytest.fixture(params=OTHERS)
def engine(request) -> str:
    return request.param


def test_tensorflow_answers_as_keras_does(network):
    np.testing.assert_allclose(network.tensorflow_answers, network.answers, atol=1e-5)


def test_an_engine_answers_as_keras_does_and_the_same_each_time(network, engine):
    loaded = load_engine(engine, network.folder, 1)
    # A tenth of what is allowed: float32 differs by 1e-6, bfloat16 by 1e-3.
    assert check_engine(loaded, network.images, network.answers, 4, tolerance=1e-5) <= 1e-5
    once, again = (loaded.predict(network.images, 4) for _ in range(2))
    loaded_again = load_engine(engine, network.folder, 1).predict(network.images, 4)
    assert once.dtype == np.float32
    assert once.tobytes() == again.tobytes() == loaded_again.tobytes()


def test_bfloat16_answers_within_its_own_tolerance_and_is_refused_where_the_processor_lacks_it(network):
    if not has_bfloat16():
        with pytest.raises(EngineError, match="does not compute in bfloat16"):
            load_engine("openvino_bfloat16", network.folder, 1)
        return
    loaded = load_engine("openvino_bfloat16", network.folder, 1)
    # It is bfloat16: float32 would be a hundred times as near.
    with pytest.raises(EngineError, match="answers otherwise"):
        check_engine(loaded, network.images, network.answers, 4, tolerance=1e-5)
    tolerance = answer_tolerance(["openvino_bfloat16"])
    assert check_engine(loaded, network.images, network.answers, 4, tolerance=tolerance) <= tolerance
    assert loaded.predict(network.images, 4).tobytes() == loaded.predict(network.images, 4).tobytes()
    # A batch of one is where OpenVINO's own answers may be entirely wrong.
    for batch_size in (1, 2, 10):
        together = loaded.predict(network.images, batch_size)
        np.testing.assert_allclose(together, loaded.predict(network.images, 4), atol=tolerance / 2)


def test_bfloat16_never_computes_one_image_alone():
    model = _MeanPixel()
    images = np.random.default_rng(0).integers(0, 256, (7, 2, 2, 1), dtype=np.uint8)
    np.testing.assert_array_equal(_PairsOrMore(model).predict(images, 3), _MeanPixel().predict(images, 3))
    assert model.sizes == [3, 3, 2]


def test_only_bfloat16_widens_the_tolerance_and_one_such_member_widens_the_ensembles():
    assert {answer_tolerance([engine]) for engine in FLOAT32_ENGINES} == {answer_tolerance([]), ANSWER_TOLERANCE}
    assert set(ENGINES) - set(FLOAT32_ENGINES) == {"openvino_bfloat16"}
    assert answer_tolerance(["tensorflow", "openvino_bfloat16"]) == answer_tolerance(["openvino_bfloat16"])
    assert answer_tolerance(["openvino_bfloat16"]) > ANSWER_TOLERANCE


def test_images_of_any_batch_size_and_layout_are_answered_alike(networks, engine):
    network = networks["next-small"]
    loaded = load_engine(engine, network.folder, 1)
    images = network.images
    images.setflags(write=False)
    for batch_size in (1, 3, len(images), 100):
        np.testing.assert_allclose(loaded.predict(images, batch_size), network.answers, atol=1e-5)
    np.testing.assert_allclose(loaded.predict(images[::-2], 4), network.answers[::-2], atol=1e-5)


def test_answers_are_written_where_the_caller_wants_them(networks, engine):
    network = networks["v2-small"]
    loaded = load_engine(engine, network.folder, 1)
    room = np.full((len(network.images) + 2, 5), 7, np.float32)
    returned = loaded.predict(network.images, 4, out=room[1:-1])
    assert np.shares_memory(returned, room)
    np.testing.assert_allclose(room[1:-1], network.answers, atol=1e-5)
    assert (room[[0, -1]] == 7).all()
    with pytest.raises(ValueError, match="do not fit"):
        loaded.predict(network.images, 4, out=room)


class _MeanPixel(LoadedEngine):
    """Two classes told by the mean pixel, in memory that each call overwrites, as engines do."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._answer = np.zeros((100, 2), np.float32)

    def answer(self, images):
        self.sizes.append(len(images))
        answer = self._answer[: len(images)]
        answer[:, 0] = images.mean(axis=(1, 2, 3)) / 255
        answer[:, 1] = 1 - answer[:, 0]
        return answer


@given(n_images=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_a_request_is_computed_in_full_batches_and_one_rest(n_images, batch_size):
    images = np.random.default_rng(n_images).integers(0, 256, (n_images, 2, 2, 1), dtype=np.uint8)
    loaded = _MeanPixel()
    answers = loaded.predict(images, batch_size)
    np.testing.assert_array_equal(answers[:, 0], (images.mean(axis=(1, 2, 3)) / 255).astype(np.float32))
    *full, rest = loaded.sizes
    assert set(full) <= {batch_size}
    assert 1 <= rest <= batch_size
    assert sum(loaded.sizes) == n_images


def test_no_image_has_no_answer_but_fills_an_empty_array():
    images = np.zeros((0, 2, 2, 1), np.uint8)
    with pytest.raises(ValueError, match="no image"):
        _MeanPixel().predict(images, 4)
    assert _MeanPixel().predict(images, 4, out=np.zeros((0, 2), np.float32)).shape == (0, 2)


def run_nanoseconds() -> dict[str, int]:
    return {each.name: int((each / "schedstat").read_text().split()[0]) for each in TASKS.iterdir()}


@pytest.mark.skipif(not TASKS.exists() or len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.parametrize("threads", [1, 2])
def test_an_engine_computes_with_as_many_threads_as_it_is_given(networks, engine, threads):
    network = networks["v1-large"]
    loaded = load_engine(engine, network.folder, threads)
    images = np.tile(network.images, (8, 1, 1, 1))
    loaded.predict(images, len(images))
    before = run_nanoseconds()
    busy: list[str] = []
    for _ in range(40):  # on a busy machine a thread may find its work done by the others at first
        for _ in range(5):
            loaded.predict(images, len(images))
        busy = [name for name, spent in run_nanoseconds().items() if spent - before.get(name, 0) > 5e6]
        if len(busy) >= threads:
            break
    assert len(busy) == threads


def test_an_engine_that_answers_otherwise_is_refused(networks, engine):
    network = networks["v2-small"]
    loaded = load_engine(engine, network.folder, 1)
    for wrong in (network.answers + np.float32(2e-4), np.full_like(network.answers, np.nan)):
        with pytest.raises(EngineError, match="answers otherwise"):
            check_engine(loaded, network.images, wrong, 4)
    with pytest.raises(EngineError, match="another shape"):
        check_engine(loaded, network.images, network.answers[:, :4], 4)


def test_only_onnx_runtime_needs_a_file_of_its_own(networks, exported, tmp_path):
    (plain,) = prepare_members([exported / "v2-small"], tmp_path, ["openvino", "tensorflow"])
    assert plain == tmp_path / "v2-small"
    assert list(files(plain)) == list(files(exported / "v2-small"))
    assert {name for name, *_ in files(networks["v2-small"].folder)} - {name for name, *_ in files(plain)} == {
        ONNX_FILE
    }


def test_what_cannot_be_prepared_is_named(exported, tmp_path):
    with pytest.raises(ArtefactError, match="exported function is missing") as missing:
        prepare_members([exported / "nothing"], tmp_path, ENGINES)
    assert "nothing" in str(missing.value)
    damaged = shutil.copytree(exported / "v2-small", tmp_path / "damaged")
    (damaged / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(EngineError, match="cannot be converted to ONNX") as caught:
        convert_to_onnx({damaged: tmp_path / "out" / ONNX_FILE})
    assert str(damaged) in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_or_damaged_model_is_named(networks, tmp_path):
    folder = shutil.copytree(networks["v2-small"].folder, tmp_path / "member")
    for name in (ONNX_FILE, "saved_model.pb"):
        (folder / name).write_bytes(b"damaged")
    for engine in OTHERS:
        with pytest.raises(ArtefactError, match="cannot be read") as caught:
            load_engine(engine, folder, 1)
        assert str(folder) in str(caught.value)
    (folder / ONNX_FILE).unlink()
    with pytest.raises(ArtefactError, match="has no ONNX file"):
        load_engine("onnxruntime", folder, 1)


def test_an_engine_that_does_not_exist_or_cannot_use_a_gpu_is_refused(networks):
    folder = networks["v2-small"].folder
    with pytest.raises(EngineError, match="no such engine") as caught:
        load_engine("caffe", folder, 1)
    assert "tensorflow, onnxruntime, openvino, openvino_bfloat16" in str(caught.value)
    with pytest.raises(EngineError, match="CPU cores only"):
        load_engine("openvino", folder, 1, gpu=True)


_HIDDEN = """
import sys
engine, package = sys.argv[1:]
sys.modules[package] = None  # as if it was not installed
from pathlib import Path
from ensembleflow.errors import EngineError
from ensembleflow.models.engines import installed_engines, load_engine
assert engine not in installed_engines()
try:
    load_engine(engine, Path("member"), 1)
except EngineError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_that_is_not_installed_is_told_with_the_command_that_installs_it(name):
    lock = "requirements.lock" if name == "tensorflow" else "requirements-engines.lock"
    assert name in installed_engines()
    command = [sys.executable, "-c", _HIDDEN, name, name.removesuffix("_bfloat16")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith(f"the engine {name} is not installed\n")
    extra = {"tensorflow": "cpu"}.get(name, name.removesuffix("_bfloat16"))
    assert f'hint:     pip install "ensembleflow[{extra}]", or' in done.stdout
    assert f"pip install -r {lock}\n" in done.stdout


def test_the_lock_that_the_hint_names_holds_the_engines():
    lock = (TESTS.parent / "requirements-engines.lock").read_text()
    assert all(f"\n{package}==" in lock for package in ("onnxruntime", "openvino", "tf2onnx"))
