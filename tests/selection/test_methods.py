"""The methods that SMOBF is compared with: oracles in plain NumPy, and invariants."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.errors import SelectionError
from ensembleflow.models.metrics import METRICS
from ensembleflow.selection import forward_greedy_path, read_candidates, smobf_budgets
from ensembleflow.selection.budget import Spending
from ensembleflow.selection.rivals.methods import (
    best_single,
    greedy_with_replacement,
    lowest_within,
    multiplicities,
    top_k,
    weight_sweep,
)
from support.selection_problems import LABELS, naive_loss, problems, sharp

LOSSES = list(METRICS)
NOISE = 1e-9
TIED = 1e-12


def candidates_of(problem, loss):
    probabilities, labels, costs, budget = problem
    candidates = read_candidates(probabilities, labels, costs, loss)
    return candidates, candidates.usable.tolist(), math.inf if budget is None else budget


def cost_of(costs, members):
    """What an ensemble costs: each distinct member once."""
    return math.fsum(costs[sorted(set(members))])


def exact_loss(probabilities, labels, members, loss):
    """The loss of an average by its definition; sums in the order in which they are taken, which settles equal ones."""
    *rest, last = members
    total = probabilities[sorted(rest)].sum(axis=0) + probabilities[last] if rest else probabilities[last]
    # The predicted class is that of the highest sum; a division may make two of them equal.
    scaled = total if loss in ("error", "macro_f1_error") else total / len(members)
    return naive_loss(scaled[None], labels, [0], loss)


def caruana(probabilities, labels, costs, usable, limit, n_steps, loss):
    """Greedy selection with replacement from its definition: the order of the best step, and its loss."""
    order, trajectory = [], []
    for _ in range(n_steps):
        losses = [exact_loss(probabilities, labels, [*order, model], loss) for model in range(len(costs))]
        allowed = [model for model in usable if cost_of(costs, [*order, model]) <= limit]
        lowest = min(losses[model] for model in allowed)
        tied = [model for model in allowed if losses[model] <= lowest + TIED]
        order.append(min(tied, key=lambda model: (model not in order, costs[model], model)))
        trajectory.append(losses[order[-1]])
    best = next(step for step, value in enumerate(trajectory) if value <= min(trajectory) + TIED)
    return order[: best + 1], trajectory[best]


def multi_ges(probabilities, labels, costs, usable, weight, n_steps, loss):
    """The cost-aware greedy from its definition: the order of all steps."""

    def normalised(values):
        spread = max(values) - min(values)
        return [(value - min(values)) / spread if spread > TIED else 0.0 for value in values]

    order = []
    for _ in range(n_steps):
        losses = [exact_loss(probabilities, labels, [*order, model], loss) for model in usable]
        terms = zip(normalised(losses), normalised([costs[model] for model in usable]), strict=True)
        scores = [(1 - weight) * a + weight * b for a, b in terms]
        spread = max(losses) - min(losses)
        tied = TIED / spread if spread > TIED else TIED  # as far as the losses' rounding may shift a score
        rows = [row for row in zip(scores, losses, usable, strict=True) if row[0] <= min(scores) + tied]
        rows = [row for row in rows if row[1] <= min(row[1] for row in rows) + TIED]
        order.append(min((row[2] for row in rows), key=lambda model: (model not in order, costs[model], model)))
    return order


@settings(deadline=None, max_examples=120)
@given(problem=problems(), loss=st.sampled_from(LOSSES), n_steps=st.integers(1, 9))
def test_greedy_with_replacement_is_caruana_s(problem, loss, n_steps):
    probabilities, labels, costs, _ = problem
    candidates, usable, limit = candidates_of(problem, loss)
    found = greedy_with_replacement(candidates, problem[3], n_steps)
    members, value = caruana(probabilities, labels, costs, usable, limit, n_steps, loss)
    assert found.members == members
    assert found.loss == pytest.approx(value, abs=NOISE)
    assert found.cost == cost_of(costs, members)


@settings(deadline=None, max_examples=80)
@given(problem=problems(), loss=st.sampled_from(LOSSES), n_steps=st.integers(1, 9))
def test_every_ensemble_of_greedy_with_replacement_is_the_average_of_its_repeated_members(problem, loss, n_steps):
    probabilities, labels, costs, budget = problem
    candidates, _, limit = candidates_of(problem, loss)
    found = greedy_with_replacement(candidates, budget, n_steps)
    assert [len(run.members) for run in found.path] == list(range(1, n_steps + 1))
    for run in found.path:
        assert run.loss == pytest.approx(exact_loss(probabilities, labels, run.members, loss), abs=NOISE)
        assert run.cost == cost_of(costs, run.members) <= limit
        assert run.members == found.path[-1].members[: len(run.members)]
    assert found.loss <= min(run.loss for run in found.path) + NOISE
    assert found.trace[-1].stop_reason == f"max_members ({n_steps}) is reached"


@settings(deadline=None, max_examples=60)
@given(problem=problems(), loss=st.sampled_from(LOSSES), n_steps=st.integers(1, 6), data=st.data())
def test_greedy_with_replacement_among_some_models_is_that_of_a_library_of_them(problem, loss, n_steps, data):
    probabilities, labels, costs, _ = problem
    candidates, usable, _ = candidates_of(problem, loss)
    among = data.draw(st.lists(st.sampled_from(usable), min_size=1, unique=True))
    found = greedy_with_replacement(candidates, None, n_steps, among)
    expected, _ = caruana(probabilities, labels, costs, sorted(among), math.inf, n_steps, loss)
    assert found.members == expected


@settings(deadline=None, max_examples=80)
@given(
    problem=problems(),
    loss=st.sampled_from(LOSSES),
    weight=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0]),
    n_steps=st.integers(1, 6),
)
def test_the_weight_sweep_is_that_of_its_definition(problem, loss, weight, n_steps):
    probabilities, labels, costs, _ = problem
    candidates, usable, _ = candidates_of(problem, loss)
    runs = weight_sweep(candidates, (0.2, weight), n_steps)
    assert [run.weight for run in runs] == [0.2] * n_steps + [weight] * n_steps
    order = multi_ges(probabilities, labels, costs, usable, weight, n_steps, loss)
    assert [run.members for run in runs[n_steps:]] == [order[:size] for size in range(1, n_steps + 1)]
    for run in runs:
        assert run.loss == pytest.approx(exact_loss(probabilities, labels, run.members, loss), abs=NOISE)
        assert run.cost == cost_of(costs, run.members)


@settings(deadline=None, max_examples=80)
@given(problem=problems(), loss=st.sampled_from(LOSSES))
def test_the_pick_of_a_sweep_is_the_lowest_loss_that_fits(problem, loss):
    _, _, costs, budget = problem
    candidates, _, limit = candidates_of(problem, loss)
    runs = weight_sweep(candidates, n_steps=5)
    fitting = [run for run in runs if cost_of(costs, run.members) <= limit]
    picked = lowest_within(candidates, runs, budget)
    assert fitting and picked in fitting  # w = 1 starts from the cheapest model, which fits
    assert picked.loss <= min(run.loss for run in fitting) + TIED
    assert picked.cost == min(run.cost for run in fitting if run.loss <= min(run.loss for run in fitting) + TIED)


def test_where_no_ensemble_fits_there_is_no_pick():
    candidates = read_candidates(GOOD, LABELS, [1.0, 2.0], "cross_entropy")
    assert lowest_within(candidates, weight_sweep(candidates, (0.5,), 3), 0.5) is None
    assert lowest_within(candidates, [], None) is None


@settings(deadline=None, max_examples=120)
@given(problem=problems(), loss=st.sampled_from(LOSSES))
def test_top_k_averages_the_best_models_as_far_as_the_budget_goes(problem, loss):
    probabilities, labels, costs, budget = problem
    candidates, usable, limit = candidates_of(problem, loss)
    found = top_k(candidates, budget)
    single = {model: naive_loss(probabilities, labels, [model], loss) for model in usable if costs[model] <= limit}
    whole = found.path[-1].members
    for place, model in enumerate(whole):
        assert single[model] <= min(single[other] for other in single if other not in whole[:place]) + NOISE
    assert [run.members for run in found.path] == [whole[:size] for size in range(1, len(whole) + 1)]
    for run in found.path:
        assert run.loss == pytest.approx(exact_loss(probabilities, labels, run.members, loss), abs=NOISE)
        assert run.cost == cost_of(costs, run.members) <= limit
    left = [model for model in single if model not in whole]
    if left:
        lowest = min(single[model] for model in left)
        nexts = [model for model in left if single[model] <= lowest + NOISE]
        assert any(cost_of(costs, [*whole, model]) > limit for model in nexts)
        assert found.trace[-1].stop_reason == "the next model in the ranking exceeds the budget"
    assert found.loss <= min(run.loss for run in found.path) + TIED
    assert found.members in [run.members for run in found.path]


@settings(deadline=None, max_examples=60)
@given(problem=problems(), loss=st.sampled_from(LOSSES))
def test_the_best_single_model_is_smobf_s(problem, loss):
    candidates, _, _ = candidates_of(problem, loss)
    found, expected = best_single(candidates, problem[3]), smobf_budgets(candidates, [problem[3]])[0].best_single
    assert (found.members, found.loss, found.cost, found.weight) == (
        expected.members,
        expected.loss,
        expected.cost,
        None,
    )


@settings(deadline=None, max_examples=60)
@given(problem=problems(distinct=True), loss=st.sampled_from(LOSSES))
def test_no_method_exceeds_the_budget_or_beats_enumeration(problem, loss):
    probabilities, labels, costs, budget = problem
    candidates, usable, limit = candidates_of(problem, loss)
    subsets = itertools.chain.from_iterable(itertools.combinations(usable, size) for size in range(1, len(usable) + 1))
    optimum = min(
        naive_loss(probabilities, labels, subset, loss) for subset in subsets if cost_of(costs, subset) <= limit
    )
    lowest = naive_loss(probabilities, labels, best_single(candidates, budget).members, loss)
    for run in (top_k(candidates, budget), forward_greedy_path(candidates, budget)):
        assert run.cost == cost_of(costs, run.members) <= limit
        assert optimum - NOISE <= run.loss <= lowest + NOISE
    assert greedy_with_replacement(candidates, budget, 10).loss <= lowest + NOISE


@settings(deadline=None, max_examples=60)
@given(problem=problems(distinct=True), loss=st.sampled_from(LOSSES), seed=st.integers(0, 1000))
def test_the_order_of_the_models_does_not_matter(problem, loss, seed):
    probabilities, labels, costs, budget = problem
    order = np.random.default_rng(seed).permutation(len(costs))
    candidates, _, _ = candidates_of(problem, loss)
    shuffled = read_candidates(probabilities[order], labels, costs[order], loss)

    def runs(these):
        sweep = lowest_within(these, weight_sweep(these, (0.0, 0.4, 1.0), 5), budget)
        return [best_single(these, budget), top_k(these, budget), greedy_with_replacement(these, budget, 6), sweep]

    for one, other in zip(runs(candidates), runs(shuffled), strict=True):
        assert [int(order[member]) for member in other.members] == one.members
        assert other.cost == one.cost


GOOD = np.stack([sharp(LABELS, 2, [0.6, 0.7, 0.8, 0.9]), sharp(LABELS, 2, [0.9, 0.7, 0.8, 0.6])])


def test_of_equal_models_a_member_comes_before_a_cheaper_one_and_the_cheaper_before_the_first():
    twins = np.concatenate([GOOD[:1], GOOD[:1], GOOD[:1]])
    candidates = read_candidates(twins, LABELS, [2.0, 1.0, 1.0], "cross_entropy")
    assert greedy_with_replacement(candidates, None, 4).path[-1].members == [1, 1, 1, 1]
    assert greedy_with_replacement(candidates, None, 4).members == [1]


def test_a_full_budget_still_lets_a_member_weigh_more():
    p_true = [[0.9, 0.9, 0.2, 0.9], [0.6, 0.6, 0.6, 0.6], [0.99, 0.99, 0.99, 0.99]]
    probabilities = np.stack([sharp(LABELS, 2, row) for row in p_true])
    candidates = read_candidates(probabilities, LABELS, [1.0, 1.0, 9.0], "cross_entropy")
    found = greedy_with_replacement(candidates, 2.0, 20)
    assert set(found.members) == {0, 1}
    assert found.cost == 2.0
    assert found.members.count(0) != found.members.count(1)


def test_a_model_above_the_budget_is_passed_over_by_top_k():
    probabilities = np.stack([sharp(LABELS, 2, [0.9, 0.95, 0.9, 0.9]), *GOOD])
    candidates = read_candidates(probabilities, LABELS, [9.0, 1.0, 2.0], "cross_entropy")
    assert top_k(candidates, 3.0).path[-1].members == [1, 2]


def test_a_budget_of_several_columns_binds_every_method():
    rng = np.random.default_rng(4)
    probabilities, labels = rng.dirichlet(np.ones(3), (6, 40)), rng.integers(0, 3, 40)
    columns = {"cost_seconds": rng.uniform(1, 2, 6), "parameter_bytes": rng.uniform(10, 30, 6)}
    candidates = read_candidates(probabilities, labels, columns, "cross_entropy")
    budget = "4x,parameter_bytes=1.5x"
    limits = {"cost_seconds": 4 * np.median(columns["cost_seconds"])}
    limits["parameter_bytes"] = 1.5 * np.median(columns["parameter_bytes"])
    sweep = lowest_within(candidates, weight_sweep(candidates, n_steps=10), budget)
    for run in (top_k(candidates, budget), greedy_with_replacement(candidates, budget, 10), sweep):
        for column, limit in limits.items():
            assert cost_of(columns[column], run.members) <= limit


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda these: greedy_with_replacement(these, None, 0), "n_steps leaves no ensemble"),
        (lambda these: greedy_with_replacement(these, 9.0, among=[]), "no usable model may be added"),
        (lambda these: greedy_with_replacement(these, among=[7]), "no usable model may be added"),
        (lambda these: weight_sweep(these, (0.5,), 0), "n_steps leaves no ensemble"),
        (lambda these: weight_sweep(these, (1.5,)), "a weight is out of range"),
        (lambda these: top_k(these, 0.5), "no usable model fits the budget"),
        (lambda these: best_single(these, 0.5), "no usable model fits the budget"),
        (lambda these: greedy_with_replacement(these, 0.5), "no usable model fits the budget"),
        (lambda these: lowest_within(these, [], "a lot"), "the budget is not a cost"),
    ],
)
def test_a_wrong_argument_is_named(call, message):
    with pytest.raises(SelectionError, match=message):
        call(read_candidates(GOOD, LABELS, [1.0, 2.0], "cross_entropy"))


@settings(deadline=None, max_examples=80)
@given(problem=problems(), data=st.data())
def test_a_member_added_again_spends_nothing(problem, data):
    _, _, costs, budget = problem
    columns, limits = {"cost_seconds": costs}, {} if budget is None else {"cost_seconds": budget}
    added = data.draw(st.lists(st.integers(0, len(costs) - 1), max_size=8))
    repeated, once = Spending(columns, limits), Spending(columns, limits)
    for model in added:
        repeated.add(model)
    for model in dict.fromkeys(added):
        once.add(model)
    models = np.arange(len(costs))
    assert repeated.seconds == once.seconds == cost_of(costs, added)
    np.testing.assert_array_equal(repeated.fits(models), once.fits(models))
    for model, share in enumerate(repeated.shares(models)):
        assert share == pytest.approx(0.0 if budget is None else cost_of(costs, [*added, model]) / budget)


@settings(deadline=None, max_examples=60)
@given(problem=problems(distinct=True), loss=st.sampled_from(list(METRICS)), data=st.data())
def test_fitted_weights_are_no_worse_than_the_best_member_alone(problem, loss, data):
    probabilities, labels, costs, _ = problem
    candidates = read_candidates(probabilities, labels, costs, loss)
    members = data.draw(st.lists(st.sampled_from(candidates.usable.tolist()), min_size=1, unique=True))
    weights = multiplicities(candidates, members, n_steps=12)
    assert list(weights) == [member for member in members if member in weights] and sum(weights.values()) <= 12
    repeated = [member for member, weight in weights.items() for _ in range(weight)]
    singles = [naive_loss(probabilities, labels, [member], loss) for member in members]
    assert naive_loss(probabilities, labels, repeated, loss) <= min(singles) + 1e-9


def test_a_better_member_weighs_more():
    rows = [[0.9, 0.9, 0.2, 0.9], [0.6, 0.6, 0.6, 0.6]]
    candidates = read_candidates(np.stack([sharp(LABELS, 2, row) for row in rows]), LABELS, [1.0, 1.0], "cross_entropy")
    weights = multiplicities(candidates, [1, 0])
    assert list(weights) == [1, 0]
    best = min(
        range(1, 100),
        key=lambda n: naive_loss(
            np.stack([sharp(LABELS, 2, row) for row in rows]), LABELS, [0] * n + [1] * (100 - n), "cross_entropy"
        ),
    )
    assert weights[0] / sum(weights.values()) == pytest.approx(best / 100, abs=0.02)
