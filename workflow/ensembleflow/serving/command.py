"""`ensembleflow predict`: the classes of images, by a bundle's ensemble."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.serving.bundle import open_bundle
from ensembleflow.serving.images import NamedImages, read_images

__all__ = ["add_command", "print_table"]


def add_command(subparsers: Any) -> None:
    """Add `predict` to the command line."""
    parser = subparsers.add_parser(
        "predict",
        help="predict images with a bundle",
        description="Print the most probable classes of images, by a bundle's ensemble.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of the bundle")
    parser.add_argument(
        "images", metavar="IMAGES", nargs="+", help="image files (PNG, JPEG, …), or .npy files of uint8 images"
    )
    parser.add_argument("--top", type=_positive, default=1, metavar="K", help="classes to print an image (default: 1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of 1 or more")
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    bundle = open_bundle(arguments.bundle)
    height, width, channels = bundle.manifest.image_shape
    named = read_images(arguments.images, (height, width, channels))
    for file, old_width, old_height in named.resized:
        print(f"note: {file} was resized from {old_width}x{old_height} to {width}x{height} pixels", file=sys.stderr)
    with bundle.pipeline() as pipeline:
        probabilities = pipeline.predict(named.images)
    answers = _answers(named, probabilities, bundle.class_names, arguments.top)
    if arguments.json:
        print(json.dumps(answers, indent=1))
    else:
        print_table(answers)
    return 0


def _answers(
    named: NamedImages, probabilities: npt.NDArray[np.float32], class_names: list[str], top: int
) -> list[dict[str, Any]]:
    answers = []
    for file, index, row in zip(named.files, named.indices, probabilities, strict=True):
        best = np.argsort(-row, kind="stable")[:top]
        predictions = [{"class": class_names[each], "probability": round(float(row[each]), 6)} for each in best]
        answers.append({"file": file, "index": index, "predictions": predictions})
    return answers


def print_table(answers: list[dict[str, Any]]) -> None:
    """Print one line a class: file, class, probability."""
    rows = [("file", "class", "probability")]
    for answer in answers:
        name = answer["file"] if answer["index"] is None else f"{answer['file']}[{answer['index']}]"
        rows += [(name, each["class"], f"{each['probability']:.4f}") for each in answer["predictions"]]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for file, class_name, probability in rows:
        print(f"{file:<{widths[0]}}  {class_name:<{widths[1]}}  {probability}")
