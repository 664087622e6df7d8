"""The certificate: the optimum of full enumeration, and bounds that never exceed it."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.errors import SelectionError
from ensembleflow.models.metrics import METRICS
from ensembleflow.selection import read_candidates, smobf_budgets
from ensembleflow.selection.budget import budget_limits
from ensembleflow.selection.rivals import certificate
from ensembleflow.selection.rivals.certificate import certify
from ensembleflow.selection.rivals.relaxation import (
    BrierRelaxation,
    CrossEntropyRelaxation,
    bounds_by_size,
)
from support.selection_problems import LABELS, naive_loss, reordered, sharp

LOSSES = list(METRICS)
CONVEX = ["cross_entropy", "brier"]
NOISE = 1e-10
ENOUGH = 10_000


@st.composite
def libraries(draw, max_models=9):
    """Probabilities, labels, cost columns and a budget of one or both that some model fits."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_models, n_classes = draw(st.integers(1, max_models)), draw(st.integers(2, 4))
    n_samples = draw(st.sampled_from([2, 5, 12, 40]))
    labels = rng.integers(0, n_classes, n_samples)
    difficulty = rng.normal(0, 1, (n_samples, n_classes)) + np.eye(n_classes)[labels]
    scores = difficulty + draw(st.sampled_from([0.1, 1.0, 3.0])) * rng.normal(0, 1, (n_models, n_samples, n_classes))
    if draw(st.booleans()):
        scores *= draw(st.sampled_from([10.0, 30.0]))  # probabilities of about 1e-15, the smallest that counts
    probabilities = np.exp(scores - scores.max(axis=2, keepdims=True))
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    if draw(st.booleans()):
        probabilities[probabilities < draw(st.sampled_from([1e-3, 0.2]))] = 0.0
        probabilities /= probabilities.sum(axis=2, keepdims=True)
    if draw(st.booleans()):
        probabilities[-1] = probabilities[0]
    probabilities = probabilities.astype(draw(st.sampled_from([np.float32, np.float64])))
    costs = {"cost_seconds": rng.uniform(0.1, 2.0, n_models), "parameter_bytes": rng.lognormal(3, 1, n_models)}
    if draw(st.booleans()):
        costs = {column: np.round(values, 1) + 0.1 for column, values in costs.items()}
    limited = draw(st.sampled_from([(), ("cost_seconds",), ("parameter_bytes",), tuple(costs)]))
    cheapest = rng.integers(n_models)
    budget = {
        column: float(costs[column][cheapest] + draw(st.floats(0, 1)) * costs[column].sum()) for column in limited
    }
    return probabilities, labels, costs, budget or None


def feasible_sets(candidates, budget):
    limits = budget_limits(budget, candidates.cost_columns)
    for size in range(1, len(candidates.usable) + 1):
        for members in itertools.combinations(candidates.usable.tolist(), size):
            if all(math.fsum(candidates.cost_columns[c][list(members)]) <= limit for c, limit in limits.items()):
                yield members


@settings(deadline=None, max_examples=150)
@given(library=libraries(), loss=st.sampled_from(LOSSES), max_nodes=st.integers(1, 40), data=st.data())
def test_it_finds_the_optimum_of_full_enumeration_and_no_bound_exceeds_it(library, loss, max_nodes, data):
    probabilities, labels, costs, budget = library
    candidates = read_candidates(probabilities, labels, costs, loss)
    losses = {
        members: naive_loss(probabilities, labels, members, loss) for members in feasible_sets(candidates, budget)
    }
    if not losses:
        return  # the only models that fit have diverged
    optimum = min(losses.values())
    given_members = data.draw(st.sampled_from(sorted(losses)))

    whole = certify(candidates, budget, given_members, ENOUGH)
    assert whole.certified
    assert whole.optimal_loss == whole.loss == pytest.approx(optimum, abs=NOISE)
    assert losses[whole.members] == pytest.approx(optimum, abs=NOISE)
    assert whole.gap == pytest.approx(losses[given_members] - optimum, abs=NOISE)
    assert certify(candidates, budget, whole.members, ENOUGH).gap == 0.0

    cut = certify(candidates, budget, given_members, max_nodes)
    assert cut.n_nodes <= max_nodes and cut.stop_reason
    assert cut.lower_bound <= optimum + NOISE
    assert cut.gap == pytest.approx(losses[given_members] - cut.lower_bound, abs=NOISE) and cut.gap >= 0
    assert optimum - NOISE <= losses[cut.members] <= losses[given_members] + NOISE
    assert cut.loss == pytest.approx(losses[cut.members], abs=NOISE)
    assert cut.certified == (cut.optimal_loss is not None)
    if cut.certified:
        assert cut.optimal_loss == pytest.approx(optimum, abs=NOISE)


@settings(deadline=None, max_examples=150)
@given(library=libraries(), loss=st.sampled_from(CONVEX))
def test_the_bound_of_each_size_is_below_every_ensemble_of_that_size(library, loss):
    probabilities, labels, costs, budget = library
    candidates = read_candidates(probabilities, labels, costs, loss)
    models = candidates.usable.astype(np.int64)
    limits = budget_limits(budget, candidates.cost_columns)
    columns = np.array([candidates.cost_columns[column][models] for column in limits]).reshape(-1, len(models))
    sizes = range(1, len(models) + 1)
    relaxation = (
        BrierRelaxation(candidates.source, models)
        if loss == "brier"
        else CrossEntropyRelaxation(candidates.source, models)
    )
    bounds = bounds_by_size(relaxation, sizes, columns, np.array(list(limits.values())))
    for members in feasible_sets(candidates, budget):
        places = np.searchsorted(models, members)
        bound = bounds.constants[len(members) - 1] + bounds.scores[len(members) - 1, places].sum()
        # The oracle subtracts from averages that are rounded already.
        assert bound <= naive_loss(probabilities, labels, members, loss) + 1e-15


@pytest.mark.parametrize("loss", CONVEX)
def test_bounds_are_close_enough_to_rule_out_nearly_every_ensemble(loss):
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 5, 400)
    scores = rng.normal(0, 1, (400, 5)) + 1.5 * np.eye(5)[labels] + rng.normal(0, 0.7, (16, 400, 5))
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    candidates = read_candidates(probabilities, labels, rng.uniform(0.5, 2.0, 16), loss)
    (chosen,) = smobf_budgets(candidates, ["4x"])
    found = certify(candidates, "4x", chosen.members, ENOUGH)
    n_feasible = sum(1 for _ in feasible_sets(candidates, "4x"))
    assert found.certified and found.n_nodes < n_feasible / 15
    first = certify(candidates, "4x", chosen.members, 1)
    assert not first.certified and first.stop_reason == "max_nodes (1) is reached"
    assert first.lower_bound == pytest.approx(found.optimal_loss, rel=0.05)


@settings(deadline=None, max_examples=40)
@given(library=libraries(6), loss=st.sampled_from(LOSSES), max_nodes=st.integers(1, 10), data=st.data())
def test_the_order_of_the_models_does_not_matter_only_their_ids(library, loss, max_nodes, data):
    probabilities, labels, costs, budget = library
    candidates = read_candidates(probabilities, labels, costs, loss)
    sets = list(feasible_sets(candidates, budget))
    if not sets:
        return
    order = data.draw(st.permutations(range(len(probabilities))))
    shuffled_costs = {column: values[order] for column, values in costs.items()}
    shuffled = reordered(probabilities, labels, shuffled_costs, loss, order)
    expected = certify(candidates, budget, sets[0], max_nodes)
    result = certify(shuffled, budget, [order.index(member) for member in sets[0]], max_nodes)
    assert replace(result, members=()) == replace(expected, members=())
    assert sorted(order[member] for member in result.members) == list(expected.members)


def test_samples_that_every_model_takes_for_the_same_wrong_class_bound_the_error():
    labels = np.zeros(8, dtype=int)
    p_true = np.array([[0.9, 0.9, 0.9, 0.2, 0.3, 0.8, 0.9, 0.4], [0.9, 0.8, 0.7, 0.1, 0.4, 0.4, 0.3, 0.8]])
    probabilities = np.stack([sharp(labels, 2, each) for each in p_true] + [sharp(labels, 2, p_true.mean(axis=0))])
    candidates = read_candidates(probabilities, labels, np.ones(3), "error")
    found = certify(candidates, None, [1], 1)
    assert (found.certified, found.loss, found.lower_bound) == (True, 0.25, 0.25)
    assert found.gap == 0.25


def test_the_given_ensemble_stays_the_best_one_known_where_no_other_has_a_lower_loss():
    model, other = sharp(LABELS, 2, [0.9, 0.6, 0.8, 0.7]), sharp(LABELS, 2, [0.2, 0.1, 0.3, 0.2])
    candidates = read_candidates(np.stack([model, model, other]), LABELS, [2.0, 1.0, 1.0], "brier")
    assert certify(candidates, None, [0, 1], ENOUGH).members == (0, 1)


def test_a_library_too_large_for_the_search_gets_fewer_nodes_and_says_so(monkeypatch):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 50)
    probabilities = rng.dirichlet(np.ones(3), (12, 50))
    candidates = read_candidates(probabilities, labels, np.ones(12), "error")
    monkeypatch.setattr(certificate, "_READ_VALUES", 12 * 50 * 3 * 7)
    found = certify(candidates, "4x", [0], ENOUGH)
    assert (found.certified, found.optimal_loss, found.n_nodes) == (False, None, 7)
    assert found.stop_reason == "the library is large: 7 nodes read 2**42 probabilities"


@pytest.mark.parametrize(
    ("members", "max_nodes", "message"), [([0], 0, "no node"), ([0, 1], 5, "exceeds the budget"), ([], 5, "not a set")]
)
def test_what_cannot_be_certified_is_refused(members, max_nodes, message):
    probabilities = np.stack([sharp(LABELS, 2, [0.9, 0.6, 0.8, 0.7]), sharp(LABELS, 2, [0.6, 0.7, 0.8, 0.9])])
    candidates = read_candidates(probabilities, LABELS, np.ones(2), "cross_entropy")
    with pytest.raises(SelectionError, match=message):
        certify(candidates, 1.5, members, max_nodes)
