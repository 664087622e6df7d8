"""Exported bundles: the runtimes themselves answer as the bundle does, or nothing is written."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import openvino
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from ensembleflow.child_process import child_environment
from ensembleflow.errors import ArgumentError, BundleError, EngineError, EnsembleflowError, StorageError
from ensembleflow.models.engines import FLOAT32_ENGINES, ONNX_FILE, convert_to_onnx, load_engine
from ensembleflow.models.tolerances import BFLOAT16_ANSWER_TOLERANCE
from ensembleflow.serving.bundle import Bundle
from ensembleflow.serving.export import FORMATS, Export, ensemble_graph, export_bundle
from ensembleflow.serving.extension_schemas import describe_config
from ensembleflow.serving.manifest import Manifest
from ensembleflow.serving.signature import Signature, most_images
from support.exported_bundle import answers_of_onnx_runtime, answers_of_openvino, read_triton_config, write_bundle
from support.exported_functions import IMAGE_SHAPE, Exported

TESTS = Path(__file__).resolve().parents[1]
READERS: dict[str, Callable[[Path, np.ndarray], np.ndarray]] = {
    "onnx": answers_of_onnx_runtime,
    "openvino": answers_of_openvino,
    "triton": answers_of_onnx_runtime,
}
SHOWN = [" 0", "eins, zwei", 'drei "3"', "vier", "fünf", "ｓｉｘ", "7", "acht", "IX", "A"]


def random_images(n_images: int, shape: tuple[int, int, int] = IMAGE_SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n_images, *shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def onnx_folders(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The stand-in members' folders as a bundle with ONNX Runtime has them, so that converting is done once."""
    folder = tmp_path_factory.mktemp("members")
    folders = {model: folder / model for model in exported.models}
    convert_to_onnx({exported.folder / model: path / ONNX_FILE for model, path in folders.items()})
    return folders


@pytest.fixture(scope="module")
def make_bundle(
    exported: Exported, onnx_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Bundle]:
    def make(n_members: int = 3, off_by: float = 0.0, n_images: int = 50, **said: object) -> Bundle:
        models = exported.models[:n_members]
        images = random_images(n_images)
        answers = exported.average(images, models)
        answers[-1, 0] += off_by
        folder = tmp_path_factory.mktemp("made") / "bundle"
        return write_bundle(folder, {model: onnx_folders[model] for model in models}, images, answers, **said)

    return make


@pytest.fixture(scope="module")
def exports(make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Export]:
    bundle = make_bundle(class_names=SHOWN)
    folder = tmp_path_factory.mktemp("exports")
    return {each: export_bundle(bundle, folder / each, each) for each in FORMATS}


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("export_format", FORMATS)
@given(n_images=st.integers(1, 70), seed=st.integers(0, 99))
def test_a_graph_answers_batches_of_any_size_as_the_ensemble_does(exports, exported, export_format, n_images, seed):
    images = random_images(n_images, seed=seed)
    answers = READERS[export_format](exports[export_format].graph, images)
    assert (answers.dtype, answers.shape) == (np.float32, (n_images, 10))
    np.testing.assert_allclose(answers, exported.average(images), atol=1e-6)


@pytest.mark.parametrize("n_members", [1, 2])
@pytest.mark.parametrize("export_format", ["onnx", "openvino"])
def test_each_number_of_members_is_a_mean(make_bundle, exported, tmp_path, n_members, export_format):
    export = export_bundle(make_bundle(n_members), tmp_path / "out", export_format)
    images = random_images(9, seed=1)
    expected = exported.average(images, exported.models[:n_members])
    np.testing.assert_allclose(READERS[export_format](export.graph, images), expected, atol=1e-6)


def test_the_graph_has_every_combiner_that_a_bundle_may_have():
    assert get_args(Manifest.model_fields["combiner"].annotation) == ("average",)


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Path:
    """Real networks of each block and both stems, for images of three channels."""
    folder = tmp_path_factory.mktemp("networks")
    environment = child_environment()
    environment["PYTHONPATH"] += f"{os.pathsep}{TESTS}"
    command = [sys.executable, str(TESTS / "support/export_networks.py"), str(folder)]
    subprocess.run(command, check=True, env=environment, timeout=300)
    return folder


@pytest.mark.parametrize(("members", "side"), [(["v2-small", "next-small"], 8), (["v1-large", "next-large"], 72)])
def test_networks_of_colour_images_are_converted_and_answer_as_their_exported_functions(
    networks, tmp_path, members, side
):
    images = random_images(24, (side, side, 3))
    # OpenVINO reads the exported functions themselves, so this is no answer of the graph's.
    answers = np.mean([load_engine("openvino", networks / each, 1).predict(images, 5) for each in members], axis=0)
    bundle = write_bundle(tmp_path / "bundle", {each: networks / each for each in members}, images, answers)
    for export_format in ("triton", "openvino"):
        export = export_bundle(bundle, tmp_path / export_format, export_format)
        assert export.agreement.largest_difference < 1e-5
        np.testing.assert_allclose(READERS[export_format](export.graph, images[3:10]), answers[3:10], atol=1e-5)


def test_the_onnx_file_says_what_it_takes_gives_and_is(exports):
    model = onnx.load(exports["onnx"].graph)
    (images,), (probabilities,) = model.graph.input, model.graph.output

    def described(tensor: onnx.ValueInfoProto) -> tuple[str, int, list[str | int]]:
        sizes = [size.dim_param or size.dim_value for size in tensor.type.tensor_type.shape.dim]
        return tensor.name, tensor.type.tensor_type.elem_type, sizes

    assert described(images) == ("images", TensorProto.UINT8, ["batch", *IMAGE_SHAPE])
    assert described(probabilities) == ("probabilities", TensorProto.FLOAT, ["batch", 10])
    said = {each.key: each.value for each in model.metadata_props}
    assert json.loads(said["class_names"]) == SHOWN
    assert json.loads(said["members"]) == [*Exported.models]
    assert (said["study"], said["budget"], said["combiner"]) == ("leaves-random-s0", "2x", "average")
    assert model.producer_name == "ensembleflow"


@pytest.mark.parametrize("shape", [(8, 8, 3), (9, 8, 1), (8, 1)])
def test_a_runtime_refuses_images_of_another_shape(exports, shape):
    for export_format, read in READERS.items():
        with pytest.raises(Exception, match=r"(?i)dimension|shape|rank"):
            read(exports[export_format].graph, random_images(2, shape))


def test_onnx_runtime_refuses_images_of_another_type(exports):
    with pytest.raises(Exception, match=r"(?i)type"):
        answers_of_onnx_runtime(exports["onnx"].graph, random_images(2).astype(np.float32))


def test_a_triton_repository_is_as_its_server_reads_it(exports):
    folder = exports["triton"].path
    assert written(folder) == {
        "export.json",
        *(f"leaves-random-s0/{each}" for each in ("config.pbtxt", "labels.txt", "1/model.onnx")),
    }
    config = read_triton_config(folder / "leaves-random-s0/config.pbtxt")
    assert (config.name, config.backend, config.max_batch_size) == ("leaves-random-s0", "onnxruntime", 1024)
    assert config.HasField("dynamic_batching")
    assert config.output[0].label_filename == "labels.txt"
    assert (folder / "leaves-random-s0/labels.txt").read_text(encoding="utf-8").split("\n") == [*SHOWN, ""]
    # Its tensors are those that `ensembleflow serve` tells of in the same format.
    signature = Signature("leaves-random-s0", "1", IMAGE_SHAPE, most_images(IMAGE_SHAPE))
    ours = describe_config(signature, 10).model_dump(exclude_none=True)
    theirs = MessageToDict(config, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    for tensor, own in zip((*theirs["input"], *theirs["output"]), (*ours["input"], ours["output"][0]), strict=True):
        assert {key: tensor.get(key, own[key]) for key in own} == {**own, "dims": [str(size) for size in own["dims"]]}


def test_a_class_name_takes_one_line_of_the_labels(make_bundle, tmp_path):
    names = ["two\nlines", "a\r\nb", *"cdefghij"]
    export = export_bundle(make_bundle(class_names=names), tmp_path / "out", "triton")
    lines = (export.path / export.name / "labels.txt").read_text().split("\n")
    assert lines == ["two lines", "a b", *"cdefghij", ""]


def test_an_openvino_repository_has_float32_weights_and_says_how_to_compute_them(exports, exported):
    folder = exports["openvino"].path
    assert written(folder) == {
        "export.json",
        "config.json",
        *(f"leaves-random-s0/1/{each}" for each in ("model.xml", "model.bin")),
    }
    (model,) = json.loads((folder / "config.json").read_text())["model_config_list"]
    assert model["config"] == {
        "name": "leaves-random-s0",
        "base_path": "leaves-random-s0",
        "plugin_config": {"INFERENCE_PRECISION_HINT": "f32"},
    }
    graph = openvino.Core().read_model(exports["openvino"].graph)
    (images,), (probabilities,) = graph.inputs, graph.outputs
    assert (images.get_names(), probabilities.get_names()) == ({"images"}, {"probabilities"})
    assert graph.get_parameters()[0].get_layout() == openvino.Layout("[N,H,W,C]")
    assert json.loads(graph.get_rt_info(["ensembleflow", "class_names"]).astype(str)) == SHOWN
    kinds = {node.get_element_type().get_type_name() for node in graph.get_ops() if node.get_type_name() == "Constant"}
    assert "f16" not in kinds
    assert (folder / "leaves-random-s0/1/model.bin").stat().st_size >= sum(w.nbytes for w in exported.weights.values())


@pytest.mark.parametrize("export_format", FORMATS)
def test_what_was_exported_and_how_it_was_checked_stands_beside_it(exports, export_format):
    export = exports[export_format]
    said = json.loads((export.path / "export.json").read_text())
    assert (said["format"], said["name"]) == (export_format, "leaves-random-s0")
    assert export.path / said["graph"] == export.graph
    assert said["input"] == {"name": "images", "datatype": "UINT8", "shape": [-1, *IMAGE_SHAPE]}
    assert said["output"] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}
    assert said["bundle"]["members"] == [*Exported.models]
    agreement = said["agreement"]
    assert agreement["runtime"].startswith("OpenVINO 20" if export_format == "openvino" else "ONNX Runtime 1.")
    assert agreement["n_images"] == 50
    assert 0 <= agreement["largest_difference"] < 1e-6 < agreement["tolerance"] == 1e-4
    assert agreement["n_other_classes"] == agreement["share_other_classes"] == 0
    assert {"onnx", "openvino"} <= said["provenance"]["packages"].keys()
    assert written(export.path) == {"export.json", *said["files"]}
    for name, checksum in said["files"].items():
        assert hashlib.sha256((export.path / name).read_bytes()).hexdigest() == checksum
    assert export.n_bytes == sum((export.path / name).stat().st_size for name in said["files"])


def refusal(kind: type[EnsembleflowError], *arguments: object) -> EnsembleflowError:
    with pytest.raises(kind) as caught:
        export_bundle(*arguments)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("export_format", FORMATS)
@pytest.mark.parametrize("off_by", [2e-4, np.nan])
def test_a_graph_that_answers_otherwise_is_not_written(make_bundle, tmp_path, export_format, off_by):
    output = tmp_path / "out"
    export_bundle(make_bundle(), output, export_format)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    error = refusal(BundleError, make_bundle(off_by=off_by), output, export_format)
    assert error.what == "the exported graph answers differently from the bundle"
    assert "1 of 50 images differ" in str(error.found)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    assert [*tmp_path.iterdir()] == [output]


def test_a_bundle_proven_in_bfloat16_is_held_to_that_tolerance(make_bundle, tmp_path):
    proof = {"n_images": 9, "largest_difference": 0.01, "tolerance": 0.1, "engines": ["openvino_bfloat16"]}
    export = export_bundle(make_bundle(off_by=0.01, servable=proof), tmp_path / "out", "onnx")
    assert export.agreement.tolerance == BFLOAT16_ANSWER_TOLERANCE
    assert export.agreement.largest_difference == pytest.approx(0.01, abs=1e-5)
    assert "openvino_bfloat16" not in FLOAT32_ENGINES


def test_another_number_of_classes_is_no_answer(make_bundle, onnx_folders, exported, tmp_path):
    images = random_images(5)
    answers = exported.average(images)[:, :9]
    folder = tmp_path / "bundle"
    bundle = write_bundle(folder, {model: onnx_folders[model] for model in exported.models}, images, answers)
    with pytest.raises(EnsembleflowError, match=r"merged into one graph|answers differently"):
        export_bundle(bundle, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def test_weights_that_are_too_many_for_one_file_lie_beside_it(make_bundle, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble_graph, "_MAX_FILE_BYTES", 100)
    images = random_images(9, seed=1)
    for export_format, read in READERS.items():
        export = export_bundle(make_bundle(), tmp_path / export_format, export_format)
        np.testing.assert_allclose(read(export.graph, images), exported.average(images), atol=1e-6)
        beside = export.graph.with_name("model.onnx.data")
        assert beside.exists() == (export_format != "openvino")
    assert "leaves-random-s0/1/model.onnx.data" in json.loads((tmp_path / "triton/export.json").read_text())["files"]


def test_an_earlier_export_is_replaced_and_anything_else_is_left_alone(make_bundle, tmp_path):
    bundle, output = make_bundle(1), tmp_path / "deeper/out"
    output.mkdir(parents=True)
    export_bundle(bundle, output, "triton", "first")
    export_bundle(bundle, output, "onnx")
    assert written(output) == {"model.onnx", "export.json"}
    (output / "notes.txt").write_text("mine")
    error = refusal(StorageError, bundle, output, "onnx")
    assert (error.what, error.found) == ("the output holds something else", "notes.txt")
    (output / "notes.txt").rename(tmp_path / "notes.txt")
    (output / "export.json").write_text("[]")
    assert refusal(StorageError, bundle, output, "onnx").found == "export.json, model.onnx"
    assert refusal(StorageError, bundle, tmp_path / "notes.txt", "onnx").found == "no folder"


def test_a_bundle_holds_no_export(make_bundle):
    bundle = make_bundle(1)
    for output in (bundle.path, bundle.path / "export", bundle.path / "members/.."):
        assert refusal(BundleError, bundle, output, "onnx").what == "an export cannot lie in its bundle"


def test_other_arguments_are_refused(make_bundle, tmp_path):
    bundle = make_bundle(1)
    for name in ("", "a/b", "../a", ".hidden", "a b", 3, "a\n"):
        assert refusal(ArgumentError, bundle, tmp_path / "out", "onnx", name).what == "a model cannot have this name"
    assert refusal(ArgumentError, bundle, tmp_path / "out", "caffe").where == "export_format"
    assert refusal(ArgumentError, bundle.path, tmp_path / "out", "onnx").where == "bundle"
    assert refusal(ArgumentError, bundle, None, "onnx").where == "output"
    assert [*tmp_path.iterdir()] == []


def test_a_member_that_cannot_be_converted_is_named(exported, tmp_path):
    damaged = tmp_path / "members/damaged"
    damaged.mkdir(parents=True)
    (damaged / "saved_model.pb").write_bytes(b"damaged")
    images = random_images(3)
    bundle = write_bundle(tmp_path / "bundle", {"damaged": damaged}, images, exported.average(images))
    error = refusal(EngineError, bundle, tmp_path / "out", "onnx")
    assert error.what == "members cannot be converted to ONNX"
    assert "members/damaged" in str(error)
    assert not (tmp_path / "out").exists()


def onnx_member(folder: Path, opset: int = 17, operator: str = "Softmax", domain: str = "", n_inputs: int = 1) -> Path:
    """A member that gives each class the pixel of its number."""
    shape = ["n", *IMAGE_SHAPE]
    images = [helper.make_tensor_value_info(f"x{number}", TensorProto.UINT8, shape) for number in range(n_inputs)]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x0"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["floats"], ["flat"]),
            helper.make_node(operator, ["flat"], ["y"], domain=domain),
        ],
        "member",
        images,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
    )
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    folder.mkdir(parents=True)
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / ONNX_FILE)
    return folder


@pytest.mark.parametrize(
    ("member", "found"),
    [({"opset": 16}, "versions"), ({"n_inputs": 2}, "inputs x0, x1"), ({"operator": "NoSuch"}, "NoSuch")],
)
def test_members_that_fit_into_no_graph_are_refused(tmp_path, member, found):
    members = {"a": onnx_member(tmp_path / "members/a"), "b": onnx_member(tmp_path / "members/b", **member)}
    bundle = write_bundle(tmp_path / "bundle", members, random_images(3), np.full((3, 64), 1 / 64))
    error = refusal(EngineError, bundle, tmp_path / "out", "onnx")
    assert error.what == "members cannot be merged into one graph"
    assert found in str(error.found)


@pytest.mark.parametrize(
    ("export_format", "what"),
    [("triton", "the exported graph cannot be computed"), ("openvino", "OpenVINO cannot read the ensemble's graph")],
)
def test_a_graph_that_its_runtime_cannot_compute_is_refused(tmp_path, export_format, what):
    member = onnx_member(tmp_path / "members/a", operator="NoSuch", domain="elsewhere")
    bundle = write_bundle(tmp_path / "bundle", {"a": member}, random_images(3), np.full((3, 64), 1 / 64))
    assert refusal(EngineError, bundle, tmp_path / "out", export_format).what == what
    assert not (tmp_path / "out").exists()
