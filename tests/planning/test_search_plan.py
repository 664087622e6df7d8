"""What makes two searches the same: a job's plan is the only parameter of its rule."""

from __future__ import annotations

import pytest

from ensembleflow.config import Config, parse_config
from ensembleflow.planning.search_plan import SearchPlan, earlier_jobs, plan_job, search_jobs


def config(**search: object) -> Config:
    return parse_config({"search": {"n_trials": 6, "trials_per_job": 4, **search}, "library": {"keep_fraction": 0.5}})


def fingerprint(**search: object) -> str:
    return SearchPlan.from_json(plan_job(config(**search), 0)).fingerprint("checksum")


def test_the_jobs_own_every_slot_once() -> None:
    assert search_jobs(config().search) == [[0, 1, 2, 3], [4, 5]]


def test_more_trials_change_only_the_job_that_was_not_full() -> None:
    assert plan_job(config(n_trials=9), 0) == plan_job(config(), 0)
    assert plan_job(config(n_trials=9), 1) != plan_job(config(), 1)


def test_more_trials_or_jobs_of_another_size_find_the_same_trials() -> None:
    assert fingerprint(n_trials=9) == fingerprint() == fingerprint(trials_per_job=2)


@pytest.mark.parametrize("edit", [{"metric": "error"}, {"reduction_factor": 4}])
def test_what_only_pruning_depends_on_voids_no_trial_of_a_random_search(edit: dict[str, object]) -> None:
    assert plan_job(config(algorithm="random", **edit), 0) == plan_job(config(algorithm="random"), 0)
    assert plan_job(config(**edit), 0) != plan_job(config(), 0)
    assert fingerprint(**edit) != fingerprint()


@pytest.mark.parametrize("name", ["horizontal_flips", "vertical_flips", "cutout", "mixup"])
def test_a_hyperparameter_of_a_later_version_counts_only_where_it_is_set(name: str) -> None:
    assert name not in plan_job(config(), 0), "searches of earlier versions go on"
    assert plan_job(config(space={name: [0.0, 0.0]}), 0) == plan_job(config(), 0)
    assert fingerprint(space={name: [0.0, 0.5]}) != fingerprint()
    assert SearchPlan.from_json(plan_job(config(space={name: [0.2, 0.5]}), 0)).search.space.model_dump()[name] == [
        0.2,
        0.5,
    ]


def test_a_search_without_rungs_may_be_shorter_than_the_defaults_first_rung() -> None:
    short = config(algorithm="random", max_epochs=2)
    assert SearchPlan.from_json(plan_job(short, 0)).search.max_epochs == 2


def test_an_edited_space_is_another_search() -> None:
    assert fingerprint(space={"max_zoom": [0, 0.3]}) != fingerprint()
    assert fingerprint(space={"max_zoom": [0.05, 0.11]}) == fingerprint(), "the default, spelled out"


def test_a_generation_waits_for_the_whole_one_before_it_and_shares_no_job_with_it() -> None:
    search = config(algorithm="genetic", n_trials=8, trials_per_job=2).search
    assert search_jobs(search) == [[0, 1], [2], [3, 4], [5], [6, 7]]
    assert [earlier_jobs(search, job) for job in range(5)] == [[], [], [0, 1], [0, 1], [2, 3]]
    assert earlier_jobs(config(algorithm="tpe").search, 1) == []


def test_the_size_of_a_generation_belongs_to_the_result() -> None:
    genetic = {"algorithm": "genetic", "n_trials": 6}
    assert plan_job(config(**genetic), 1) != plan_job(config(**genetic, n_generations=2), 1)
    assert fingerprint(**genetic) != fingerprint(**genetic, n_generations=2)
    assert fingerprint(**genetic) == fingerprint(**{**genetic, "n_trials": 5})


@pytest.mark.parametrize("algorithm", ["random", "hyperband", "gp", "bohb", "smac", "tpe", "genetic"])
def test_a_plan_is_read_as_it_was_written(algorithm: str) -> None:
    text = plan_job(config(algorithm=algorithm, n_startup_trials=3), 0)
    assert SearchPlan.from_json(text).to_json() == text


def test_where_the_storage_lies_changes_no_trial() -> None:
    assert plan_job(config(storage="grpc://localhost:13000"), 0) == plan_job(config(), 0)
