"""What the dataset's file depends on."""

from __future__ import annotations

from typing import Any

from ensembleflow.config.dataset import DatasetConfig
from ensembleflow.config.load import canonical_json

__all__ = ["plan_dataset"]

_SPLIT = ("valid_fraction", "test_fraction", "split_seed")
# Keys of later versions: left out at their default, so that what earlier versions made is not made again.
_LATER = ("train_images",)
_KEYS: dict[str, tuple[str, ...]] = {
    "digits": _SPLIT,
    "cifar100": ("path", "valid_fraction", "split_seed"),
    "image_folder": ("path", "image_size", "unreadable_images", *_SPLIT),
    "arrays": ("path", *_SPLIT),
    "idx": ("path", "valid_fraction", "split_seed"),
    "synthetic": ("synthetic", *_SPLIT),
}


def plan_dataset(dataset: DatasetConfig) -> str:
    """The keys that the chosen source uses, as canonical JSON: the only parameter of the dataset's rule.

    So an edit of `synthetic` makes no digits again. The text is itself a dataset block, with the defaults for all other
    keys.
    """
    values: dict[str, Any] = dataset.model_dump(mode="json", include={"name", "source", *_KEYS[dataset.source]})
    values |= dataset.model_dump(mode="json", include={*_LATER}, exclude_defaults=True)
    return canonical_json(values)
