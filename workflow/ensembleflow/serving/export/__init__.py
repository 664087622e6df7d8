"""Exporting a bundle: its ensemble as one graph that other runtimes and servers compute without this package."""

from ensembleflow.serving.export.agreement import Agreement
from ensembleflow.serving.export.export_bundle import FORMATS, Export, export_bundle

__all__ = ["FORMATS", "Agreement", "Export", "export_bundle"]
