"""Local search: what a move may do, where it ends, and that nothing depends on the models' order."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.errors import SelectionError
from ensembleflow.models.metrics import METRICS
from ensembleflow.selection import read_candidates, smobf_budgets
from ensembleflow.selection.greedy import TIED_WITHIN, SelectedEnsemble
from ensembleflow.selection.local_search import local_search
from support.selection_problems import LABELS, naive_loss, problems, reordered, sharp

LOSSES = list(METRICS)
NOISE = 1e-9


def ensemble_of(members):
    return SelectedEnsemble("smobf", None, list(members), math.nan, math.nan, math.nan, ())


def neighbours(members, models):
    """Every set that one move leads to, with the move."""
    others = [model for model in models if model not in members]
    for added in others:
        yield None, added, {*members, added}
    for removed in members:
        rest = set(members) - {removed}
        if rest:
            yield removed, None, rest
        for added in others:
            yield removed, added, {*rest, added}


@settings(deadline=None, max_examples=150)
@given(problem=problems(), loss=st.sampled_from(LOSSES), data=st.data())
def test_each_move_is_the_best_of_the_oracle_and_the_search_ends_where_none_improves(problem, loss, data):
    probabilities, labels, costs, budget = problem
    limit = math.inf if budget is None else budget
    candidates = read_candidates(probabilities, labels, costs, loss)
    models = candidates.usable.tolist()
    fitting = [model for model in models if costs[model] <= limit]
    if not fitting:
        return
    start = [data.draw(st.sampled_from(fitting))]
    result = local_search(candidates, ensemble_of(start), budget)
    members, value = set(start), naive_loss(probabilities, labels, start, loss)
    for move in result.moves:
        moves = list(neighbours(members, models))
        within = {
            (removed, added): (naive_loss(probabilities, labels, sorted(to), loss), math.fsum(costs[sorted(to)]))
            for removed, added, to in moves
            if math.fsum(costs[sorted(to)]) <= limit
        }
        assert (move.n_tried, move.n_over_budget) == (len(within), len(moves) - len(within))
        cost = math.fsum(costs[sorted(members)])
        if move.kind == "stop":
            assert move is result.moves[-1] and move.stop_reason
            assert all(new_loss > value - NOISE for new_loss, _ in within.values())
            # Losses apart from rounding: at the same loss nothing is cheaper.
            assert all(new_cost >= cost for new_loss, new_cost in within.values() if new_loss == value)
            break
        new_loss, new_cost = within[move.removed, move.added]
        assert new_loss <= min(each for each, _ in within.values()) + NOISE
        assert new_loss < value or new_cost < cost
        assert (move.loss, move.cost) == (pytest.approx(new_loss, abs=NOISE), new_cost)
        members = (members - {move.removed}) | ({move.added} - {None})
        value = new_loss
    assert set(result.members) == members
    assert len(result.members) == len(members) > 0


@settings(deadline=None, max_examples=100)
@given(problem=problems(), loss=st.sampled_from(LOSSES))
def test_it_is_never_worse_than_its_start_and_never_over_the_budget(problem, loss):
    probabilities, labels, costs, budget = problem
    candidates = read_candidates(probabilities, labels, costs, loss)
    (start,) = smobf_budgets(candidates, [budget])
    result = local_search(candidates, start, budget)
    assert result.loss <= start.loss + TIED_WITHIN
    assert result.cost == math.fsum(costs[result.members]) <= (math.inf if budget is None else budget)
    assert result.loss == pytest.approx(naive_loss(probabilities, labels, result.members, loss), abs=NOISE)
    assert (result.method, result.weight, result.score) == ("local_search", None, result.loss)
    again = local_search(candidates, result, budget)
    assert (again.members, len(again.moves)) == (result.members, 1)


@settings(deadline=None, max_examples=60)
@given(problem=problems(), loss=st.sampled_from(LOSSES), data=st.data())
def test_the_order_of_the_models_does_not_matter_only_their_ids(problem, loss, data):
    probabilities, labels, costs, budget = problem
    candidates = read_candidates(probabilities, labels, costs, loss)
    (start,) = smobf_budgets(candidates, [budget])
    order = data.draw(st.permutations(range(len(costs))))
    shuffled = reordered(probabilities, labels, costs[order], loss, order)
    expected = local_search(candidates, start, budget)
    result = local_search(shuffled, ensemble_of(order.index(member) for member in start.members), budget)
    assert [order[member] for member in result.members] == expected.members
    assert (result.loss, result.cost) == (expected.loss, expected.cost)


def test_a_swap_finds_what_greedy_cannot():
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1], 6)
    first, second = np.where(labels == 0, 0.9, 0.45), np.where(labels == 0, 0.45, 0.9)
    alone = np.full(12, 0.62) + rng.uniform(-0.01, 0.01, 12)
    probabilities = np.stack([sharp(labels, 2, p) for p in (alone, first, second)])
    candidates = read_candidates(probabilities, labels, [1.0, 1.0, 1.0], "brier")
    (start,) = smobf_budgets(candidates, [2.0], weights=(0.0,))
    assert start.members in ([0, 1], [0, 2])
    result = local_search(candidates, start, 2.0)
    assert sorted(result.members) == [1, 2] and result.loss < start.loss
    assert [move.kind for move in result.moves] == ["swap", "stop"]


def test_a_cheaper_twin_takes_a_members_place_and_an_equal_one_does_not():
    model, other = sharp(LABELS, 2, [0.9, 0.6, 0.8, 0.7]), sharp(LABELS, 2, [0.2, 0.1, 0.3, 0.2])
    probabilities = np.stack([model, model, other, model])
    candidates = read_candidates(probabilities, LABELS, [3.0, 1.0, 0.5, 1.0], "cross_entropy")
    result = local_search(candidates, ensemble_of([0]), None)
    assert result.members == [1]
    assert [(move.kind, move.removed, move.added) for move in result.moves] == [("swap", 0, 1), ("stop", None, None)]


def test_of_equal_moves_the_first_id_is_taken():
    bad, good = sharp(LABELS, 2, [0.2, 0.1, 0.3, 0.2]), sharp(LABELS, 2, [0.9, 0.6, 0.8, 0.7])
    for place in permutations(range(4)):
        probabilities = np.stack([bad, good, good, good])[list(place)]
        candidates = read_candidates(probabilities, LABELS, np.ones(4), "cross_entropy")
        result = local_search(candidates, ensemble_of([place.index(0)]), 1.0)
        assert result.members == [min(place.index(each) for each in (1, 2, 3))]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        *(([], "not a set"), ([0, 0], "not a set"), ([0, 1], "exceeds the budget"), ([2], "left out")),
        *(([0, 4], "is no model\n.*4\n.*0 … 3"), ([3, -1], "is no model\n.*-1")),
    ],
)
def test_a_start_that_is_no_ensemble_within_the_budget_is_refused(members, message):
    probabilities = np.stack([sharp(LABELS, 2, [0.9, 0.6, 0.8, 0.7]), sharp(LABELS, 2, [0.6, 0.7, 0.8, 0.9])] * 2)
    probabilities[2] = np.nan
    candidates = read_candidates(probabilities, LABELS, np.ones(4), "cross_entropy")
    with pytest.raises(SelectionError, match=message):
        local_search(candidates, ensemble_of(members), 1.5)
