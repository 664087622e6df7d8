"""Which slots a search job owns, and what makes two searches the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ensembleflow.config import Config, SearchConfig, SearchLimits, canonical_json

__all__ = ["ALGORITHM_VERSION", "SearchPlan", "earlier_jobs", "model_id", "plan_job", "search_jobs"]

# Raised when a change of the code would give a trial another result. The search's rules do not watch the
# package's files, so that a docstring cannot void weeks of training.
ALGORITHM_VERSION = 4

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
    """

    study: str
    seed: int
    slots: list[int]
    search: SearchConfig
    generation_size: int | None

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
        return cls(values["study"], values["seed"], values["slots"], search, values.get("generation_size"))

    def fingerprint(self, dataset_checksum: str) -> str:
        """Eight characters that name what a trial's result depends on: data, seed, space, epochs.

        Trials of different fingerprints live in different Optuna studies of one journal, so that an edited
        config starts afresh and going back finds the old trials again.
        """
        text = canonical_json(self._result_values(), seed=self.seed, data=dataset_checksum, version=ALGORITHM_VERSION)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def to_json(self) -> str:
        """One canonical text.

        It does not change for a job whose slots stay the same when `n_trials` is raised, but for `genetic`, whose
        generations change.
        """
        values = {"study": self.study, "seed": self.seed, "slots": self.slots, **self._result_values()}
        return canonical_json(values, algorithm_version=ALGORITHM_VERSION)

    def _result_values(self) -> dict[str, Any]:
        values: dict[str, Any] = {"search": _result_keys(self.search)}
        return values if self.generation_size is None else {**values, "generation_size": self.generation_size}


def plan_job(config: Config, job: int) -> str:
    """One job's plan as canonical JSON: the only parameter of its rule."""
    search = config.search
    size = generation_size(search)
    slots = list(_job_slots(search.n_trials, search.trials_per_job, size)[job])
    return SearchPlan(config.study, config.seed, slots, search, size).to_json()


def _result_keys(search: SearchConfig) -> dict[str, Any]:
    """The keys that the trials' results depend on."""
    exclude = {"n_trials", "trials_per_job", "n_generations", "storage"}
    if search.algorithm == "random":
        exclude.add("metric")  # every metric is recorded, and none stops a trial or draws another
    if search.algorithm not in _HYPERBAND:
        exclude |= {"min_epochs", "reduction_factor"}
    if search.algorithm not in _MODEL_BASED:
        exclude.add("n_startup_trials")
    if search.limits == SearchLimits():
        exclude.add("limits")  # of a later version: trials of before depend on no limit
    return search.model_dump(mode="json", exclude=exclude)
