"""What the dataset's file depends on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from ensembleflow.config import DatasetConfig, canonical_json

__all__ = ["plan_dataset", "planned_dataset", "recorded_source_state"]

_SPLIT = ("valid_fraction", "test_fraction", "split_seed")
# Keys of later versions: left out at their default, so that what earlier versions made is not made again.
_LATER = ("calibration_fraction", "duplicates", "group_pattern", "samples", "train_images")
_KEYS: dict[str, tuple[str, ...]] = {
    "digits": _SPLIT,
    "cifar100": ("path", "valid_fraction", "split_seed"),
    "image_folder": ("path", "image_size", "unreadable_images", *_SPLIT),
    "table": ("path", "image_size", "unreadable_images", *_SPLIT),
    "arrays": ("path", *_SPLIT),
    "idx": ("path", "valid_fraction", "split_seed"),
    "synthetic": ("synthetic", *_SPLIT),
}


def plan_dataset(dataset: DatasetConfig, source_state: str | None = None) -> str:
    """The keys that the chosen source uses, as canonical JSON: the only parameter of the dataset's rule.

    So an edit of `synthetic` makes no digits again. The text is itself a dataset block, with the defaults for all other
    keys, besides `source_state`, what the source's files are told by.
    """
    values: dict[str, Any] = dataset.model_dump(mode="json", include={"name", "source", *_KEYS[dataset.source]})
    values |= dataset.model_dump(mode="json", include={*_LATER}, exclude_defaults=True)
    return canonical_json(values if source_state is None else {**values, "source_state": source_state})


def planned_dataset(plan: str) -> tuple[DatasetConfig, str | None]:
    """The dataset block and the state of the source's files that a plan was made of."""
    values = json.loads(plan)
    source_state = values.pop("source_state", None)
    return DatasetConfig.model_validate(values), source_state


def recorded_source_state(params: Iterable[object] | None) -> str | None:
    """The state in the plan of an earlier run, of the parameters that Snakemake has recorded."""
    found = (re.search(r'"source_state":"(\w+)"', str(each)) for each in params or ())
    return next((match[1] for match in found if match), None)
