"""Families of networks in files, as users write them."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE_SHAPE = (8, 8, 1)
N_CLASSES = 10

GOOD = """
import keras

def space(image_shape, n_classes):
    return {"units": [4, 8], "activation": ["relu", "tanh"], "bias": [True, False], "dropout": [0.0, 0.5]}

def build(hp, image_shape, n_classes):
    images = keras.Input(image_shape)
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.Dense(hp["units"], activation=hp["activation"], use_bias=hp["bias"])(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(hp["dropout"])(x)
    return keras.Model(images, keras.layers.Dense(n_classes, activation="softmax")(x))
"""


def written(folder: Path, source: str, name: str = "own.py") -> Path:
    """A file with a family in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(source, encoding="utf-8")
    return folder / name


def of_the_manual(language: str = "python", holding: str = "def build") -> str:
    """The first block of docs/own-networks.md in a language that holds a text: by default the family's file."""
    page = (REPOSITORY / "docs/own-networks.md").read_text(encoding="utf-8")
    return next(block for block in re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL) if holding in block)


def in_two_phases(epochs: str = "1", trainable: str = '["last"]', rate: str = "0.5") -> str:
    """The family that first trains its last layer only, and then all, slower."""
    named = GOOD.replace('activation="softmax")', 'activation="softmax", name="last")').replace(
        'use_bias=hp["bias"])', 'use_bias=hp["bias"], name="first")'
    )
    return named + (
        "\ndef phases(hp, model):\n"
        f'    return [{{"epochs": {epochs}, "trainable": {trainable}}},\n'
        f'            {{"trainable": ["first", "last"], "learning_rate": {rate}}}]\n'
    )
