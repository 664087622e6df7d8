"""The seven algorithms: what they draw, from what, and that they draw it again."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from ensembleflow.config import Config, Range
from ensembleflow.search.optuna_internals import bracket_of
from ensembleflow.search.samplers import SlotSampler
from ensembleflow.search.samplers.genetic import parents_of
from ensembleflow.search.samplers.smac import observations
from ensembleflow.search.space import distributions, suggest_hyperparameters
from ensembleflow.search.storage import open_storage
from ensembleflow.search.study import claim_slot, open_study
from support import slot_study
from support.slot_study import (
    ALGORITHMS,
    CHECKSUM,
    error_of,
    run_in_order,
    run_process,
    run_slots,
    search_config,
    search_plan,
)

N_TRIALS = 16
LEARNING = ("gp", "bohb", "smac", "tpe", "genetic")


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """The disk is not what these tests are about, and a journal syncs it some thirty times per trial."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Each trial's values of every algorithm, its slots run in order."""
    with folder_in_memory() as folder:
        yield {name: run_in_order(slot_study.small_config(name, N_TRIALS), folder / name) for name in ALGORITHMS}


def new_study(config: Config, folder: Path) -> optuna.Study:
    return open_study(open_storage(folder), search_plan(config), CHECKSUM)


def drawn(study: optuna.Study, config: Config, slot: int, folder: Path) -> dict[str, Any]:
    suggest_hyperparameters(claim_slot(study, slot, folder), config.search)
    return study.get_trials(deepcopy=False)[slot].params


def uniform(config: Config, slot: int, name: str) -> Any:
    trial = optuna.trial.FrozenTrial(slot, TrialState.RUNNING, None, None, None, {}, {}, {}, {}, {}, trial_id=slot)
    study = optuna.create_study()
    return SlotSampler(config.seed).sample_independent(study, trial, name, distributions(config.search)[name])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_value_lies_in_the_space(runs: dict[str, list[dict[str, Any]]], algorithm: str) -> None:
    space = distributions(slot_study.small_config(algorithm, N_TRIALS).search)
    assert len(runs[algorithm]) == N_TRIALS
    for values in runs[algorithm]:
        assert list(values) == list(space), "in Table 5's order"
        assert all(each._contains(each.to_internal_repr(values[name])) for name, each in space.items())


def test_a_search_repeats_itself_in_another_process(runs: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, slot_study.__file__, str(tmp_path), str(N_TRIALS)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == runs


@pytest.mark.parametrize("algorithm", LEARNING)
def test_an_algorithm_that_learns_starts_at_random_and_then_finds_better_points_than_random(
    runs: dict[str, list[dict[str, Any]]], algorithm: str
) -> None:
    n_random = 8  # the start-up trials, or the first generation
    errors = {
        name: [error_of(slot_study.Hyperparameters.from_dict(values)) for values in runs[name]]
        for name in ("random", algorithm)
    }
    assert errors[algorithm][:n_random] == errors["random"][:n_random]
    assert runs[algorithm][n_random:] != runs["random"][n_random:]
    assert np.mean(errors[algorithm][-8:]) < 0.8 * np.mean(errors["random"])


@pytest.mark.parametrize("algorithm", LEARNING)
def test_a_trial_killed_while_it_got_its_values_gets_the_rest_of_the_same_point(algorithm: str, tmp_path: Path) -> None:
    config = slot_study.small_config(algorithm, 12)
    study = new_study(config, tmp_path)
    run_slots(study, config, range(10), tmp_path)
    killed = claim_slot(study, 10, tmp_path)
    rates = config.search.space.learning_rate
    first = killed.suggest_float("learning_rate", rates.low, rates.high, log=rates.log)
    whole = dict(killed.relative_params)
    run_slots(study, config, range(11, 12), tmp_path)  # the storage has moved on
    resumed = drawn(new_study(config, tmp_path), config, 10, tmp_path)
    assert resumed["learning_rate"] == first
    assert {name: resumed[name] for name in whole} == whole


@pytest.mark.parametrize("algorithm", ["hyperband", *LEARNING])
def test_two_processes_side_by_side_fill_every_slot_once_and_repeat_no_point(algorithm: str, tmp_path: Path) -> None:
    config = slot_study.small_config(algorithm, 12)
    processes = [run_process(None, tmp_path, config, slots) for slots in (range(0, 12, 2), range(1, 12, 2))]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    trials = new_study(config, tmp_path).get_trials()
    assert [trial.number for trial in trials] == list(range(12))
    assert all(trial.state.is_finished() for trial in trials)
    assert len({tuple(trial.params.values()) for trial in trials}) == 12


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "free",
    [{}, {"activation": ["relu", "elu"]}, {"stem_filters": [4, 5], "l2": [0, 0.001]}],
    ids=["one-point", "one-choice", "one-choice-and-one-range"],
)
def test_a_space_with_hardly_anything_to_choose_is_searched_all_the_same(
    algorithm: str, free: dict[str, Any], tmp_path: Path
) -> None:
    fixed = {
        name: [values.low, values.low] if isinstance(values, Range) else values[:1]
        for name, values in search_config("random", 1).search.space
    }
    config = slot_study.small_config(algorithm, 7, n_startup_trials=2, space={**fixed, **free})
    values = run_in_order(config, tmp_path)
    assert len(values) == 7
    assert {name for name in fixed if len({each[name] for each in values}) > 1} <= free.keys()


@pytest.mark.parametrize("algorithm", ["gp", "bohb", "smac", "tpe"])
def test_trials_that_all_fail_or_all_tie_do_not_stop_a_model(algorithm: str, tmp_path: Path) -> None:
    config = slot_study.small_config(algorithm, 8, n_startup_trials=2)
    failing = new_study(config, tmp_path / "failing")
    for slot in range(4):
        drawn(failing, config, slot, tmp_path / "failing")
        failing.tell(slot, state=TrialState.FAIL)
    assert drawn(failing, config, 4, tmp_path / "failing") == {
        name: uniform(config, 4, name) for name in distributions(config.search)
    }
    tying = new_study(config, tmp_path / "tying")
    for slot in range(6):
        drawn(tying, config, slot, tmp_path / "tying")
        tying.tell(slot, 0.25)


def test_bohb_learns_from_the_trials_of_all_brackets(tmp_path: Path) -> None:
    config = slot_study.small_config("bohb", 40)
    study = new_study(config, tmp_path)
    claim_slot(study, 39, tmp_path)
    brackets = [bracket_of(study, slot) for slot in range(40)]
    rare = next(slot for slot in range(9, 40) if brackets[:slot].count(brackets[slot]) < config.search.n_startup_trials)
    run_slots(study, config, range(rare), tmp_path)
    values = drawn(study, config, rare, tmp_path)
    assert values != {name: uniform(config, rare, name) for name in values}


def test_smac_leaves_no_file_says_nothing_and_starts_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    import distributed

    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    clients = set(distributed.Client._instances)
    for algorithm in ("gp", "smac"):
        with caplog.at_level(logging.INFO):
            run_in_order(slot_study.small_config(algorithm, 6, n_startup_trials=2), tmp_path / algorithm)
    assert list(empty.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert set(distributed.Client._instances) == clients


def trial_of(state: TrialState, number: int, x: float, value: float | None = None) -> FrozenTrial:
    trial = create_trial(
        state=TrialState.COMPLETE if state.is_finished() else state,
        params={"x": x},
        distributions={"x": FloatDistribution(0, 9)},
        value=0.0 if state.is_finished() else None,
    )
    trial.number, trial.state = number, state
    if state == TrialState.PRUNED:
        trial.intermediate_values = {1: 9.0, 3: value if value is not None else 0.0}
    trial.values = [value] if state == TrialState.COMPLETE and value is not None else None
    return trial


def test_a_model_is_told_pruned_failed_and_running_trials_each_in_its_way() -> None:
    trials = [
        trial_of(TrialState.RUNNING, 0, 5.0),
        trial_of(TrialState.COMPLETE, 1, 1.0, 0.1),
        trial_of(TrialState.COMPLETE, 2, 2.0, 0.2),
        trial_of(TrialState.PRUNED, 3, 3.0, 0.6),
        trial_of(TrialState.FAIL, 4, 4.0),
        trial_of(TrialState.RUNNING, 5, 2.0),
        create_trial(state=TrialState.WAITING),
    ]
    told = {values["x"]: value for values, value in observations(trials, {"x": 0}.keys())}
    assert told == {1.0: 0.1, 2.0: 0.2, 3.0: 0.6, 4.0: 0.6, 5.0: 0.2}
    assert observations([trials[0], trials[4]], {"x": 0}.keys()) == []


@settings(deadline=None)
@given(
    values=st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=30),
    generation_size=st.integers(1, 10),
)
def test_parents_are_the_better_half_of_the_nearest_generation_with_a_value(
    values: list[float | None], generation_size: int
) -> None:
    trials = [
        trial_of(TrialState.FAIL if value is None else TrialState.COMPLETE, slot, 0.0, value)
        for slot, value in enumerate(values)
    ]
    generation = -(-len(values) // generation_size)
    parents = parents_of(trials, generation, generation_size)
    if not parents:
        assert all(value is None for value in values)
        return
    (source,) = {parent.number // generation_size for parent in parents}
    later = [values[slot] for slot in range((source + 1) * generation_size, len(values))]
    assert later == [None] * len(later)
    alive = [trial for trial in trials if trial.number // generation_size == source and trial.values]
    assert 2 * len(parents) >= len(alive) or len(parents) == len(alive)
    rest = [trial for trial in alive if trial not in parents]
    assert all(parent.value <= other.value for parent in parents for other in rest)


def test_a_childs_values_are_its_parents_or_drawn_anew(tmp_path: Path) -> None:
    config = search_config("genetic", 24, n_generations=3)
    values = run_in_order(config, tmp_path)
    trials = new_study(config, tmp_path).get_trials()
    inherited = mutated = 0
    for slot in range(8, 24):
        parents = parents_of(trials, slot // 8, 8)
        assert {parent.number // 8 for parent in parents} == {slot // 8 - 1}
        for name, value in values[slot].items():
            if value in [parent.params[name] for parent in parents]:
                inherited += 1
            else:
                mutated += 1
                assert value == uniform(config, slot, name)
    assert 0 < mutated < inherited / 4


def test_a_generation_that_failed_as_a_whole_is_followed_by_children_of_the_one_before(tmp_path: Path) -> None:
    config = search_config("genetic", 12, n_generations=3)
    study = new_study(config, tmp_path)
    run_slots(study, config, range(4), tmp_path)
    for slot in range(4, 8):
        drawn(study, config, slot, tmp_path)
        study.tell(slot, state=TrialState.FAIL)
    child = drawn(study, config, 8, tmp_path)
    first = [trial.params for trial in study.get_trials(deepcopy=False)[:4]]
    assert sum(any(child[name] == parent[name] for parent in first) for name in child) > len(child) / 2


def test_the_space_of_the_config_is_the_one_that_optuna_stores(tmp_path: Path) -> None:
    config = search_config("random", 1)
    run_in_order(config, tmp_path)
    trial = new_study(config, tmp_path).get_trials()[0]
    assert trial.distributions == distributions(config.search)
    assert isinstance(trial.distributions["block"], CategoricalDistribution)
