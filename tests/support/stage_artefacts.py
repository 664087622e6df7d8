"""The artefacts of earlier stages, as small as they can be, around the stand-in exported functions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import h5py
import numpy as np

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import open_dataset, prepare_dataset
from ensembleflow.io import create_hdf5
from ensembleflow.library import open_predictions
from ensembleflow.selection.cascade import Stages, share_interval
from ensembleflow.serving import make_bundle

CLASS_NAMES = [str(digit) for digit in range(10)]


class Results:
    """A results folder with a dataset, cached predictions, costs and one selected ensemble."""

    def __init__(
        self,
        folder: Path,
        exported,
        members: tuple[str, ...],
        disturbance: float = 0.0,
        dtype: str = "float32",
        every_class: bool = True,
    ) -> None:
        """`disturbance` is added to one cached probability of the true class, as if it came from another model."""
        self.folder = folder
        self.exported_dir = exported.folder
        self.members = members
        self.dataset = folder / "digits.h5"
        self.predictions = folder / "predictions.h5"
        self.costs = folder / "costs.csv"
        self.selection = folder / "selection.json"
        self.allocation = folder / "allocation.json"
        prepare_dataset(DatasetConfig(), self.dataset)
        self._write_predictions(exported, disturbance, np.dtype(dtype), every_class)
        self.costs.write_text(
            "model,engine,cost_seconds\n"
            + "".join(f"{model},tensorflow,0.{i + 1}\n" for i, model in enumerate(exported.models))
        )
        of_every_class = dict.fromkeys(("error", "macro_f1_error", "brier"), 0.9 if every_class else None)
        metrics = {**of_every_class, "cross_entropy": 2.3}
        selection = {"members": list(members), "cost_seconds": 0.3, "valid": metrics, "test": metrics}
        self.write(self.selection, selection)
        placed = [{"model": model, "device": "cpu0", "batch_size": 32, "memory_mb": 500.0} for model in members]
        devices = [{"name": "cpu0", "core_ids": [0], "memory_mb": 4096}]
        self.write(self.allocation, {"members": placed, "devices": devices, "images_per_second": 1000.0})

    def make_bundle(self, output_dir: Path, cascade: Path | None = None) -> None:
        inputs = self.selection, self.allocation, self.exported_dir, self.predictions, self.dataset
        make_bundle(*inputs, output_dir, self.folder / "bundle-store", cascade)

    def write_cascade(self, members: tuple[str, ...], thresholds: list[float | None], **changes: object) -> Path:
        """`cascade-4x.json`, calibrated on the validation images."""
        with open_predictions(self.predictions) as predictions:
            places = [predictions.models.index(model) for model in members]
            stages = Stages.of(predictions.probabilities("valid")[places])
        finite = [math.inf if each is None else each for each in thresholds]
        reached = stages.reached(finite).tolist()
        calibration = {
            "shares": [each / stages.n_images for each in reached],
            "share_intervals": [share_interval(each, stages.n_images, 0.95) for each in reached],
        }
        content = {"members": list(members), "thresholds": thresholds, "max_changed": 0.01, "confidence": 0.95}
        self.write(self.folder / "cascade-4x.json", {**content, "calibration": calibration, **changes})
        return self.folder / "cascade-4x.json"

    @staticmethod
    def write(path: Path, content: dict) -> None:
        path.write_text(json.dumps({"study": "digits-random-s0", "budget": "4x", **content}))

    def _write_predictions(self, exported, disturbance: float, dtype: np.dtype, every_class: bool) -> None:
        text = h5py.string_dtype()
        with open_dataset(self.dataset) as dataset, create_hdf5(self.predictions, "predictions", 1) as file:
            file.create_dataset("models", data=list(exported.models), dtype=text)
            file.attrs["study"] = "digits-random-s0"
            file.attrs["dataset_checksum"] = dataset.checksum
            file.attrs["dtype"] = dtype.name
            file.attrs["class_names"] = np.array(dataset.class_names, dtype=text)
            file.attrs["weights_sha256"] = np.array(["0" * 64] * len(exported.models), dtype=text)
            for split in ("valid", "test"):
                images, labels = dataset.images(split), dataset.labels(split)
                probabilities = np.stack([exported.answers(model, images) for model in exported.models])
                probabilities[0, 0, labels[0]] += disturbance
                probabilities = probabilities.astype(dtype)
                if every_class:
                    file[f"{split}/probabilities"] = probabilities
                file[f"{split}/true_class_probability"] = probabilities[:, np.arange(len(labels)), labels]
                file[f"{split}/labels"] = labels
