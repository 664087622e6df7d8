"""Bundles: an ensemble as one self-contained folder, and predicting with it."""

from ensembleflow.serving.bundle import Bundle, check_answers, open_bundle
from ensembleflow.serving.export import Export, export_bundle
from ensembleflow.serving.images import NamedImages, read_images
from ensembleflow.serving.make_bundle import make_bundle

__all__ = [
    "Bundle",
    "Export",
    "NamedImages",
    "check_answers",
    "export_bundle",
    "make_bundle",
    "open_bundle",
    "read_images",
]
