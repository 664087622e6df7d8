"""The Optuna study behind the slots."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from ensembleflow.search.space import suggest_hyperparameters
from ensembleflow.search.study import bracket_of, claim_slot, open_storage, open_study, should_stop
from ensembleflow.search.trial import rung_of
from small_search import search_config


def study(folder: Path, **search: object) -> optuna.Study:
    return open_study(open_storage(folder), "digits-hyperband-s0-test", search_config(**search).search, seed=0)


def test_a_slots_hyperparameters_do_not_depend_on_who_ran_first(tmp_path: Path) -> None:
    space = search_config().search.space
    forwards, backwards = study(tmp_path / "forwards"), study(tmp_path / "backwards")
    first = {s: suggest_hyperparameters(claim_slot(forwards, s, tmp_path), space) for s in (0, 1, 2)}
    second = {s: suggest_hyperparameters(claim_slot(backwards, s, tmp_path), space) for s in (2, 1, 0)}
    assert first == second
    assert len(set(first.values())) == 3


def test_a_trial_killed_while_it_drew_its_hyperparameters_gets_the_same_ones(tmp_path: Path) -> None:
    space = search_config().search.space
    whole = suggest_hyperparameters(claim_slot(study(tmp_path / "whole"), 0, tmp_path), space)
    killed = claim_slot(study(tmp_path / "killed"), 0, tmp_path)
    killed.suggest_float("learning_rate", *space.learning_rate)
    resumed = claim_slot(study(tmp_path / "killed"), 0, tmp_path)
    assert suggest_hyperparameters(resumed, space) == whole


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


def test_the_pruner_asked_again_after_a_kill_answers_alike(tmp_path: Path) -> None:
    ours = study(tmp_path, n_trials=40, trials_per_job=40, max_epochs=9)
    slots = [slot for slot in range(40) if claim_slot(ours, slot, tmp_path) and bracket_of(ours, slot) == 0]
    stopped = 0
    for place, slot in enumerate(slots):
        claim_slot(ours, slot, tmp_path).report(float((place * 7) % 5), step=1)
        first = should_stop(ours, slot, rung=0)
        again = should_stop(study(tmp_path, max_epochs=9), slot, rung=0)
        assert first == again
        stopped += first
    assert 0 < stopped < len(slots)


@pytest.mark.parametrize(
    ("bracket", "rungs"),
    [(0, {1: 0, 3: 1, 9: 2}), (1, {3: 0, 9: 1}), (2, {9: 0})],
)
def test_rungs_lie_at_the_powers_of_the_reduction_factor(bracket: int, rungs: dict[int, int]) -> None:
    found = {epoch: rung_of(epoch, bracket, 3) for epoch in range(1, 10)}
    assert {epoch: rung for epoch, rung in found.items() if rung is not None} == rungs
    assert rung_of(3, None, 3) is None
