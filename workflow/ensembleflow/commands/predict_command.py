"""`ensembleflow predict`: the classes of images, by a bundle's ensemble."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.commands.number_arguments import whole_number
from ensembleflow.datasets.some import some
from ensembleflow.inference import Pipeline
from ensembleflow.io import atomic_path, write_json
from ensembleflow.serving.bundle import open_bundle
from ensembleflow.serving.image_files import find_image_files, shown_name
from ensembleflow.serving.images import NamedImages, read_batches, unreadable

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
        "images",
        metavar="IMAGES",
        nargs="+",
        help="image files (PNG, JPEG, …), folders with such files at any depth, or .npy files of uint8 images; "
        "of a bundle that was trained with float arrays, .npy files of any numbers",
    )
    parser.add_argument(
        "--top", type=whole_number(1), default=1, metavar="K", help="classes to print an image (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--output", type=_table, metavar="FILE", help="write the answers to a file (.csv or .json) instead of printing"
    )
    parser.set_defaults(run=_run)


def _table(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in _WRITERS:
        raise argparse.ArgumentTypeError(f"{text} does not end with {' or '.join(_WRITERS)}")
    return path


def _run(arguments: argparse.Namespace) -> int:
    bundle = open_bundle(arguments.bundle)
    image_shape, image_dtype = bundle.manifest.image_shape, bundle.manifest.image_dtype
    found = find_image_files(arguments.images, image_dtype)
    if found.left_out:
        kind = "an image" if image_dtype == "uint8" else "an array"
        print(f"note: left out, not named like {kind}: {some([*map(shown_name, found.left_out)])}", file=sys.stderr)
    answers: list[dict[str, Any]] = []
    faults, resized = list(found.faults), []
    with ExitStack() as stack:
        pipeline: Pipeline | None = None  # it starts once there is an image
        for named in read_batches(found.files, image_shape, image_dtype):
            faults += named.faults
            resized += named.resized
            if len(named.images):
                pipeline = pipeline or stack.enter_context(bundle.pipeline())
                answers += _answers(named, pipeline.predict(named.images), bundle.class_names, arguments.top)
    _note_resized(resized, image_shape)
    if answers or not faults:
        _give(answers, arguments)
    if faults:
        raise unreadable(faults, len(found.files) + len(found.faults), image_shape, image_dtype)
    return 0


def _note_resized(resized: list[tuple[str, int, int]], image_shape: tuple[int, ...]) -> None:
    if not resized:
        return
    height, width = image_shape[:2]
    file, old_width, old_height = resized[0]
    if len(resized) == 1:
        note = f"{file} was resized from {old_width}x{old_height} to {width}x{height} pixels"
    else:
        note = (
            f"{len(resized)} images were resized to {width}x{height} pixels "
            f"(the first from {old_width}x{old_height}: {file})"
        )
    print(f"note: {note}", file=sys.stderr)


def _give(answers: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    if arguments.output is not None:
        _WRITERS[arguments.output.suffix.lower()](arguments.output, answers)
        print(f"{len(answers)} images predicted: {arguments.output}")
    elif arguments.json:
        print(json.dumps(answers, indent=1))
    else:
        print_table(answers)


def _write_csv(path: Path, answers: list[dict[str, Any]]) -> None:
    with atomic_path(path) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("file", "index", "rank", "class", "probability"))
        for answer in answers:
            for rank, each in enumerate(answer["predictions"], start=1):
                table.writerow((answer["file"], answer["index"], rank, each["class"], each["probability"]))


_WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {".csv": _write_csv, ".json": write_json}


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
    """Print one line per class: file, class, probability."""
    rows = [("file", "class", "probability")]
    for answer in answers:
        name = answer["file"] if answer["index"] is None else f"{answer['file']}[{answer['index']}]"
        rows += [(name, each["class"], f"{each['probability']:.4f}") for each in answer["predictions"]]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for file, class_name, probability in rows:
        print(f"{file:<{widths[0]}}  {class_name:<{widths[1]}}  {probability}")
