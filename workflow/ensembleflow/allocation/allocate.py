"""The allocation stage: place an ensemble's members on devices and make it fast, by measuring."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ensembleflow.allocation.allocation_file import search_table
from ensembleflow.allocation.benches.profile import profiles_table
from ensembleflow.allocation.remembered_profiles import remembered_profiles
from ensembleflow.allocation.shared_result import array_checksum, folder_checksum, measured_with, shared_result
from ensembleflow.allocation.tune import Ensemble, Tuning, tune_allocation
from ensembleflow.config import AllocationConfig, DeviceConfig
from ensembleflow.datasets import open_dataset
from ensembleflow.errors import AllocationError
from ensembleflow.inference.deployment import StopRule
from ensembleflow.inference.placement import Member
from ensembleflow.io import atomic_path, read_json, write_csv, write_json
from ensembleflow.library import engine_of_costs, open_predictions
from ensembleflow.models.engines import DEFAULT_ENGINE
from ensembleflow.models.tolerances import cache_rounding

__all__ = ["allocate_ensemble", "log_tuning"]

_LOG = logging.getLogger("ensembleflow.allocation")

_CHECKED_IMAGES = 100

# A result's files in the store.
_ALLOCATION, _SEARCH, _PROFILES = "allocation.json", "search.csv", "profiles.csv"


def allocate_ensemble(
    selection_json: str | Path,
    exported_dir: str | Path,
    predictions_h5: str | Path,
    costs_csv: str | Path,
    dataset_h5: str | Path,
    config: AllocationConfig,
    n_devices: int,
    output_json: str | Path,
    output_csv: str | Path,
    profiles_csv: str | Path,
    store_dir: str | Path,
    cascade_json: str | Path | None = None,
) -> None:
    """Place a chosen ensemble on the first `n_devices` devices: profiled, worst-fit by memory, refined by speed.

    Budgets that choose the same ensemble share one allocation, and those that choose the same member its profiles: see
    `shared_result` and `remembered_profiles`.

    Args:
        selection_json: the chosen ensemble (`budget-{budget}.json`).
        exported_dir: the folder of the models' exported functions.
        predictions_h5: the cached predictions, which every engine's answers must equal, within its tolerance.
        costs_csv: the library's costs, which name the engine that is used where `config.engines` is null.
        dataset_h5: the dataset, whose validation images are predicted.
        config: devices, engines, batch sizes, objective and how long to search.
        n_devices: how many of the devices to use.
        output_json: the allocation.
        output_csv: every allocation benched.
        profiles_csv: every member on every kind of device, with every engine, at every batch size.
        store_dir: the allocations and profiles made so far, of all of the study's budgets.
        cascade_json: where the ensemble's images may stop early (`cascade-{budget}.json`): benches run it so, and a
            member counts with the share of the images that it sees. By default each is shown to all members.

    Raises:
        AllocationError: a member cannot run or fits on no device.
        ArtefactError: an input is missing or damaged.
        EngineError: an engine is not installed, or a member cannot be converted for it.
    """
    selection = read_json(selection_json, ["study", "budget", "members"])
    if not 1 <= n_devices <= len(config.devices):
        raise AllocationError(
            f"there are no {n_devices} devices",
            where="allocation.devices",
            found=", ".join(device.name for device in config.devices),
            hint="add devices, or lower allocation.device_counts",
        )
    devices = config.devices[:n_devices]
    engines = config.engines or _engines_for(engine_of_costs(costs_csv), devices)
    used = config.model_copy(update={"devices": devices, "engines": engines})
    ensemble = _read_ensemble(selection["members"], exported_dir, predictions_h5, dataset_h5, config.bench_images)
    if cascade_json is not None:
        cascade = read_json(cascade_json, ["members", "thresholds", "calibration"])
        ensemble = replace(
            ensemble,
            stop_rule=StopRule.of(cascade["members"], cascade["thresholds"]),
            shares=dict(zip(cascade["members"], cascade["calibration"]["shares"], strict=True)),
        )
    title = f"budget {selection['budget']} on {n_devices} device{'s' if n_devices > 1 else ''}"

    def make(folder: Path) -> None:
        recall = remembered_profiles(store_dir, f"{selection['budget']}-devices-{n_devices}")
        tuning = tune_allocation(ensemble, used, title=title, recall=recall)
        write_csv(folder / _PROFILES, profiles_table(tuning.profiles))
        write_csv(folder / _SEARCH, search_table(tuning.found, tuning.bench))
        write_json(folder / _ALLOCATION, tuning.result(study=selection["study"], budget=selection["budget"]))
        log_tuning(title, tuning)

    with shared_result(store_dir, _key(selection["study"], ensemble, used), selection["budget"], make) as folder:
        made = read_json(folder / _ALLOCATION, ["study", "budget"])
        for name, path in ((_PROFILES, profiles_csv), (_SEARCH, output_csv)):
            with atomic_path(path) as aside:
                shutil.copyfile(folder / name, aside)
        write_json(output_json, {**made, "budget": selection["budget"]})
    if made["budget"] != selection["budget"]:
        message = "%s: the same ensemble as of budget %s, and so the same allocation"
        _LOG.info(message, title, made["budget"], extra={"progress": True})


def _key(study: str, ensemble: Ensemble, config: AllocationConfig) -> dict[str, Any]:
    """All that an allocation depends on."""
    arrays = {"images": ensemble.images, **(ensemble.expected or {})}
    return {
        "study": study,
        "members": [[member.model, folder_checksum(member.exported)] for member in ensemble.members],
        "arrays": {name: array_checksum(array) for name, array in arrays.items()},
        "n_classes": ensemble.n_classes,
        "expected_rounding": ensemble.expected_rounding,
        "stop_rule": None if ensemble.stop_rule is None else repr(ensemble.stop_rule),
        "shares": dict(ensemble.shares),
        "config": config.model_dump(mode="json"),
        **measured_with(),
    }


def _engines_for(engine: str, devices: Sequence[DeviceConfig]) -> list[str]:
    """The engine of the costs, and where there are GPUs TensorFlow: another one may compute on CPU cores only."""
    on_gpus = any(device.gpu is not None for device in devices)
    return list(dict.fromkeys([engine, DEFAULT_ENGINE])) if on_gpus else [engine]


def log_tuning(title: str, tuning: Tuning) -> None:
    """Log what a search has found, as progress."""
    best, start = tuning.found.best.score, tuning.found.benches[0].score
    simulated = " (simulated)" if tuning.config.simulated else ""
    if tuning.config.objective == "throughput":
        unit, values = "images/s", [each.median("images_per_second") for each in (best, start)]
    else:
        name = tuning.config.objective.removeprefix("latency_")
        unit = f"ms {name} of {tuning.config.request_images}-image requests"
        values = [1000 / each.value if each.value else None for each in (best, start)]
    now, before = (
        "failed" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values
    )
    _LOG.info(
        "%s: %s %s%s (at the start %s) after %d benches; %s",
        title,
        now,
        unit,
        simulated,
        before,
        len(tuning.found.benches),
        tuning.found.stop_reason,
        extra={"progress": True},
    )


def _read_ensemble(
    models: list[str], exported_dir: str | Path, predictions_h5: str | Path, dataset_h5: str | Path, n_images: int
) -> Ensemble:
    with open_dataset(dataset_h5) as dataset, open_predictions(predictions_h5) as predictions:
        validation = dataset.image_array("valid")
        images = np.resize(validation[:n_images], (n_images, *dataset.image_shape))  # repeats whole images
        n_checked = min(n_images, len(validation), _CHECKED_IMAGES)
        missing = [model for model in models if model not in predictions.models]
        if missing:
            raise AllocationError(
                "members of the ensemble have no cached predictions", where=predictions_h5, found=", ".join(missing)
            )
        expected, rounding = None, 0.0
        if predictions.has_every_class:
            cached = predictions.probabilities("valid")
            expected = {model: np.array(cached[predictions.models.index(model)][:n_checked]) for model in models}
            rounding = cache_rounding(cached.dtype)
        members = [Member(model, Path(exported_dir) / model) for model in models]
        return Ensemble(members, images, dataset.n_classes, expected, rounding)
