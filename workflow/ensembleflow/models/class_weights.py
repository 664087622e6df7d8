"""How much each class counts in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ensembleflow.errors import ConfigError

__all__ = ["class_weights"]


def class_weights(
    config: str | Mapping[str, float] | None, labels: npt.NDArray[np.int64], class_names: Sequence[str]
) -> list[float] | None:
    """Factors of the images' cross-entropies, one a class, in the order of `class_names`.

    Args:
        config: `search.class_weights`. With `balanced`, class c of n_c images has the factor n / (K n_c), where the K
            classes that have images have n together (King and Zeng 2001; scikit-learn's `balanced`).
        labels: int64 (images,): those of training.
        class_names: the dataset's classes.

    Returns:
        None where all images count alike.

    Raises:
        ConfigError: a class is named that the dataset does not have.
    """
    if config is None:
        return None
    if isinstance(config, Mapping):
        if absent := [name for name in config if name not in class_names]:
            raise ConfigError(
                "class weights name classes that the dataset does not have",
                where="search.class_weights",
                found=", ".join(absent),
                expected=f"of {', '.join(class_names)}",
                hint="correct the names, or leave them out: a class that is not named has the weight 1",
            )
        return [float(config.get(name, 1.0)) for name in class_names]
    counts = np.bincount(labels, minlength=len(class_names))
    share = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return np.where(counts > 0, share, 1.0).tolist()
