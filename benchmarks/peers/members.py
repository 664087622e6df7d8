"""The members of an ensemble as TensorFlow functions, for the peers: the exported functions that ours calls."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np


def load_members(folders: list[str], threads: int) -> list[Any]:
    """Functions from uint8 images to probabilities; must come before TensorFlow is used otherwise."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1 if threads == 1 else 2)
    loaded = [tf.saved_model.load(str(Path(folder))) for folder in folders]
    # A bound method would let go of the model's variables.
    return [lambda images, model=model: np.asarray(model.serve(images)) for model in loaded]


def average(members: list[Any], images: np.ndarray) -> np.ndarray:
    """The mean of the members' probabilities, one member after the other."""
    return np.mean([member(images) for member in members], axis=0)
