"""What the search relies on in Optuna without Optuna's promise, held against the installed version."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.pruners import HyperbandPruner
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState
from packaging.requirements import Requirement

from ensembleflow.search.optuna_internals import (
    StoredTrial,
    add_trial,
    bracket_of,
    forget_cached_trials,
    hyperband_bracket,
    n_hyperband_brackets,
    rung_key,
    should_stop,
    whole_study,
)
from ensembleflow.search.storage import open_storage

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "workflow/ensembleflow"
FENCE = PACKAGE / "search/optuna_internals.py"
RATE = FloatDistribution(1e-4, 1e-1, log=True)


@pytest.fixture(params=["memory", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> BaseStorage:
    return InMemoryStorage() if request.param == "memory" else open_storage(tmp_path)


def make_study(storage: BaseStorage, n_trials: int = 3, **settings: Any) -> optuna.Study:
    study = optuna.create_study(storage=storage, study_name="contract", **settings)
    for _ in range(n_trials):
        add_trial(study, optuna.trial.create_trial(state=TrialState.WAITING))
    return study


def frozen(study: optuna.Study, slot: int) -> FrozenTrial:
    return study.get_trials(deepcopy=False)[slot]


def test_no_other_module_touches_what_optuna_keeps_to_itself() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path == FENCE or not re.search(r"^ *(import|from) optuna\b", text, re.MULTILINE):
            continue
        tree = ast.parse(text)
        found += [
            f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and re.match("_[a-z]", node.attr)
            and ast.unparse(node.value) not in ("self", "cls")
            and not ast.unparse(node).startswith("argparse.")
        ]
        found += [
            f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and re.match(r"optuna\b.*\._", f"{node.module}.")
        ]
    assert found == []


def test_the_package_takes_the_versions_that_this_was_tried_with() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (allowed,) = [
        Requirement(each) for each in extras["optional-dependencies"]["workflow"] if Requirement(each).name == "optuna"
    ]
    assert any(each.operator == "<" for each in allowed.specifier), "an upper bound"
    for lock in sorted(REPOSITORY.glob("requirements*.lock")):
        pinned = re.search(r"^optuna==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
        assert pinned and pinned[1] in allowed.specifier, lock.name
    assert optuna.__version__ in allowed.specifier


def test_trials_are_numbered_in_the_order_in_which_they_are_added(storage: BaseStorage) -> None:
    study = make_study(storage, 5)
    assert [(each.number, each.state) for each in study.get_trials()] == [(n, TrialState.WAITING) for n in range(5)]


def test_a_finished_trial_is_added_as_it_is(storage: BaseStorage) -> None:
    study = make_study(storage, 1)
    template = optuna.trial.create_trial(
        state=TrialState.PRUNED,
        value=0.25,
        params={"rate": 0.01},
        distributions={"rate": RATE},
        system_attrs={rung_key(0): 0.5},
        intermediate_values={1: 0.5, 2: 0.25},
    )
    add_trial(study, template)
    added = frozen(study, 1)
    assert (added.state, added.value, added.params) == (TrialState.PRUNED, 0.25, {"rate": 0.01})
    assert (added.system_attrs, added.intermediate_values) == ({rung_key(0): 0.5}, {1: 0.5, 2: 0.25})


def test_a_trial_is_claimed_and_taken_up_again_as_the_same(storage: BaseStorage) -> None:
    study = make_study(storage, sampler=optuna.samplers.RandomSampler(seed=0))
    StoredTrial(study, frozen(study, 1)).claim()
    assert [each.state for each in study.get_trials()] == [TrialState.WAITING, TrialState.RUNNING, TrialState.WAITING]
    first = StoredTrial(study, frozen(study, 1)).attach()
    rate = first.suggest_float("rate", RATE.low, RATE.high, log=True)
    first.report(0.5, step=1)
    again = StoredTrial(study, first).attach()
    assert again.number == 1
    assert again.suggest_float("rate", RATE.low, RATE.high, log=True) == rate
    again.report(0.4, step=2)
    study.tell(1, 0.4)
    ended = frozen(study, 1)
    assert (ended.state, ended.value, ended.intermediate_values) == (TrialState.COMPLETE, 0.4, {1: 0.5, 2: 0.4})


def test_what_is_written_to_a_trial_is_what_the_study_says_of_it(storage: BaseStorage) -> None:
    study = make_study(storage)
    stored = StoredTrial(study, frozen(study, 2))
    stored.claim()
    stored.set_param("rate", 0.01, RATE)
    stored.set_intermediate_value(1, 0.5)
    stored.set_system_attr(rung_key(0), 0.5)
    stored.set_user_attr("reason", "none")
    trial = frozen(study, 2)
    assert (trial.params, trial.distributions) == ({"rate": 0.01}, {"rate": RATE})
    assert (trial.intermediate_values, trial.user_attrs) == ({1: 0.5}, {"reason": "none"})
    assert trial.system_attrs == {rung_key(0): 0.5}


def test_brackets_are_those_that_the_pruner_compares_within(storage: BaseStorage) -> None:
    study = make_study(storage, 60, pruner=HyperbandPruner(1, 9, 3))
    assert n_hyperband_brackets(study) == 3
    brackets = [bracket_of(study, slot) for slot in range(60)]
    assert brackets == [hyperband_bracket(study, frozen(study, slot)) for slot in range(60)]
    assert set(Counter(brackets)) == {0, 1, 2}
    for slot in range(60):
        StoredTrial(study, frozen(study, slot)).attach().report(0.5, step=1)
        study.pruner.prune(study, frozen(study, slot))
    at_rung = [rung_key(0) in frozen(study, slot).system_attrs for slot in range(60)]
    assert at_rung == [bracket == 0 for bracket in brackets], "only bracket 0 has its first rung at epoch 1"


def test_a_study_without_hyperband_has_no_brackets(storage: BaseStorage) -> None:
    assert bracket_of(make_study(storage, pruner=optuna.pruners.NopPruner()), 0) is None


def test_the_pruner_notes_a_rung_under_its_key_and_is_asked_again_as_if_it_had_not(storage: BaseStorage) -> None:
    study = make_study(storage, 40, pruner=HyperbandPruner(1, 9, 3))
    rivals = [slot for slot in range(40) if bracket_of(study, slot) == 0][:6]
    for value, slot in enumerate(rivals):
        StoredTrial(study, frozen(study, slot)).claim()
        StoredTrial(study, frozen(study, slot)).attach().report(float(value), step=1)
    answers = [should_stop(study, slot, rung=0) for slot in rivals]
    assert [frozen(study, slot).system_attrs[rung_key(0)] for slot in rivals] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert answers[0] is False and answers[-1] is True
    again = [should_stop(study, slot, rung=0) for slot in rivals]
    assert again == [value > 1 for value in range(6)], "the best third of all six go on"
    assert [should_stop(study, slot, rung=0) for slot in rivals] == again


class _Watching(optuna.samplers.RandomSampler):
    """Notes the study that it is shown, and how many trials it sees."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.seen: list[tuple[bool, int, int]] = []

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {"rate": RATE}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        shown = len(study.get_trials(deepcopy=False))
        forget_cached_trials(study)
        whole = whole_study(study)
        self.seen.append((whole is study, shown, len(whole.get_trials(deepcopy=False))))
        return {"rate": 0.01}


def test_a_sampler_within_hyperband_reaches_the_trials_of_all_brackets(storage: BaseStorage) -> None:
    sampler = _Watching()
    study = make_study(storage, 40, pruner=HyperbandPruner(1, 9, 3), sampler=sampler)
    own = [slot for slot in range(40) if bracket_of(study, slot) == bracket_of(study, 0)]
    StoredTrial(study, frozen(study, 0)).claim()
    StoredTrial(study, frozen(study, 0)).attach().suggest_float("rate", RATE.low, RATE.high, log=True)
    ((same, shown, everything),) = sampler.seen
    assert not same
    assert (shown, everything) == (len(own), 40)


def test_a_sampler_sees_what_ended_since_it_looked_last(storage: BaseStorage) -> None:
    study = make_study(storage, 2)
    n_seen = []
    for _ in range(3):
        forget_cached_trials(study)
        n_seen.append(len(study._get_trials(deepcopy=False, use_cache=True)))
        add_trial(study, optuna.trial.create_trial(state=TrialState.WAITING))
    assert all(after == before + 1 for before, after in pairwise(n_seen))
