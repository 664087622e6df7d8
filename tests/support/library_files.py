"""A small library's files, and the stage that selects from them."""

import h5py
import numpy as np
import pandas as pd

from ensembleflow.config import SelectionConfig
from ensembleflow.io import create_hdf5, write_csv
from ensembleflow.selection import collect_ensembles, select_ensemble

N_MODELS, N_CLASSES = 6, 4
MODELS = [f"trial-{slot:05d}" for slot in (7, 3, 11, 0, 25, 4)]
CONFIG = SelectionConfig()


def write_library(folder, models=MODELS, probabilities=None, costs=None, n_calibration=0):
    """`predictions.h5` and `costs.csv` of a made-up library; each model's content depends on its id alone."""
    rng = np.random.default_rng(0)
    n_images = {"valid": 50, "test": 40, **({"calibration": n_calibration} if n_calibration else {})}
    labels = {split: rng.integers(0, N_CLASSES, n) for split, n in n_images.items()}
    folder.mkdir(exist_ok=True)
    with create_hdf5(folder / "predictions.h5", "predictions", 1) as file:
        file.attrs["study"] = "digits-hyperband-s0"
        file.attrs["dataset_checksum"] = "0" * 64
        file.attrs["class_names"] = np.array(list("abcd"), dtype=h5py.string_dtype())
        file.create_dataset("models", data=list(models), dtype=h5py.string_dtype())
        for split, truth in labels.items():
            group = file.create_group(split)
            cached = np.array([predicted(model, split, truth) for model in models], dtype=np.float32)
            cached = cached.reshape(len(models), len(truth), N_CLASSES)
            if probabilities is not None:
                cached = probabilities(split, cached)
            group.create_dataset("probabilities", data=cached)
            group.create_dataset("true_class_probability", data=cached[:, np.arange(len(truth)), truth])
            group.create_dataset("labels", data=truth)
    seconds = [1 + int(model[-5:]) / 10 for model in models] if costs is None else costs
    write_csv(folder / "costs.csv", pd.DataFrame({"model": list(models), "cost_seconds": seconds}))
    return folder / "predictions.h5", folder / "costs.csv"


def predicted(model, split, truth):
    rng = np.random.default_rng([1, int(model[-5:]), len(truth)])
    logits = rng.normal(0, 2.5, (len(truth), N_CLASSES))
    logits[np.arange(len(truth)), truth] += 2.5
    return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)


def select(folder, budget, files, config=CONFIG):
    path = folder / f"budget-{budget}.json"
    select_ensemble(*files, config, budget, path)
    return path


def collect(folder, paths):
    names = [folder / f"{name}.csv" for name in ("ensembles", "pareto", "trace")]
    collect_ensembles(paths, *names)
    return names
