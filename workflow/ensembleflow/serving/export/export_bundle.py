"""A bundle's ensemble as one graph for other runtimes, written only if it answers as the bundle does."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

import ensembleflow
from ensembleflow.arguments import file_path, instance, one_of
from ensembleflow.datasets.some import some
from ensembleflow.errors import ArgumentError, EngineError, MissingPackageError
from ensembleflow.io import atomic_directory, provenance, write_json
from ensembleflow.models.engines import ONNX_FILE, convert_to_onnx
from ensembleflow.serving.bundle import MANIFEST, Bundle, file_checksums
from ensembleflow.serving.export.agreement import Agreement, require_agreement
from ensembleflow.serving.export.ensemble_graph import write_ensemble_graph
from ensembleflow.serving.export.openvino import write_openvino_graph, write_server_config
from ensembleflow.serving.export.output_folder import EXPORT_FILE, require_free
from ensembleflow.serving.export.triton import write_triton_config
from ensembleflow.serving.signature import DATATYPES, INPUT, PROBABILITIES, Signature, most_images

__all__ = ["FORMATS", "Export", "ExportFormat", "export_bundle"]

_LOG = logging.getLogger("ensembleflow.serving")

ExportFormat = Literal["onnx", "openvino", "triton"]
FORMATS: tuple[str, ...] = get_args(ExportFormat)

OPENVINO_FILE = "model.xml"
_VERSION = "1"  # servers look for a model's versions in folders that are numbers
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RUNTIME = {"onnx": "onnxruntime", "openvino": "openvino", "triton": "onnxruntime"}
_CONVERTER = ("tensorflow", "tf2onnx")
_EXTRAS = {"onnx": "onnxruntime", "tf2onnx": "onnxruntime", "tensorflow": "cpu"}
_MADE_WITH = ("onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "tf2onnx")


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: the folder.
        name: the model's name.
        graph: the graph's file in it.
        n_bytes: size of all its files.
        opset: the version of ONNX's operators.
        agreement: how near its answers come to the bundle's.
    """

    path: Path
    name: str
    graph: Path
    n_bytes: int
    opset: int
    agreement: Agreement


def export_bundle(bundle: Bundle, output: str | Path, export_format: str, name: str | None = None) -> Export:
    """Write a bundle's ensemble as one graph, from images to the members' mean class probabilities.

    The runtime that the export is for first answers the bundle's check images: where a probability differs by more
    than the bundle's tolerance, nothing is written. An earlier export at the same place is replaced.

    Args:
        bundle: an opened bundle.
        output: the folder to write: `model.onnx` (`onnx`), or a model repository with a folder `name`, for OpenVINO
            Model Server (`openvino`) or Triton Inference Server (`triton`).
        export_format: one of `FORMATS`.
        name: what a server calls the model; by default the study's name, as `ensembleflow serve` does.

    Raises:
        ArgumentError: the format is unknown, or the name cannot be one.
        BundleError: the answers differ, a file of the bundle is damaged, or `output` lies in it.
        EngineError: a member cannot be converted or merged, or the runtime cannot compute the graph.
        MissingPackageError: a package is not installed.
        StorageError: there is something else at `output`, or it cannot be written.
    """
    bundle = instance("bundle", bundle, Bundle, "open_bundle")
    output = file_path("output", output)
    export_format = one_of("export_format", export_format, FORMATS)
    name = _checked_name(bundle.manifest.study if name is None else name)
    require_free(output, bundle.path)
    _require_packages(bundle, export_format)
    said = _said_of(bundle)
    with tempfile.TemporaryDirectory(prefix="ensembleflow-export-") as scratch, atomic_directory(output) as folder:
        graph = folder / _graph_file(export_format, name)
        graph.parent.mkdir(parents=True, exist_ok=True)
        onnx_file = Path(scratch, ONNX_FILE) if export_format == "openvino" else graph
        shape, dtype = bundle.manifest.image_shape, bundle.manifest.image_dtype
        members, class_names = _onnx_members(bundle, Path(scratch)), bundle.class_names
        opset = write_ensemble_graph(members, onnx_file, shape, len(class_names), said, dtype)
        if export_format == "openvino":
            _write_openvino(bundle, onnx_file, graph, said)
            write_server_config(folder / "config.json", name)
        elif export_format == "triton":
            signature = Signature(name, _VERSION, shape, most_images(shape, dtype), dtype)
            write_triton_config(folder / name, signature, class_names)
        agreement = require_agreement(bundle, graph, _RUNTIME[export_format])
        about = _about(bundle, export_format, name, graph.relative_to(folder), opset, agreement)
        files = file_checksums(folder)
        n_bytes = sum((folder / file).stat().st_size for file in files)
        write_json(folder / EXPORT_FILE, {**about, "files": files, "provenance": _provenance()})
        graph = output / graph.relative_to(folder)
    return Export(output, name, graph, n_bytes, opset, agreement)


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ArgumentError(
            "a model cannot have this name",
            where="--name",
            found=name,
            expected="letters, digits, dots, - and _, of which the first is a letter or digit",
        )
    return name


def _graph_file(export_format: str, name: str) -> Path:
    if export_format == "onnx":
        return Path(ONNX_FILE)
    return Path(name, _VERSION, OPENVINO_FILE if export_format == "openvino" else ONNX_FILE)


def _has_onnx_files(bundle: Bundle) -> bool:
    """Whether the bundle has them: it does where a member may run on ONNX Runtime, of all members then."""
    return all((member.exported / ONNX_FILE).is_file() for member in bundle.members)


def _require_packages(bundle: Bundle, export_format: str) -> None:
    needed = ["onnx", _RUNTIME[export_format], *(() if _has_onnx_files(bundle) else _CONVERTER)]
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        extras = dict.fromkeys(_EXTRAS.get(package, package) for package in missing)
        raise MissingPackageError(
            "exporting needs packages that are not installed",
            found=", ".join(missing),
            hint=f'pip install "ensembleflow[{",".join(extras)}]", or, at the tested versions, '
            "pip install -r requirements-engines.lock",
        )


def _onnx_members(bundle: Bundle, scratch: Path) -> dict[str, Path]:
    """The members' ONNX files: the bundle's own, or made of the exported functions."""
    if _has_onnx_files(bundle):
        return {member.model: member.exported / ONNX_FILE for member in bundle.members}
    files = {member.model: scratch / f"{member.model}.onnx" for member in bundle.members}
    _LOG.info("converting to ONNX: %s", some([*files]), extra={"progress": True})
    try:
        convert_to_onnx({member.exported: files[member.model] for member in bundle.members})
    except EngineError as error:
        error.hint = "the packages are installed, so tf2onnx lacks an operation of a member: serve the bundle itself"
        raise
    return files


def _write_openvino(bundle: Bundle, onnx_file: Path, graph: Path, said: Mapping[str, str]) -> None:
    try:
        write_openvino_graph(onnx_file, graph, said)
    except RuntimeError as error:
        raise EngineError(
            "OpenVINO cannot read the ensemble's graph",
            where=bundle.path,
            found=" ".join(str(error).split())[:400],
            hint="choose another --format",
        ) from error


def _said_of(bundle: Bundle) -> dict[str, str]:
    """What a graph's file says of itself, for whoever meets it alone; structured values as JSON."""
    manifest = bundle.manifest
    return {
        "made_by": f"ensembleflow {ensembleflow.__version__}",
        "study": manifest.study,
        "budget": manifest.budget,
        "members": json.dumps(manifest.members),
        "combiner": manifest.combiner,
        "class_names": json.dumps(manifest.class_names, ensure_ascii=False),
        "dataset_checksum": manifest.dataset_checksum,
        "bundle_sha256": _bundle_sha256(bundle),
        "bundle_provenance": json.dumps(manifest.provenance),
    }


def _bundle_sha256(bundle: Bundle) -> str:
    return hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest()


def _about(
    bundle: Bundle, export_format: str, name: str, graph: Path, opset: int, agreement: Agreement
) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "schema_version": 1,
        "format": export_format,
        "name": name,
        "graph": graph.as_posix(),
        "opset": opset,
        "input": {"name": INPUT, "datatype": DATATYPES[manifest.image_dtype], "shape": [-1, *manifest.image_shape]},
        "output": {"name": PROBABILITIES, "datatype": "FP32", "shape": [-1, len(manifest.class_names)]},
        "class_names": manifest.class_names,
        "agreement": {**asdict(agreement), "share_other_classes": agreement.share_other_classes},
        "bundle": {
            "study": manifest.study,
            "budget": manifest.budget,
            "members": manifest.members,
            "combiner": manifest.combiner,
            "valid": manifest.valid,
            "test": manifest.test,
            "dataset_checksum": manifest.dataset_checksum,
            "sha256": _bundle_sha256(bundle),
            "provenance": manifest.provenance,
        },
    }


def _provenance() -> dict[str, Any]:
    """This package's, with the packages that an export is made and checked with."""
    made = provenance()
    versions = {}
    for package in _MADE_WITH:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {**made, "packages": made["packages"] | versions}
