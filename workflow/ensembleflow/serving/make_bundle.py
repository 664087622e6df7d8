"""The bundles stage: an ensemble with all that a server needs, in one folder, proven to answer as measured."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.allocation.shared_result import array_checksum, folder_checksum, made_by, shared_result
from ensembleflow.config import is_simulated
from ensembleflow.datasets import open_dataset
from ensembleflow.errors import BundleError
from ensembleflow.inference import ForkServer, Limits, StopRule
from ensembleflow.io import atomic_directory, link_or_copy_folder, provenance, read_json, write_json
from ensembleflow.library import open_predictions
from ensembleflow.models.engines import DEFAULT_ENGINE, prepare_members
from ensembleflow.models.tolerances import answer_tolerance, cache_rounding
from ensembleflow.selection.cascade import Stages
from ensembleflow.serving.bundle import (
    MANIFEST,
    Bundle,
    file_checksums,
    open_bundle,
    require_equal_answers,
    split_check_images,
)
from ensembleflow.serving.bundled_allocation import bundled_allocation
from ensembleflow.serving.manifest import BundledCascade, Manifest, Proof

__all__ = ["make_bundle"]

_LOG = logging.getLogger("ensembleflow.serving")

# A result's folder in the store.
_BUNDLE = "bundle"

_MAX_CHECK_IMAGES = 200
_MAX_CHECK_BYTES = 32 * 2**20


def make_bundle(
    selection_json: str | Path,
    allocation_json: str | Path,
    exported_dir: str | Path,
    predictions_h5: str | Path,
    dataset_h5: str | Path,
    output_dir: str | Path,
    store_dir: str | Path,
    cascade_json: str | Path | None = None,
) -> None:
    """Write a self-contained bundle, and prove that a server answers from it as the cached predictions say.

    The server is started on the loopback interface and asked over HTTP for up to 200 validation images. If an answer
    differs by more than its engines' tolerance and the rounding of the cache, there is no bundle. The answers are kept
    in it: they hold every class, unrounded, whatever the cache holds. Budgets of the same ensemble and allocation share
    one proof and one set of files: see `shared_result`.

    Args:
        selection_json: the chosen ensemble (`budget-{budget}.json`).
        allocation_json: its allocation (`devices-{n}.json`).
        exported_dir: the folder of the models' exported functions.
        predictions_h5: the cached predictions.
        dataset_h5: the dataset.
        output_dir: the bundle.
        store_dir: the bundles made so far, of all of the study's budgets; on the file system of `output_dir` they take
            no room twice.
        cascade_json: where its images may stop early (`cascade-{budget}.json`); by default each is shown to all
            members.

    Raises:
        ArtefactError: an input is missing or damaged.
        BundleError: the inputs do not belong together, the allocation is only simulated, or the answers differ.
        MemberError: a member cannot run.
    """
    selection = read_json(selection_json, ["study", "budget", "members", "cost_seconds", "valid", "test"])
    allocation = read_json(allocation_json, ["study", "budget", "members", "devices", "images_per_second"])
    for key in ("study", "budget"):
        _same(selection_json, allocation_json, key, selection[key], allocation[key])
    if is_simulated(allocation):
        raise BundleError(
            "a simulated allocation cannot be served",
            where=allocation_json,
            expected="an allocation that was run on its devices",
            hint="set allocation.bench to measured, on the machine that is to serve",
        )
    models: list[str] = selection["members"]
    placed = list(dict.fromkeys(each["model"] for each in allocation["members"]))  # replicas follow each other
    _same(selection_json, allocation_json, "members", models, placed)

    cascade, stop_rule = None, None
    if cascade_json is not None:
        cascade = read_json(cascade_json, ["study", "budget", "members", "thresholds", "calibration"])
        for key in ("study", "budget"):
            _same(selection_json, cascade_json, key, selection[key], cascade[key])
        _same(selection_json, cascade_json, "members", sorted(models), sorted(cascade["members"]))
        stop_rule = StopRule.of(cascade["members"], cascade["thresholds"])
    placements, devices = bundled_allocation(allocation)
    engines = {each.get("engine", DEFAULT_ENGINE) for each in allocation["members"]}
    check, dataset = _read_check(dataset_h5, predictions_h5, models, stop_rule, answer_tolerance(engines))
    members = [Path(exported_dir) / model for model in models]

    def make(entry: Path) -> None:
        folder = entry / _BUNDLE
        folder.mkdir()
        prepare_members(members, folder / "members", engines)
        manifest = Manifest(
            study=selection["study"],
            budget=selection["budget"],
            members=models,
            allocation=placements,
            devices=devices,
            valid=_known(selection["valid"]),
            test=_known(selection["test"]),
            cost_seconds=selection["cost_seconds"],
            images_per_second=allocation["images_per_second"],
            cascade=None if cascade is None or stop_rule is None else _bundled_cascade(cascade, check.rounding),
            files={},
            provenance=provenance(),
            **dataset,
        )
        answers = _served_answers(Bundle(folder, manifest), check.images)
        proof = check.compare(answers, sorted(engines), predictions_h5)
        check.write(answers, folder / "check")
        manifest = manifest.model_copy(update={"servable": proof, "files": file_checksums(folder)})
        write_json(folder / MANIFEST, manifest.model_dump(mode="json"))

    depends_on = {
        "selection": {name: selection[name] for name in ("study", "members", "cost_seconds", "valid", "test")},
        "allocation": {name: allocation[name] for name in allocation if name != "budget"},
        "members": [folder_checksum(member) for member in members],
        "dataset": {name: list(value) if isinstance(value, tuple) else value for name, value in dataset.items()},
        "check": check.checksums(),
        "cascade": None
        if cascade is None
        else {name: cascade[name] for name in cascade if name not in ("provenance", "budget")},
        "made_by": made_by("allocation", "inference", "models", "serving"),
    }
    with (
        shared_result(store_dir, depends_on, selection["budget"], make) as entry,
        atomic_directory(output_dir) as folder,
    ):
        link_or_copy_folder(entry / _BUNDLE, folder)
        manifest = read_json(folder / MANIFEST, ["budget", "servable"])
        write_json(folder / MANIFEST, {**manifest, "budget": selection["budget"]})
        open_bundle(folder)
    _LOG.info(
        "%s: the server's answers to %d images differ from the cached predictions by at most %.2g",
        output_dir,
        manifest["servable"]["n_images"],
        manifest["servable"]["largest_difference"],
    )


def _served_answers(bundle: Bundle, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    # Half a second of imports, which no other command that imports this package needs.
    from ensembleflow.serving.client import ask_server
    from ensembleflow.serving.http_server import listen, server_in_thread
    from ensembleflow.serving.service import Service

    with ForkServer() as fork_server:
        # No request is waited for that a warm-up would make shorter.
        dispatcher = bundle.dispatcher(limits=Limits(warm_up_seconds=0.0), fork_server=fork_server)
        # Nothing to compare with is in the bundle yet: the caller compares.
        service = Service(bundle, dispatcher, checks_answers=False)
        with server_in_thread(service, listen("127.0.0.1", 0)) as url:
            return ask_server(url, bundle.manifest.study, split_check_images(images))


@dataclass(frozen=True)
class _Check:
    """Some validation images, and what is cached of the ensemble's answers to them.

    Attributes:
        images: (images, *image_shape).
        cached: float64 (images, classes), or of the true classes only, (images, 1); a cascade's where it is one.
        true_classes: int64 (images, 1) in the latter case.
        rounding: by how much what is cached may be off by itself.
        full: of a cascade, what all members together answer, float32 (images, classes).
    """

    images: npt.NDArray[Any]
    cached: npt.NDArray[np.float64]
    true_classes: npt.NDArray[np.int64] | None
    rounding: float
    full: npt.NDArray[np.float32] | None = None

    def compare(self, answers: npt.NDArray[np.float32], engines: Sequence[str], cache: str | Path) -> Proof:
        if self.true_classes is not None:
            answers = np.take_along_axis(answers, self.true_classes, axis=1)
        tolerance = answer_tolerance(engines) + self.rounding
        difference = require_equal_answers(answers, self.cached, tolerance, cache)
        n_other_classes = None
        if self.true_classes is None:
            n_other_classes = int((answers.argmax(axis=1) != self.cached.argmax(axis=1)).sum())
        return Proof(
            n_images=len(answers),
            largest_difference=difference,
            tolerance=tolerance,
            n_other_classes=n_other_classes,
            engines=list(engines),
        )

    def checksums(self) -> list[Any]:
        arrays = (self.images, self.cached, self.true_classes)
        return [self.rounding, *(array_checksum(each) for each in arrays if each is not None)]

    def write(self, answers: npt.NDArray[np.float32], folder: Path) -> None:
        folder.mkdir()
        np.save(folder / "images.npy", self.images, allow_pickle=False)
        np.save(folder / "probabilities.npy", answers, allow_pickle=False)
        if self.full is not None:
            np.save(folder / "full_probabilities.npy", self.full, allow_pickle=False)


def _read_check(
    dataset_h5: str | Path, predictions_h5: str | Path, models: list[str], stop_rule: StopRule | None, tolerance: float
) -> tuple[_Check, dict[str, Any]]:
    """The check's images and cached answers, and what the manifest says about the dataset.

    Of a cascade no image is checked that rounding, or another engine, may stop at another stage.
    """
    with open_dataset(dataset_h5) as dataset, open_predictions(predictions_h5) as predictions:
        _same(dataset_h5, predictions_h5, "dataset_checksum", dataset.checksum, predictions.dataset_checksum)
        missing = [model for model in models if model not in predictions.models]
        if missing:
            raise BundleError(
                "members of the ensemble have no cached predictions", where=predictions_h5, found=", ".join(missing)
            )
        images = dataset.image_array("valid")
        places = _spread(np.arange(len(images)), images[0].nbytes)
        rows = [predictions.models.index(model) for model in models]
        if predictions.has_every_class:
            stored, true_classes = predictions.probabilities("valid"), None
        else:
            stored = predictions.true_class_probability("valid")[..., None]
            true_classes = predictions.labels("valid")[places, None]
        rounding = cache_rounding(stored.dtype)
        if stop_rule is None:
            cached, full = stored[rows][:, places].mean(axis=0, dtype=np.float64), None
        else:
            order = [predictions.models.index(model) for model in stop_rule.members]
            stages = Stages.of(stored[order])
            margins = abs(stages.confidences[:-1] - np.reshape(stop_rule.thresholds, (-1, 1))).min(axis=0)
            places = _spread(np.flatnonzero(margins > tolerance + rounding), images[0].nbytes)
            n_asked = stages.stops(stop_rule.thresholds)[places] + 1
            members = stored[order][:, places].astype(np.float64)
            sums = members.cumsum(axis=0)[n_asked - 1, np.arange(len(places))]
            cached, full = sums / n_asked[:, None], members.mean(axis=0).astype(np.float32)
        if not len(places):
            raise BundleError(
                "no validation image tells whether a cascade stops where it should",
                where=predictions_h5,
                found=f"each is within {tolerance + rounding:.2g} of a threshold",
                hint="leave engines of less precision out of allocation.engines, or use more validation images",
            )
        check = _Check(images=images[places], cached=cached, true_classes=true_classes, rounding=rounding, full=full)
        return check, {
            "class_names": dataset.class_names,
            "image_shape": dataset.image_shape,
            "image_dtype": dataset.image_dtype,
            "dataset_checksum": dataset.checksum,
        }


def _known(metrics: dict[str, float | None]) -> dict[str, float]:
    """Without those that need classes that are not cached."""
    return {name: value for name, value in metrics.items() if value is not None}


def _bundled_cascade(cascade: Mapping[str, Any], rounding: float) -> BundledCascade:
    calibration = cascade["calibration"]
    return BundledCascade(
        members=cascade["members"],
        thresholds=cascade["thresholds"],
        max_changed=cascade["max_changed"],
        confidence=cascade["confidence"],
        shares=calibration["shares"],
        share_intervals=calibration["share_intervals"],
        rounding=rounding,
    )


def _spread(places: npt.NDArray[np.intp], image_bytes: int) -> npt.NDArray[np.intp]:
    """Some of the places, evenly spread."""
    n_checked = min(len(places), _MAX_CHECK_IMAGES, max(1, _MAX_CHECK_BYTES // image_bytes))
    return places[np.linspace(0, len(places) - 1, n_checked).astype(np.intp)]


def _same(first: str | Path, second: str | Path, key: str, expected: object, found: object) -> None:
    if expected != found:
        raise BundleError(
            "two artefacts do not belong together",
            where=f"{second}: {key}",
            found=found,
            expected=f"{expected}, as in {first}",
            hint="make the newer stages again: snakemake bundles --forcerun allocate_ensemble",
        )
