"""Whether the images can be split as the config is to say, told before anything is written."""

from __future__ import annotations

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets.prepare import split_of
from ensembleflow.datasets.source_faults import refuse_faults
from ensembleflow.first_config.fingerprint import Look

__all__ = ["check_split"]


def check_split(look: Look, config: DatasetConfig) -> None:
    """Split the images as `prepare_dataset` will, and refuse what it would refuse.

    Args:
        look: the images that can be read.
        config: the block `dataset`.

    Raises:
        DatasetError: a class would be absent from a part, or names of classes cannot be told apart; all faults in one
            message.
    """
    contents = look.contents if config.duplicates == "together" else None
    splits = split_of(config, look.images, contents)
    # Files that cannot be read have been told already.
    refuse_faults(config.model_copy(update={"unreadable_images": "skip"}), look.images, splits)
