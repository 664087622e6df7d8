"""Which slots a search job owns, and what makes two searches the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ensembleflow.config.load import canonical_json
from ensembleflow.config.models import Config, SearchConfig

__all__ = ["ALGORITHM_VERSION", "SearchPlan", "job_slots", "model_id", "n_jobs", "plan_job"]

# Raised when a change of the code would give a trial another result. The search's rules do not watch the
# package's files, so that a docstring cannot void weeks of training.
ALGORITHM_VERSION = 1


def model_id(slot: int) -> str:
    """The name of a slot's model in files and tables."""
    return f"trial-{slot:05d}"


def n_jobs(n_trials: int, trials_per_job: int) -> int:
    """How many jobs a study takes; the last one may own fewer slots."""
    return -(-n_trials // trials_per_job)


def job_slots(job: int, n_trials: int, trials_per_job: int) -> list[int]:
    """The consecutive slots that a job owns."""
    return list(range(job * trials_per_job, min((job + 1) * trials_per_job, n_trials)))


@dataclass(frozen=True)
class SearchPlan:
    """Everything that one search job depends on, besides the data.

    Attributes:
        study: the study's name.
        seed: the study's seed.
        slots: the slots that the job owns.
        search: the search's config; `n_trials` and `trials_per_job` in it are not to be relied on, nor, where
            nothing is pruned, `metric` and `reduction_factor`.
    """

    study: str
    seed: int
    slots: list[int]
    search: SearchConfig

    @classmethod
    def from_json(cls, text: str) -> SearchPlan:
        """Read what `plan_job` wrote."""
        values = json.loads(text)
        n_slots = len(values["slots"])
        search = SearchConfig(**values["search"], n_trials=n_slots, trials_per_job=n_slots)
        return cls(study=values["study"], seed=values["seed"], slots=values["slots"], search=search)

    def fingerprint(self, dataset_checksum: str) -> str:
        """Eight characters that name what a trial's result depends on: data, seed, space, epochs.

        Trials of different fingerprints live in different Optuna studies of one journal, so that an edited
        config starts afresh and going back finds the old trials again.
        """
        text = canonical_json(
            _result_keys(self.search), seed=self.seed, data=dataset_checksum, version=ALGORITHM_VERSION
        )
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def plan_job(config: Config, job: int) -> str:
    """One job's plan as canonical JSON: the only parameter of its rule.

    It does not change for a job whose slots stay the same when `n_trials` is raised.
    """
    slots = job_slots(job, config.search.n_trials, config.search.trials_per_job)
    return canonical_json(
        {
            "study": config.study,
            "seed": config.seed,
            "slots": slots,
            "search": _result_keys(config.search),
            "algorithm_version": ALGORITHM_VERSION,
        }
    )


def _result_keys(search: SearchConfig) -> dict[str, Any]:
    exclude = {"n_trials", "trials_per_job"}
    if search.algorithm == "random":
        exclude |= {"metric", "reduction_factor"}  # every metric is recorded, and none stops a trial
    return search.model_dump(mode="json", exclude=exclude)
