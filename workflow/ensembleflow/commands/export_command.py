"""`ensembleflow export`: a bundle's ensemble as one graph for other runtimes and servers."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from ensembleflow.commands.progress_on_terminal import progress_on_terminal
from ensembleflow.serving.bundle import Bundle, open_bundle
from ensembleflow.serving.export import FORMATS, Export, export_bundle
from ensembleflow.serving.signature import INPUT, PROBABILITIES

__all__ = ["add_command"]


def add_command(subparsers: Any) -> None:
    """Add `export` to the command line."""
    parser = subparsers.add_parser(
        "export",
        help="export a bundle as one ONNX or OpenVINO graph, for other servers",
        description="Write a bundle's ensemble as one graph from images to the members' mean probabilities: an "
        "ONNX file, or a model repository for OpenVINO Model Server or Triton Inference Server. It is written only if "
        "ONNX Runtime or OpenVINO, whichever it is for, answers the bundle's check images with it as the bundle does.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of the bundle")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="onnx: one file, model.onnx; openvino: a model repository with OpenVINO's own file; triton: one with "
        "model.onnx and config.pbtxt",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="the folder to write; an earlier export in it is replaced (default: BUNDLE's name and the format, here)",
    )
    parser.add_argument("--name", help="what a server calls the model (default: the study's name)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    bundle = open_bundle(arguments.bundle)
    output = arguments.output or Path(f"{bundle.path.resolve().name}-{arguments.format}")
    with progress_on_terminal():
        export = export_bundle(bundle, output, arguments.format, arguments.name)
    agreement = export.agreement
    print(
        f"{export.graph}: {_members(bundle)}, {_size(export.n_bytes)}, operator set {export.opset}\n"
        f"{agreement.runtime} on the bundle's {agreement.n_images} check images: probabilities differ by at most "
        f"{agreement.largest_difference:.1e} (allowed: {agreement.tolerance:g}), {agreement.n_other_classes} classes "
        f"({100 * agreement.share_other_classes:.1f} %) are others\n"
        f"{_how_to_use(arguments.format, export, bundle)}"
    )
    return 0


def _members(bundle: Bundle) -> str:
    n_members = len(bundle.manifest.members)
    return "1 member" if n_members == 1 else f"{n_members} members"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.0f} KB"


def _how_to_use(export_format: str, export: Export, bundle: Bundle) -> str:
    repository = shlex.quote(f"{export.path.resolve()}:/models:ro")
    if export_format == "triton":
        return (
            "serve it, with the release of Triton that you use for YY.MM:\n"
            f"  docker run --rm -p 8000:8000 -v {repository} nvcr.io/nvidia/tritonserver:YY.MM-py3 "
            "tritonserver --model-repository=/models"
        )
    if export_format == "openvino":
        return (
            "serve it:\n"
            f"  docker run --rm -p 8000:8000 -v {repository} openvino/model_server:latest "
            "--config_path /models/config.json --rest_port 8000\n"
            "where you load model.xml yourself, ask for float32 with INFERENCE_PRECISION_HINT, as config.json does"
        )
    shape = ", ".join(map(str, bundle.manifest.image_shape))
    return (
        f"compute it, images being a NumPy array, {bundle.manifest.image_dtype} (n, {shape}):\n"
        f"  onnxruntime.InferenceSession({str(export.graph)!r}).run([{PROBABILITIES!r}], {{{INPUT!r}: images}})"
    )
