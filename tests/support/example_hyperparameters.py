"""Hyperparameters of a small network."""

from __future__ import annotations

from typing import Any

from ensembleflow.models import Hyperparameters


def hyperparameters(**changes: Any) -> Hyperparameters:
    values = {
        "learning_rate": 0.003,
        "batch_size": 32,
        "l2": 1e-4,
        "block": "v1",
        "activation": "relu",
        "stem_filters": 6,
        "stage_filters": 8,
        "blocks_stage_1": 1,
        "blocks_stage_2": 1,
        "blocks_stage_3": 1,
        "blocks_stage_4": 1,
        "max_zoom": 0.2,
        "max_translation": 0.1,
        "max_shear": 0.1,
        "max_channel_shift": 0.1,
        "max_rotation_degrees": 15,
    }
    return Hyperparameters(**{**values, **changes})
