"""Which slots a search job owns, and what makes two searches the same."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ensembleflow.config import BUNDLED_FAMILIES, Config, SearchConfig, SearchLimits, canonical_json, family_name
from ensembleflow.errors import FamilyError

__all__ = [
    "ALGORITHM_VERSION",
    "SearchPlan",
    "earlier_jobs",
    "family_inputs",
    "model_id",
    "plan_family",
    "plan_job",
    "require_families",
    "search_jobs",
]

# Raised when a change of the code would give a trial another result. The search's rules do not watch the
# package's files, so that a docstring cannot void weeks of training.
ALGORITHM_VERSION = 5

# Of the space, what later versions have and left off changes nothing.
_LATER_SPACE = ("horizontal_flips", "vertical_flips", "cutout", "mixup")
# Of the space, what the family `resnet` has and no other.
_RESNET_SPACE = {
    *("l2", "block", "activation", "stem_filters", "stage_filters"),
    *("blocks_stage_1", "blocks_stage_2", "blocks_stage_3", "blocks_stage_4"),
}
_HYPERBAND = ("hyperband", "bohb")
_MODEL_BASED = ("gp", "tpe", "bohb", "smac")


def model_id(slot: int) -> str:
    """The name of a slot's model in files and tables."""
    return f"trial-{slot:05d}"


def generation_size(search: SearchConfig) -> int | None:
    """Trials of one generation, the last of which may be smaller; None for an algorithm without generations."""
    return -(-search.n_trials // search.n_generations) if search.algorithm == "genetic" else None


def search_jobs(search: SearchConfig) -> list[list[int]]:
    """The consecutive slots that each job owns; no job spans two generations, and the last of one may own fewer."""
    return [list(slots) for slots in _job_slots(search.n_trials, search.trials_per_job, generation_size(search))]


@lru_cache(maxsize=8)  # each of thousands of jobs asks
def _job_slots(n_trials: int, trials_per_job: int, generation: int | None) -> tuple[range, ...]:
    size = generation or n_trials
    return tuple(
        range(start, min(start + trials_per_job, first + size, n_trials))
        for first in range(0, n_trials, size)
        for start in range(first, min(first + size, n_trials), trials_per_job)
    )


def earlier_jobs(search: SearchConfig, job: int) -> list[int]:
    """The jobs that must have ended before a job starts: those of the generation before its own."""
    size = generation_size(search)
    if size is None:
        return []
    jobs = search_jobs(search)
    generation = jobs[job][0] // size
    return [number for number, slots in enumerate(jobs) if slots[0] // size == generation - 1]


@dataclass(frozen=True)
class SearchPlan:
    """Everything that one search job depends on, besides the data.

    Attributes:
        study: the study's name.
        seed: the study's seed.
        slots: the slots that the job owns.
        search: the search's config; keys in it that the algorithm does not use, `n_trials`, `trials_per_job` and
            `storage` are not to be relied on. Nor is a random search's `metric`, unless `from_json` was given it.
        generation_size: trials of one generation, or None for an algorithm without generations.
        families_sha256: of the files of families other than `resnet`, once they are checked; None where there is none.
            The search's `family_space` then has all their hyperparameters.
    """

    study: str
    seed: int
    slots: list[int]
    search: SearchConfig
    generation_size: int | None
    families_sha256: str | None = None

    @classmethod
    def from_json(cls, text: str, metric: str | None = None) -> SearchPlan:
        """Read what `plan_job` wrote.

        Args:
            text: the plan.
            metric: the config's, which a random search's plan leaves out: its trials do not depend on it.
        """
        values = json.loads(text)
        n_slots = len(values["slots"])
        keys = {"n_trials": n_slots, "trials_per_job": n_slots, "n_generations": 1, "min_epochs": 1, **values["search"]}
        if metric is not None:
            keys.setdefault("metric", metric)
        search = SearchConfig(**keys)
        size, sha256 = values.get("generation_size"), values.get("families_sha256")
        return cls(values["study"], values["seed"], values["slots"], search, size, sha256)

    def fingerprint(self, dataset_checksum: str) -> str:
        """Eight characters that name what a trial's result depends on: data, seed, family, space, epochs.

        Trials of different fingerprints live in different Optuna studies of one journal, so that an edited
        config starts afresh and going back finds the old trials again.
        """
        text = canonical_json(self.result_values(), seed=self.seed, data=dataset_checksum, version=ALGORITHM_VERSION)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def to_json(self) -> str:
        """One canonical text.

        It does not change for a job whose slots stay the same when `n_trials` is raised, but for `genetic`, whose
        generations change.
        """
        values = {"study": self.study, "seed": self.seed, "slots": self.slots, **self.result_values()}
        if self.search.own_families:
            values["search"]["family"] = self.search.family
        return canonical_json(values, algorithm_version=ALGORITHM_VERSION)

    def result_values(self) -> dict[str, Any]:
        """What the trials' results depend on, as JSON values: of a family its name and content, not where it lies."""
        values: dict[str, Any] = {"search": _result_keys(self.search)}
        if self.generation_size is not None:
            values["generation_size"] = self.generation_size
        if self.families_sha256 is not None:
            values["families_sha256"] = self.families_sha256
        return values


def plan_job(config: Config, job: int) -> str:
    """One job's plan as canonical JSON: the only parameter of its rule."""
    search = config.search
    size = generation_size(search)
    slots = list(_job_slots(search.n_trials, search.trials_per_job, size)[job])
    return SearchPlan(config.study, config.seed, slots, search, size).to_json()


def family_inputs(search: SearchConfig, name: str) -> list[str]:
    """The files that the config names for a family other than `resnet`.

    Returns:
        Its own, the user's or that of one that comes along; then those among the choices of its `family_space`.
    """
    file = search.own_families[name]
    if file in BUNDLED_FAMILIES:
        # Relative, so that a project folder that moves has the same inputs as before.
        file = os.path.relpath(Path(__file__).parents[1] / "models" / "families" / f"{name}.py")
    choices = [each for values in search.own_space(name).values() if isinstance(values, list) for each in values]
    return [file, *(each for each in choices if isinstance(each, str) and Path(each).is_file())]


def require_families(search: SearchConfig) -> None:
    """Refuse a family's file that is not there, before Snakemake plans with it.

    Raises:
        FamilyError: it is missing.
    """
    for family in search.own_families.values():
        if family not in BUNDLED_FAMILIES and not Path(family).is_file():
            raise FamilyError(
                "a family's file is missing",
                where=f"search.family: {family}",
                found=f"no such file below {Path.cwd()}",
                hint="docs/own-networks.md has a file to start from",
            )


def plan_family(config: Config, name: str) -> str:
    """What the check of a family depends on, besides its files and the data: the only parameter of its rule.

    It is itself a search block, of that family alone, with the defaults for all other keys.
    """
    search = config.search
    values = {"family": search.own_families[name], "family_space": search.own_space(name)}
    return canonical_json({**values, "precision": search.precision})


def _result_keys(search: SearchConfig) -> dict[str, Any]:
    """The keys that the trials' results depend on."""
    exclude: set[str] = {"n_trials", "trials_per_job", "n_generations", "storage"}
    if search.algorithm == "random":
        exclude.add("metric")  # every metric is recorded, and none stops a trial or draws another
    if search.algorithm not in _HYPERBAND:
        exclude |= {"min_epochs", "reduction_factor"}
    if search.algorithm not in _MODEL_BASED:
        exclude.add("n_startup_trials")
    if search.limits == SearchLimits():
        exclude.add("limits")  # of a later version: trials of before depend on no limit
    if not search.own_families:
        exclude |= {"family", "family_space"}  # of a later version, as well
    values = search.model_dump(mode="json", exclude=exclude)
    set_here = search.space.model_dump(exclude_defaults=True)
    left_out = {name for name in _LATER_SPACE if name not in set_here}
    if search.own_families:
        values["family"] = [family_name(each) for each in search.family]
    if "resnet" not in search.family:
        left_out |= _RESNET_SPACE
    values["space"] = {name: each for name, each in values["space"].items() if name not in left_out}
    return values
