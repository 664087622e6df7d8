"""The provenance: config, versions, machine and data that the results were made with."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from ensembleflow.errors import ArtefactError
from ensembleflow.io import read_json, snakemake_command
from ensembleflow.library import open_predictions
from ensembleflow.report.page.blocks import Block, Section, Table, Text, guarded
from ensembleflow.report.page.study import RUN_CONFIG, Study, existing

__all__ = ["provenance"]


def provenance(study: Study) -> Section:
    """The section of the provenance."""
    intro = "What to name when a number is questioned, and what to set to make it again."
    return Section("provenance", "Provenance", intro, guarded(_made_with, _data, _config, study=study))


def _made_with(study: Study) -> Iterator[Block]:
    path = existing(study.results / "provenance.json", _hint(study))
    found = read_json(path, ["ensembleflow", "commit", "python", "packages", "machine"])
    edited = " with uncommitted edits" if found.get("commit_dirty") else ""
    rows = [
        ["ensembleflow", str(found["ensembleflow"])],
        ["commit", f"{found['commit'] or 'not from a git checkout'}{edited}"],
        ["recorded at", str(found.get("written_at", "–"))],
        ["Python", str(found["python"])],
        *([name, str(version)] for name, version in found["packages"].items()),
        *([name.replace("_", " "), str(value)] for name, value in found["machine"].items() if value is not None),
    ]
    yield Table("Made with", ["what", "which"], rows, ["../provenance.json"])


def _data(study: Study) -> Iterator[Block]:
    with open_predictions(study.path("library/predictions.h5")) as predictions:
        rows = [
            ["study", predictions.study],
            ["dataset's checksum", predictions.dataset_checksum],
            ["validation images", f"{len(predictions.mapped_labels('valid')):,}"],
            ["test images", f"{len(predictions.mapped_labels('test')):,}"],
            ["classes", ", ".join(predictions.class_names)],
        ]
    yield Table("Data", ["what", "which"], rows, ["library/predictions.h5"])


def _config(study: Study) -> Iterator[Block]:
    if not study.config:
        raise ArtefactError(f"not made yet: {RUN_CONFIG} of {study.name}", where=study.results, hint=_hint(study))
    yield Text(yaml.safe_dump(study.config, sort_keys=False), "The run's config", verbatim=True)


def _hint(study: Study) -> str:
    return snakemake_command("--forcerun", "record_run", near=study.results)
