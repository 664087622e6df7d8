"""The Optuna study behind the slots."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from ensembleflow.config import Config
from ensembleflow.errors import SearchError
from ensembleflow.search.optuna_internals import bracket_of, should_stop
from ensembleflow.search.space import suggest_hyperparameters
from ensembleflow.search.storage import open_storage
from ensembleflow.search.study import claim_slot, open_study, study_name
from ensembleflow.search.trial import rung_of
from support.slot_study import CHECKSUM, run_process, search_config, search_plan

CONFIG = search_config("hyperband", 40)
SEARCH = CONFIG.search


def study(folder: Path, config: Config = CONFIG) -> optuna.Study:
    return open_study(open_storage(folder), search_plan(config), CHECKSUM)


def test_a_slots_hyperparameters_do_not_depend_on_who_ran_first(tmp_path: Path) -> None:
    forwards, backwards = study(tmp_path / "forwards"), study(tmp_path / "backwards")
    first = {s: suggest_hyperparameters(claim_slot(forwards, s, tmp_path), SEARCH) for s in (0, 1, 2)}
    second = {s: suggest_hyperparameters(claim_slot(backwards, s, tmp_path), SEARCH) for s in (2, 1, 0)}
    assert first == second
    assert len(set(first.values())) == 3


def test_a_trial_killed_while_it_drew_its_hyperparameters_gets_the_same_ones(tmp_path: Path) -> None:
    whole = suggest_hyperparameters(claim_slot(study(tmp_path / "whole"), 0, tmp_path), SEARCH)
    killed = claim_slot(study(tmp_path / "killed"), 0, tmp_path)
    rates = SEARCH.space.learning_rate
    killed.suggest_float("learning_rate", rates.low, rates.high, log=rates.log)
    resumed = claim_slot(study(tmp_path / "killed"), 0, tmp_path)
    assert suggest_hyperparameters(resumed, SEARCH) == whole


def test_claiming_a_slot_makes_the_trials_up_to_it_and_no_more(tmp_path: Path) -> None:
    ours = study(tmp_path)
    assert claim_slot(ours, 3, tmp_path).number == 3
    assert claim_slot(ours, 1, tmp_path).number == 1
    assert [trial.state for trial in ours.get_trials()] == [
        TrialState.WAITING,
        TrialState.RUNNING,
        TrialState.WAITING,
        TrialState.RUNNING,
    ]


@pytest.mark.parametrize("algorithm", ["hyperband", "bohb"])
def test_the_pruner_asked_again_after_a_kill_answers_alike(algorithm: str, tmp_path: Path) -> None:
    config = search_config(algorithm, 40)
    ours = study(tmp_path, config)
    slots = [slot for slot in range(40) if claim_slot(ours, slot, tmp_path) and bracket_of(ours, slot) == 0]
    stopped = 0
    # The fifth is stopped by a factor of 3; counted twice, it would be the second of six and go on.
    for value, slot in zip(itertools.cycle([0.0, 2.0, 4.0, 3.0, 1.0]), slots, strict=False):
        claim_slot(ours, slot, tmp_path).report(value, step=1)
        first = should_stop(ours, slot, rung=0)
        again = should_stop(study(tmp_path, config), slot, rung=0)
        assert first == again
        stopped += first
    assert 0 < stopped < len(slots)


@pytest.mark.parametrize("algorithm", ["random", "tpe", "gp", "smac", "genetic"])
def test_only_hyperband_and_bohb_stop_trials_early(algorithm: str, tmp_path: Path) -> None:
    ours = study(tmp_path, search_config(algorithm, 12))
    for slot in range(12):
        claim_slot(ours, slot, tmp_path).report(float(slot), step=1)
        assert not should_stop(ours, slot, rung=None)
        assert bracket_of(ours, slot) is None


@pytest.mark.parametrize(
    ("min_epochs", "bracket", "rungs"),
    [
        (1, 0, {1: 0, 3: 1, 9: 2}),
        (1, 1, {3: 0, 9: 1}),
        (1, 2, {9: 0}),
        (2, 0, {2: 0, 6: 1, 18: 2}),
        (2, 1, {6: 0, 18: 1}),
    ],
)
def test_rungs_lie_at_min_epochs_times_the_powers_of_the_reduction_factor(
    min_epochs: int, bracket: int, rungs: dict[int, int]
) -> None:
    found = {epoch: rung_of(epoch, bracket, min_epochs, 3) for epoch in range(1, 19 if min_epochs == 2 else 10)}
    assert {epoch: rung for epoch, rung in found.items() if rung is not None} == rungs
    assert rung_of(3, None, min_epochs, 3) is None


@pytest.mark.parametrize(
    ("min_epochs", "max_epochs", "factor"), [(1, 9, 3), (2, 18, 3), (3, 20, 2), (5, 54, 3), (4, 4, 3)]
)
def test_a_trial_is_judged_where_optuna_judges_it(
    min_epochs: int, max_epochs: int, factor: int, tmp_path: Path
) -> None:
    config = search_config("hyperband", 40, min_epochs=min_epochs, max_epochs=max_epochs, reduction_factor=factor)
    ours = study(tmp_path, config)
    for slot in range(12):
        trial, bracket = claim_slot(ours, slot, tmp_path), bracket_of(ours, slot)
        for epoch in range(1, max_epochs):
            n_rungs = len(rungs_of(ours, slot))
            trial.report(0.0, step=epoch)
            should_stop(ours, slot, None)  # no rung is named, so that it is Optuna that finds it
            assert (len(rungs_of(ours, slot)) > n_rungs) == (rung_of(epoch, bracket, min_epochs, factor) is not None), (
                slot,
                epoch,
            )


def rungs_of(ours: optuna.Study, slot: int) -> list[str]:
    return [key for key in ours.get_trials(deepcopy=False)[slot].system_attrs if key.startswith("completed_rung")]


def test_a_study_says_what_it_was_made_for_and_is_found_again(tmp_path: Path) -> None:
    first = study(tmp_path)
    assert first.user_attrs.keys() == {
        "ensembleflow:algorithm_version",
        "ensembleflow:search",
        "ensembleflow:dataset_checksum",
        "ensembleflow:version",
    }
    assert study(tmp_path)._study_id == first._study_id
    assert study(tmp_path, search_config("hyperband", 50))._study_id == first._study_id, "more trials of the same"
    assert study(tmp_path, search_config("random", 40))._study_id != first._study_id


def test_a_random_search_shares_its_trials_but_not_its_study_with_one_of_another_metric() -> None:
    plans = [search_plan(search_config("random", 40, metric=metric)) for metric in ("error", "cross_entropy")]
    assert [plan.search.metric for plan in plans] == ["error", "cross_entropy"]
    assert len({plan.fingerprint(CHECKSUM) for plan in plans}) == 1
    assert len({study_name(plan, CHECKSUM) for plan in plans}) == 2


def test_many_processes_that_start_at_once_share_one_study(tmp_path: Path) -> None:
    processes = [run_process(None, tmp_path, CONFIG, [slot]) for slot in range(6)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert len(optuna.get_all_study_names(open_storage(tmp_path))) == 1
    trials = study(tmp_path).get_trials()
    assert [trial.number for trial in trials] == list(range(6))
    assert all(trial.state.is_finished() for trial in trials)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("ensembleflow:algorithm_version", 1, "version of the search's algorithms"),
        ("ensembleflow:dataset_checksum", "another", "dataset"),
        ("ensembleflow:search", None, "search space, settings or seed"),
    ],
)
def test_a_study_made_for_something_else_is_refused_in_one_message(
    key: str, value: Any, told: str, tmp_path: Path
) -> None:
    ours = study(tmp_path)
    if value is None:
        value = ours.user_attrs[key].replace('"max_zoom":[0,0.2]', '"max_zoom":[0,0.3]')
    ours.set_user_attr(key, value)
    with pytest.raises(SearchError, match=f"was made with another {told}") as refused:
        study(tmp_path)
    message = str(refused.value)
    assert ours.study_name in message
    assert "hint:" in message
    if key == "ensembleflow:search":
        assert "search.space.max_zoom [0, 0.3]" in message
        assert "search.space.max_zoom [0, 0.2]" in message
        assert "learning_rate" not in message, "only what differs"


def test_a_study_of_the_same_name_that_another_program_made_is_refused(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    other = optuna.create_study(storage=storage, study_name=study_name(search_plan(CONFIG), CHECKSUM))
    other.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(SearchError, match="not made by ensembleflow"):
        study(tmp_path)


def test_a_study_whose_maker_was_killed_before_it_said_anything_is_taken_over(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    optuna.create_study(storage=storage, study_name=study_name(search_plan(CONFIG), CHECKSUM))
    assert "ensembleflow:search" in study(tmp_path).user_attrs


def test_a_study_of_the_same_name_that_maximises_is_refused(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    optuna.create_study(storage=storage, study_name=study_name(search_plan(CONFIG), CHECKSUM), direction="maximize")
    with pytest.raises(SearchError, match="does not minimise"):
        study(tmp_path)
