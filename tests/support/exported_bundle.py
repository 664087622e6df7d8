"""Bundles without a server's proof, and what reads their exports: the runtimes, Triton's own messages."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ensembleflow.io import link_or_copy_folder, write_json
from ensembleflow.serving.bundle import Bundle, file_checksums, open_bundle


def write_bundle(
    folder: Path, members: dict[str, Path], images: np.ndarray, answers: np.ndarray, **said: Any
) -> Bundle:
    """A bundle of exported functions that are to answer so.

    Args:
        folder: of the bundle.
        members: the exported functions' folders, by model id.
        images: the check images.
        answers: the ensemble's, (images, classes).
        said: of the manifest, in place of what is usual.
    """
    for model, exported in members.items():
        link_or_copy_folder(exported, folder / "members" / model)
    (folder / "check").mkdir()
    np.save(folder / "check/images.npy", images)
    np.save(folder / "check/probabilities.npy", answers.astype(np.float32))
    manifest = {
        "schema_version": 2,
        "study": "leaves-random-s0",
        "budget": "2x",
        "members": list(members),
        "allocation": [{"model": model, "device": "cpu0", "batch_size": 8} for model in members],
        "devices": [{"name": "cpu0", "cores": 1, "memory_mb": 1000}],
        "class_names": [f"class {number}" for number in range(answers.shape[1])],
        "image_shape": images.shape[1:],
        "valid": {"error": 0.5},
        "test": {"error": 0.5},
        "cost_seconds": 1.0,
        "images_per_second": 1.0,
        "dataset_checksum": "0",
        "files": file_checksums(folder),
        "provenance": {},
    }
    write_json(folder / "bundle.json", {**manifest, **said})
    return open_bundle(folder)


def answers_of_onnx_runtime(path: Path, images: np.ndarray) -> np.ndarray:
    (answers,) = _session(path).run(["probabilities"], {"images": images})
    return answers


def answers_of_openvino(path: Path, images: np.ndarray) -> np.ndarray:
    return _compiled(path)({"images": images})["probabilities"]


@cache
def _session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path))


@cache
def _compiled(path: Path) -> Any:
    import openvino

    return openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def read_triton_config(path: Path) -> Any:
    """Triton's message `ModelConfig`; fails at a field that it does not have."""
    from google.protobuf import text_format

    return text_format.Parse(path.read_text(), _model_config().ModelConfig())


def _model_config() -> ModuleType:
    # The package's __init__ wants gRPC of another version; its messages do without.
    (client,) = importlib.util.find_spec("tritonclient").submodule_search_locations  # type: ignore[union-attr]
    spec = importlib.util.spec_from_file_location("model_config_pb2", Path(client, "grpc/model_config_pb2.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
