"""The config's block `dataset`."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ensembleflow.config.base import Block
from ensembleflow.config.paths import PathText

__all__ = ["DatasetConfig", "Samples", "SyntheticConfig"]

Samples = Literal["images", "arrays"]


class SyntheticConfig(Block):
    """Made-up images of any shape, for sizing a cluster before the real ones are there."""

    n_images: int = Field(6000, ge=1, description="Images, in all splits together.")
    image_shape: tuple[
        Annotated[int, Field(ge=4, le=1024)], Annotated[int, Field(ge=4, le=1024)], Annotated[int, Field(ge=1, le=4)]
    ] = Field((32, 32, 3), description="Height and width in pixels, and channels.")
    n_classes: int = Field(10, ge=2, le=10_000, description="Classes, equally frequent.")

    @model_validator(mode="after")
    def _combination(self) -> Self:
        if self.n_images < 3 * self.n_classes:
            raise ValueError("`n_images` must be at least 3 times `n_classes`: one image for each split")
        return self


class DatasetConfig(Block):
    """The labelled images and how they are split."""

    name: str = Field(
        "digits",
        pattern=r"^[A-Za-z0-9_]+$",
        description="Name of the dataset in paths and tables (letters, digits and `_`).",
    )
    source: Literal["digits", "cifar100", "image_folder", "table", "arrays", "idx", "synthetic"] = Field(
        "digits",
        description="Where the images come from: `digits` (scikit-learn's, needs nothing), `cifar100` "
        "(its standard Python archive), `image_folder` (one folder of images per class, or such folders in "
        "`train`, `valid` and `test`), `table` (a CSV or Parquet file with the columns `path` and `label`, and, if "
        "wished, `split`, `group` and `weight`), `arrays` (an `.npz` or HDF5 "
        "file, or a folder of `.npy` files), `idx` (a folder of the four IDX files of MNIST's kind, as Debian's "
        "package dataset-fashion-mnist has them), `synthetic` (made up).",
    )
    path: PathText | None = Field(
        None,
        description="The archive, folder or file to read; not used by `digits` and `synthetic`.",
    )
    image_size: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="Height and width in pixels to which images of `image_folder` and `table` are resized.",
    )
    samples: Samples = Field(
        "images",
        description="Of `arrays`, what a sample is: `images` (height and width, or height, width and channels), or "
        "`arrays` of any rank, such as time series, spectra and rows of tables, which are kept as float32 and which "
        "networks of your own take (docs/own-networks.md).",
    )
    valid_fraction: float = Field(
        0.3,
        gt=0,
        lt=1,
        description="Share of the images used for validation, stratified by class "
        "(`cifar100`, `idx`, and `arrays` with `x_test`: share of their training images).",
    )
    test_fraction: float = Field(
        0.3,
        gt=0,
        lt=1,
        description="Share of the images used for the test, stratified by class "
        "(not used where the source has its own test images: `cifar100`, `idx`, and `arrays` with `x_test`).",
    )
    calibration_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the validation images that is set aside before anything is chosen by them, stratified "
        "by class, groups whole: what `selection.cascade` is held against.",
    )
    group_pattern: str | None = Field(
        None,
        min_length=1,
        description="Of `image_folder`: a regular expression that finds an image's group, such as its slide or "
        "specimen, in its path below `path` (`slide\\d+`; of several pairs of parentheses the first is the group). "
        "The images of a group stay in one part, whatever their classes.",
    )
    train_images: int | None = Field(
        None,
        ge=2,
        description="Train with only so many images, drawn by `split_seed` and stratified by class (null: with all). "
        "They are drawn once validation and test are cut off, which stay whole; the images of a smaller number are "
        "among those of a larger one.",
    )
    split_seed: int = Field(
        0,
        ge=0,
        description="Seed of the split. It belongs to the data: studies of different `seed` share one split.",
    )
    unreadable_images: Literal["refuse", "skip"] = Field(
        "refuse",
        description="What to do where images of `image_folder` or `table` cannot be read: `refuse` names them all and "
        "makes nothing, `skip` leaves them out and names them in the log.",
    )
    duplicates: Literal["tell", "together", "refuse"] = Field(
        "tell",
        description="What to do where images that are identical pixel for pixel stand in two parts, which makes errors "
        "too low, or in two classes: `tell` warns, `together` splits distinct images and puts copies into the part of "
        "the first (training images that are copies of a source's own test images are left out; all images are read "
        "twice), `refuse` names them and makes nothing.",
    )
    synthetic: SyntheticConfig = Field(
        default_factory=SyntheticConfig, description="The images that the source `synthetic` makes up."
    )

    @model_validator(mode="after")
    def _combination(self) -> Self:
        if self.source not in ("digits", "synthetic") and self.path is None:
            raise ValueError(f"`path` must be set where `source` is {self.source}")
        if self.source in ("image_folder", "table") and self.image_size is None:
            raise ValueError(f"`image_size` must be set where `source` is {self.source}")
        if self.samples == "arrays" and self.source != "arrays":
            raise ValueError("`samples` is for the source arrays")
        if self.group_pattern is not None:
            if self.source != "image_folder":
                raise ValueError("`group_pattern` is for the source image_folder; a table has its column `group`")
            try:
                re.compile(self.group_pattern)
            except re.error as error:
                raise ValueError(f"`group_pattern` is no regular expression: {error}") from None
        if self.source not in ("cifar100", "idx") and self.valid_fraction + self.test_fraction >= 1:
            raise ValueError(
                "the sum of `valid_fraction` and `test_fraction` must be below 1: the rest is for training"
            )
        return self
