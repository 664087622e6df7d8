"""One study's artefacts, read by their public paths; what is not there yet is told with the command that makes it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import yaml

from ensembleflow.config import Config, StudyName
from ensembleflow.errors import ArtefactError
from ensembleflow.io import read_csv, read_json, snakemake_command

__all__ = ["RUN_CONFIG", "Study", "existing", "find_study"]

RUN_CONFIG = "run_config.yaml"
_STAGES = ("search", "library", "selection", "allocation", "bundles")


@dataclass(frozen=True)
class Study:
    """What the report knows of one study.

    Args:
        results: the folder of all artefacts.
        name: the study's.
        output: the page, from whose folder links to the tables start.
        config: the run's config as recorded in `run_config.yaml`; empty where none of this study is recorded.
        so_far: tables of a stage that still runs, by name; they stand for those that are not made yet.
    """

    results: Path
    name: str
    output: Path
    config: dict[str, Any] = field(default_factory=dict)
    so_far: dict[str, pd.DataFrame] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """The path of one of the study's artefacts, which has to exist.

        Args:
            name: relative to the study's folder; its first part is the stage.

        Raises:
            ArtefactError: it has not been made yet.
        """
        return existing(self.results / self.name / name, snakemake_command(name.split("/")[0], near=self.results))

    def csv(self, name: str, expected_columns: Sequence[str] = ()) -> pd.DataFrame:
        """A table of the study; budgets, members and models are text.

        Raises:
            ArtefactError: it has not been made yet, is damaged, or lacks a column.
        """
        if name in self.so_far and not (self.results / self.name / name).exists():
            return self.so_far[name]
        texts = dict.fromkeys(("budget", "members", "model", "host", "device"), str)
        return read_csv(self.path(name), expected_columns, dtype=texts)

    def json(self, name: str, expected_keys: Sequence[str] = ()) -> Any:
        """A JSON artefact of the study.

        Raises:
            ArtefactError: it has not been made yet, is damaged, or lacks a key.
        """
        return read_json(self.path(name), expected_keys)

    def link(self, name: str) -> str:
        """The address of an artefact of the study, relative to the page."""
        path = os.path.relpath(self.results / self.name / name, self.output.parent)
        return quote(Path(path).as_posix())

    @property
    def metric(self) -> str:
        """The metric of the search: `error`, `macro_f1_error` or `cross_entropy`."""
        return str(self.config.get("search", {}).get("metric", Config().search.metric))

    @cached_property
    def budgets(self) -> list[str]:
        """The budgets in the config's order; without a config those that have an ensemble, by their cost.

        Raises:
            ArtefactError: no budget has an ensemble yet.
        """
        if "selection" in self.config:
            return [str(budget) for budget in self.config["selection"]["budgets"]]
        paths = self.path("selection").glob("budget-*.json")
        found = [read_json(path, ["budget", "cost_seconds", "budget_seconds"]) for path in sorted(paths)]
        if not found:
            raise ArtefactError(
                "no budget has an ensemble yet",
                where=self.results / self.name / "selection",
                hint=snakemake_command("selection", near=self.results),
            )
        found.sort(key=lambda each: (each["budget_seconds"] or each["cost_seconds"], each["cost_seconds"]))
        return [str(each["budget"]) for each in found]

    @cached_property
    def n_images(self) -> int:
        """Images that a cost counts.

        Raises:
            ArtefactError: no cost is measured yet.
        """
        return int(self.csv("library/costs.csv", ["n_images"]).n_images.iloc[0])

    @cached_property
    def n_devices(self) -> int:
        """The largest number of devices that an ensemble is allocated to; a bundle uses that allocation.

        Raises:
            ArtefactError: no ensemble is allocated yet.
        """
        counts = [int(path.stem.split("-")[1]) for path in self.path("allocation").glob("budget-*/devices-*.json")]
        if configured := self.config.get("allocation", {}).get("device_counts"):
            return int(max(configured))
        if not counts:
            where = self.results / self.name / "allocation"
            hint = snakemake_command("allocation", near=self.results)
            raise ArtefactError("no ensemble is allocated yet", where=where, hint=hint)
        return max(counts)


def existing(path: Path, command: str) -> Path:
    """An artefact's path, if it is there.

    Raises:
        ArtefactError: it has not been made yet; `command` makes it.
    """
    if not path.exists():
        raise ArtefactError(f"not made yet: {path.name}", where=path, hint=command)
    return path


def find_study(results: Path, name: str | None, output: Path) -> Study:
    """The study to report: the named one, or the one of `run_config.yaml`, or the only one there is.

    Raises:
        ArtefactError: it is not there, or none is named and there are several.
    """
    config: dict[str, Any] = {}
    recorded = results / RUN_CONFIG
    if recorded.is_file():
        try:
            config = yaml.safe_load(recorded.read_text(encoding="utf-8"))
            recorded_name = str(StudyName(config["dataset"]["name"], config["search"]["algorithm"], config["seed"]))
            if StudyName.parse(recorded_name) is None:
                raise ValueError(f"{recorded_name} names no study")
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise ArtefactError(
                "an artefact is truncated or damaged",
                where=recorded,
                found=f"{type(error).__name__}: {error}",
                expected="the run's config",
                hint=snakemake_command("--forcerun", "record_run", near=results),
            ) from None
        if name in (None, recorded_name) and (results / recorded_name).is_dir():
            return Study(results, recorded_name, output, config)
    found = sorted(
        path.name
        for path in results.glob("*")
        if StudyName.parse(path.name) and any((path / stage).is_dir() for stage in _STAGES)
    )
    if name is None and len(found) == 1:
        return Study(results, found[0], output)
    if name is not None and name in found:
        return Study(results, name, output)
    command = snakemake_command(near=results)
    raise ArtefactError(
        "there is no study to report" if name is not None or not found else "there are several studies",
        where=results,
        found=", ".join(found) or "no study",
        expected=name or "one study",
        hint="name it with --study"
        if found
        else f"run the workflow first (make run, or {command}), or name its folder with --results",
    )
