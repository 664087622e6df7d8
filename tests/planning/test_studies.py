"""Several studies in one run: what of the config is each study's own, and what all have in common."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.config import STUDY_PATTERN, Config, StudyName, parse_config
from ensembleflow.errors import ConfigError
from ensembleflow.planning.search_plan import plan_job, search_jobs
from ensembleflow.planning.studies import study_config

CONFIG = parse_config({"search": {"n_trials": 8, "trials_per_job": 2}, "library": {"keep_fraction": 0.5}})


def test_the_runs_own_study_has_the_runs_config() -> None:
    assert study_config(CONFIG, "digits-hyperband-s0") is CONFIG


@pytest.mark.parametrize(("algorithm", "seed"), [("random", 0), ("genetic", 3), ("hyperband", 12)])
def test_a_study_within_a_run_is_the_study_that_a_run_of_its_own_would_be(algorithm: str, seed: int) -> None:
    values = CONFIG.model_dump(mode="json")
    alone = Config.model_validate({**values, "seed": seed, "search": {**values["search"], "algorithm": algorithm}})
    within = study_config(CONFIG, f"digits-{algorithm}-s{seed}")
    assert within == alone
    assert [plan_job(within, job) for job in range(len(search_jobs(within.search)))] == [
        plan_job(alone, job) for job in range(len(search_jobs(alone.search)))
    ]


def test_only_a_study_with_generations_waits_for_some_jobs() -> None:
    assert len(search_jobs(study_config(CONFIG, "digits-genetic-s0").search)) == 5
    assert len(search_jobs(study_config(CONFIG, "digits-random-s0").search)) == 4


@given(st.from_regex(r"[A-Za-z0-9_]+", fullmatch=True), st.sampled_from(CONFIG.paper.algorithms), st.integers(0, 10**6))
def test_a_studys_name_is_read_back_as_it_was_made(dataset: str, algorithm: str, seed: int) -> None:
    name = StudyName(dataset, algorithm, seed)
    assert StudyName.parse(str(name)) == name
    assert re.fullmatch(STUDY_PATTERN, str(name))


@pytest.mark.parametrize("text", ["digits", "digits-random", "digits-random-0", "a-b-random-s0", "digits-random-s0-1"])
def test_other_folders_are_no_studies(text: str) -> None:
    assert StudyName.parse(text) is None


@pytest.mark.parametrize("study", ["cifar100-random-s0", "digits-random", "digits-annealing-s0", "digits--s0"])
def test_a_name_that_is_no_study_of_the_run_is_refused(study: str) -> None:
    with pytest.raises(ConfigError) as error:
        study_config(CONFIG, study)
    assert study in str(error.value)


def test_an_algorithm_that_does_not_suit_the_config_is_refused_with_the_reason() -> None:
    small = parse_config({"search": {"n_trials": 2, "trials_per_job": 1}, "library": {"keep_fraction": 1}})
    with pytest.raises(ConfigError, match=r"(?s)digits-genetic-s0.*n_generations"):
        study_config(small, "digits-genetic-s0")
