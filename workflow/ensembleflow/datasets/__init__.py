"""Labelled images of any source, split into train, valid and test, in one HDF5 file."""

from ensembleflow.datasets.dataset_file import SPLITS, Dataset, open_dataset
from ensembleflow.datasets.image_file import read_image, read_image_size
from ensembleflow.datasets.prepare import prepare_dataset

__all__ = ["SPLITS", "Dataset", "open_dataset", "prepare_dataset", "read_image", "read_image_size"]
