"""A clone of the repository in which Snakemake runs, as in a user's: from a config file, as a command."""

from __future__ import annotations

import copy
import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]

# Two search jobs, two kept models, two budgets: as little as still has something to choose, place and rerun.
STUDY: dict[str, Any] = {
    "dataset": {"valid_fraction": 0.25, "test_fraction": 0.2},
    "search": {
        "n_trials": 4,
        "trials_per_job": 2,
        "max_epochs": 3,
        "min_epochs": 1,
        "space": {
            "block": ["v1", "v2"],
            "stem_filters": [4, 8],
            "stage_filters": [4, 6],
            "blocks_stage_1": [1, 1],
            "blocks_stage_2": [1, 1],
            "max_zoom": [0, 0.2],
        },
    },
    "library": {"keep_fraction": 0.5, "cost": {"n_images": 200, "repeats": 3}},
    "selection": {"budgets": ["1x", "2x"]},
    "allocation": {
        "devices": [{"name": f"cpu{i}", "cores": 1, "memory_mb": 3072} for i in range(2)],
        "batch_sizes": [8, 32],
        "max_benches": 2,
        "bench_images": 200,
        "bench_repeats": 1,
    },
    "report": {"figure_width_inches": 6},
}


def edited(edits: dict[str, object], study: dict[str, Any] = STUDY) -> str:
    """The study's config as YAML, with other values for some keys (`search.n_trials`)."""
    values = copy.deepcopy(study)
    for key, value in edits.items():
        block = values
        *parents, name = key.split(".")
        for parent in parents:
            block = block.setdefault(parent, {})
        block[name] = value
    return yaml.safe_dump(values, sort_keys=False)


class Clone:
    """A folder that holds what a clone of the repository would, and maybe results.

    Args:
        folder: the clone.
        config_name: of the user's config file.
    """

    def __init__(self, folder: Path, config_name: str = "study.yaml") -> None:
        self.folder = folder
        self.config_name = config_name

    def copy_to(self, folder: Path) -> Clone:
        """Another clone with the same files, file times, results and Snakemake's memory of them."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Clone(folder)

    @property
    def results(self) -> Path:
        """All artefacts."""
        return self.folder / "results"

    @property
    def study(self) -> Path:
        """The study's artefacts."""
        return self.results / "digits-hyperband-s0"

    def write_config(self, text: str) -> None:
        """Replace the user's config file."""
        (self.folder / self.config_name).write_text(text, encoding="utf-8")

    def command(self, *arguments: str, cores: int = 2) -> list[str]:
        """What a user types."""
        base = [sys.executable, "-m", "snakemake", *arguments]
        return [*base, "--cores", str(cores), "--configfile", self.config_name]

    def snakemake(self, *arguments: str, cores: int = 2) -> subprocess.CompletedProcess[str]:
        """Run Snakemake; `stdout` holds all that it prints."""
        return subprocess.run(
            self.command(*arguments, cores=cores),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )

    def run(self, *arguments: str, cores: int = 2) -> str:
        """Run Snakemake, which must end well."""
        done = self.snakemake(*arguments, cores=cores)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def missing_outputs(self, target: str) -> list[Path]:
        """The files and folders that a target would be made through and that are not there."""
        printed = self.run(target, "--summary")
        rows = csv.DictReader(printed[printed.index("output_file\t") :].splitlines(), delimiter="\t")
        return [self.folder / row["output_file"] for row in rows if row["status"] == "missing"]

    def plan(self, *targets: str) -> set[str]:
        """The jobs that a dry run lists: `train_trials job=2`, without the study's name and the targets."""
        output = self.run(*targets, "--dry-run")
        blocks = re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", output, re.MULTILINE)
        jobs = []
        for rule, block in blocks:
            wildcards = re.search(r"^    wildcards: (.*)$", block, re.MULTILINE)
            values = [text for text in wildcards[1].split(", ") if not text.startswith("study=")] if wildcards else []
            jobs.append(" ".join([rule, *values]))
        assert jobs or "Nothing to be done" in output, output
        assert len(set(jobs)) == len(jobs)
        return set(jobs) - {"all", "search", "library", "selection", "allocation", "bundles"}
