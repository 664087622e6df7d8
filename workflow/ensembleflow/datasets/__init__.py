"""Labelled images of any source, split into train, valid and test, in one HDF5 file."""

from typing import TYPE_CHECKING

from ensembleflow.datasets.dataset_file import CALIBRATION, SPLITS, Dataset, open_dataset
from ensembleflow.lazy_names import lazy_names

if TYPE_CHECKING:
    from ensembleflow.datasets.image_file import read_image, read_image_size
    from ensembleflow.datasets.prepare import prepare_dataset

__all__ = ["CALIBRATION", "SPLITS", "Dataset", "open_dataset", "prepare_dataset", "read_image", "read_image_size"]

__getattr__ = lazy_names(
    __name__,
    {"prepare_dataset": "prepare", "read_image": "image_file", "read_image_size": "image_file"},
)
