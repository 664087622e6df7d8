"""SMOBF and forward greedy: invariants, a brute-force oracle, and what they refuse."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.errors import SelectionError
from ensembleflow.models.metrics import CHUNK_SAMPLES, METRICS, SMALLEST_PROBABILITY, classification_metrics
from ensembleflow.selection import forward_greedy, pareto_front, smobf
from support.selection_problems import LABELS, naive_loss, problems, reference_smobf, sharp

LOSSES = list(METRICS)
NOISE = 1e-9


def usable(result, n_models):
    return [model for model in range(n_models) if model not in result.dropped]


def check_greedy_steps(trace, candidates, problem, loss, weight, only_gains, max_members=None):
    """Each step takes a best candidate by the oracle's scores, and the stop is due."""
    probabilities, labels, costs, budget = problem
    limit = math.inf if budget is None else budget
    members, score = [], math.inf
    for step in trace:
        left = [model for model in candidates if model not in members]
        fitting = [model for model in left if math.fsum(costs[[*members, model]]) <= limit]
        scores = {
            model: (1 - weight) * naive_loss(probabilities, labels, [*members, model], loss)
            + weight * math.fsum(costs[[*members, model]]) / limit
            for model in fitting
        }
        assert step.n_over_budget == len(left) - len(fitting)
        if step.stop_reason:
            assert step.model is None and step is trace[-1]
            if fitting and len(members) != max_members:
                assert only_gains and min(scores.values()) >= score - NOISE
            return
        assert scores[step.model] <= min(scores.values()) + NOISE
        assert step.score == pytest.approx(scores[step.model], abs=NOISE)
        assert step.score < score or not only_gains
        for model, runner_up_score in step.runners_up:
            assert runner_up_score == pytest.approx(scores[model], abs=NOISE)
            assert runner_up_score >= step.score - NOISE
        members.append(step.model)
        score = step.score
        assert step.loss == pytest.approx(naive_loss(probabilities, labels, members, loss), abs=NOISE)
        assert step.cost == math.fsum(costs[members])
    pytest.fail("the trace does not say why it stopped")


@settings(deadline=None, max_examples=120)
@given(problem=problems(), loss=st.sampled_from(LOSSES))
def test_every_step_of_smobf_takes_the_best_candidate_of_the_oracle(problem, loss):
    probabilities, labels, costs, budget = problem
    result = smobf(probabilities, labels, costs, budget=budget, weights=(0.5, 0.1, 0.001), loss=loss)
    assert [each.weight for each in result.by_weight] == [0.5, 0.1, 0.001]
    for each in result.by_weight:
        check_greedy_steps(each.trace, usable(result, len(costs)), problem, loss, each.weight, only_gains=True)
        assert [step.model for step in each.trace if step.model is not None] == each.members


@settings(deadline=None, max_examples=150)
@given(
    problem=problems(),
    loss=st.sampled_from(LOSSES),
    weight=st.sampled_from([0.0, 0.001, 0.1, 0.5]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_the_members_are_those_of_plain_numpy(problem, loss, weight, dtype):
    probabilities, labels, costs, budget = problem
    probabilities = probabilities.astype(dtype)
    result = smobf(probabilities, labels, costs, budget=budget, weights=(weight,), loss=loss)
    limit = math.inf if budget is None else budget
    expected = reference_smobf(probabilities, labels, costs, usable(result, len(costs)), limit, weight, loss)
    assert result.by_weight[0].members == expected


@settings(deadline=None, max_examples=60)
@given(problem=problems(), loss=st.sampled_from(LOSSES), max_members=st.none() | st.integers(1, 4))
def test_every_step_of_forward_greedy_takes_the_best_candidate_of_the_oracle(problem, loss, max_members):
    probabilities, labels, costs, budget = problem
    result = forward_greedy(probabilities, labels, costs, budget=budget, max_members=max_members, loss=loss)
    check_greedy_steps(result.trace, usable(result, len(costs)), problem, loss, 0.0, False, max_members)
    assert [len(each.members) for each in result.path] == list(range(1, len(result.path) + 1))
    assert all(each.members == result.path[-1].members[: len(each.members)] for each in result.path)
    assert result.loss <= min(each.loss for each in result.path) + NOISE


@settings(deadline=None, max_examples=120)
@given(problem=problems(), loss=st.sampled_from(LOSSES))
def test_a_result_fits_its_budget_and_is_no_worse_than_the_best_single_model_that_does(problem, loss):
    probabilities, labels, costs, budget = problem
    result = smobf(probabilities, labels, costs, budget=budget, loss=loss)
    path = forward_greedy(probabilities, labels, costs, budget=budget, loss=loss)
    limit = math.inf if budget is None else budget
    singles = [
        naive_loss(probabilities, labels, [model], loss)
        for model in usable(result, len(costs))
        if costs[model] <= limit
    ]
    for found in (result, path):
        assert math.fsum(costs[found.members]) == found.cost <= limit
        assert found.loss <= min(singles) + NOISE
        assert len(set(found.members)) == len(found.members) > 0
    assert result.budget_seconds == limit
    assert result.best_single.loss == pytest.approx(min(singles), abs=NOISE)
    assert result.loss <= min(each.loss for each in result.by_weight)
    assert all(each.cost <= limit for each in result.by_weight)


@settings(deadline=None, max_examples=60)
@given(problem=problems(), loss=st.sampled_from(LOSSES))
def test_no_ensemble_within_the_budget_is_better_than_full_enumeration_finds(problem, loss):
    probabilities, labels, costs, budget = problem
    result = smobf(probabilities, labels, costs, budget=budget, loss=loss)
    subsets = itertools.chain.from_iterable(
        itertools.combinations(usable(result, len(costs)), size) for size in range(1, len(costs) + 1)
    )
    limit = math.inf if budget is None else budget
    within = [list(subset) for subset in subsets if math.fsum(costs[list(subset)]) <= limit]
    assert min(naive_loss(probabilities, labels, subset, loss) for subset in within) <= result.loss + NOISE
    assert sorted(result.members) in within


@settings(deadline=None, max_examples=60)
@given(problem=problems(), loss=st.sampled_from(LOSSES))
def test_the_same_arguments_give_the_same_result(problem, loss):
    probabilities, labels, costs, budget = problem
    first = smobf(probabilities, labels, costs, budget=budget, loss=loss)
    again = smobf(probabilities.copy(), list(labels), list(costs), budget=budget, loss=loss)
    assert (again.members, again.loss, again.cost, again.score) == (first.members, first.loss, first.cost, first.score)
    for one, other in zip(first.by_weight, again.by_weight, strict=True):
        assert [(step.model, step.score) for step in one.trace] == [(step.model, step.score) for step in other.trace]


@settings(deadline=None, max_examples=120)
@given(problem=problems(distinct=True), loss=st.sampled_from(LOSSES), seed=st.integers(0, 1000))
def test_the_order_of_the_models_does_not_matter(problem, loss, seed):
    probabilities, labels, costs, budget = problem
    order = np.random.default_rng(seed).permutation(len(costs))
    result = smobf(probabilities, labels, costs, budget=budget, loss=loss)
    shuffled = smobf(probabilities[order], labels, costs[order], budget=budget, loss=loss)
    assert [int(order[member]) for member in shuffled.members] == result.members
    assert (shuffled.loss, shuffled.cost, shuffled.score) == (result.loss, result.cost, result.score)
    path = forward_greedy(probabilities, labels, costs, budget=budget, loss=loss)
    shuffled_path = forward_greedy(probabilities[order], labels, costs[order], budget=budget, loss=loss)
    assert [int(order[member]) for member in shuffled_path.path[-1].members] == path.path[-1].members


def test_equal_models_are_chosen_by_cost_then_index_and_only_once():
    probabilities = np.stack([sharp(LABELS, 2, [0.6, 0.7, 0.8, 0.9])] * 4)
    result = smobf(probabilities, LABELS, [2.0, 1.0, 1.0, 2.0], budget=10.0)
    assert result.members == [1]
    assert result.trace[-1].stop_reason == "no model that fits lowers the score"
    assert result.trace[-1].runners_up[0][0] == 2
    assert smobf(probabilities, LABELS, [2.0, 1.0, 1.0, 2.0]).members == [1]


def test_rounding_is_no_gain():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        p_true = rng.uniform(0.2, 0.9, 8) * (1 + rng.integers(-4, 5, (6, 8)) * 1e-16)
        result = smobf(np.stack([p_true, 1 - p_true], axis=2), np.zeros(8, int), np.ones(6))
        assert len(result.members) == 1


def test_equal_results_of_the_weights_fall_to_the_first():
    result = smobf(sharp(LABELS, 2, [0.6, 0.7, 0.8, 0.9])[None], LABELS, [1.0], budget=1.0, weights=(0.01, 0.1))
    assert result.weight == 0.01
    assert result.members == [0]


def test_where_cost_leads_every_weight_astray_the_best_single_model_is_picked_and_the_trace_says_so():
    probabilities = np.stack([sharp(LABELS, 2, [0.70, 0.75, 0.70, 0.75]), sharp(LABELS, 2, [0.69, 0.75, 0.70, 0.75])])
    result = smobf(probabilities, LABELS, [0.9, 0.5], budget=1.0, weights=(0.1,))
    assert result.by_weight[0].members == [1]
    assert result.members == [0]
    assert result.weight is None
    assert result.loss == result.score == result.best_single.loss < result.by_weight[0].loss
    assert result.trace[-1].stop_reason.startswith("picked: this single model has a lower loss")


def test_without_a_budget_cost_only_breaks_ties():
    probabilities = np.stack([sharp(LABELS, 2, [0.9, 0.6, 0.7, 0.9]), sharp(LABELS, 2, [0.6, 0.9, 0.9, 0.7])])
    result = smobf(probabilities, LABELS, [100.0, 1.0])
    assert sorted(result.members) == [0, 1]
    assert result.budget_seconds == math.inf
    assert result.trace[-1].stop_reason == "no model is left"


def test_a_multiple_of_equal_costs_holds_that_many_models():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), (18, 8))
    for n_members in range(1, 19):
        path = forward_greedy(probabilities, rng.integers(0, 3, 8), [0.1] * 18, budget=f"{n_members}x").path
        assert len(path) == n_members


def test_a_budget_is_seconds_as_a_number_or_text_or_a_multiple_of_the_median():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), (4, 8))
    labels = [0, 1, 2, 0, 1, 2, 0, 1]
    costs = [1.0, 2.0, 4.0, 8.0]
    assert smobf(probabilities, labels, costs, budget="4x").budget_seconds == 12.0
    as_number, as_text = (smobf(probabilities, labels, costs, budget=budget) for budget in (12, "12"))
    assert (as_number.members, as_number.score) == (as_text.members, as_text.score)


def test_models_that_cannot_be_averaged_are_left_out_with_a_reason():
    good = sharp(LABELS, 2, [0.6, 0.7, 0.8, 0.9])
    bad = good.copy()
    bad[2, 1] = np.nan
    infinite = good.copy()
    infinite[0, 0] = np.inf
    constant = np.tile([0.5, 0.5], (4, 1))
    result = smobf(np.stack([bad, good, infinite, constant]), LABELS, [1.0, 5.0, 1.0, 1.0])
    assert result.members == [1]
    assert result.dropped == {
        0: "probabilities that are not finite, first at sample 2",
        2: "probabilities that are not finite, first at sample 0",
        3: "the same probabilities for every sample",
    }
    assert list(forward_greedy(np.stack([bad, good]), LABELS).dropped) == [0]


def test_constant_models_stay_where_there_is_nothing_else():
    constant = np.tile([[[0.5, 0.5]], [[0.4, 0.6]]], (1, 4, 1))
    assert smobf(constant, LABELS, [2.0, 1.0], budget=2.0).dropped == {}
    one_label = np.stack([np.tile([0.9, 0.1], (4, 1)), sharp(np.zeros(4, int), 2, [0.6, 0.7, 0.8, 0.9])])
    assert smobf(one_label, [0, 0, 0, 0], [1.0, 1.0], budget=2.0).members == [0]


def test_zero_probabilities_give_a_finite_loss():
    probabilities = np.stack([sharp(LABELS, 2, [0.0, 0.0, 0.0, 1.0]), sharp(LABELS, 2, [0.0, 1.0, 0.0, 0.0])])
    result = smobf(probabilities, LABELS, [1.0, 1.0], budget=2.0)
    assert result.members == [0, 1]
    assert result.loss == pytest.approx((2 * -math.log(SMALLEST_PROBABILITY) + 2 * math.log(2)) / 4)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("n_models", "n_classes"), [(1, 1), (3, 1), (1, 3)])
def test_one_model_or_one_class_is_enough(loss, n_models, n_classes):
    probabilities = np.full((n_models, 4, n_classes), 1 / n_classes)
    result = smobf(probabilities, np.zeros(4, int), np.arange(1.0, n_models + 1), budget="3x", loss=loss)
    assert result.members == [0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_loss_is_the_metric_of_the_averaged_probabilities(dtype):
    rng = np.random.default_rng(5)
    n_samples = CHUNK_SAMPLES + 300
    probabilities = rng.dirichlet(np.ones(5), (6, n_samples)).astype(dtype)
    labels = rng.integers(0, 5, n_samples)
    for loss in LOSSES:
        result = smobf(probabilities, labels, np.ones(6), budget="3x", loss=loss)
        summed = np.zeros((n_samples, 5))
        for member in result.members:
            summed += probabilities[member]
        metrics = classification_metrics(summed / len(result.members), labels)
        assert metrics[loss] == pytest.approx(result.loss, abs=1e-13)


@settings(deadline=None, max_examples=60)
@given(
    points=st.lists(
        st.tuples(st.integers(0, 5), st.one_of(st.integers(0, 5), st.just(math.nan))).map(
            lambda p: tuple(map(float, p))
        ),
        max_size=12,
    )
)
def test_the_pareto_front_holds_the_points_that_none_dominates(points):
    costs, losses_ = [cost for cost, _ in points], [loss for _, loss in points]
    front = pareto_front(costs, losses_)

    def dominated(point):
        return any(a <= point[0] and b <= point[1] and (a, b) != point for a, b in points)

    expected = {index for index, point in enumerate(points) if not math.isnan(point[1]) and not dominated(point)}
    assert set(front) == expected
    assert [costs[index] for index in front] == sorted(costs[index] for index in front)


GOOD = np.stack([sharp(LABELS, 2, [0.6, 0.7, 0.8, 0.9]), sharp(LABELS, 2, [0.9, 0.7, 0.8, 0.6])])


def test_a_budget_below_the_cheapest_model_names_both():
    with pytest.raises(SelectionError) as caught:
        smobf(GOOD, LABELS, [4.0, 2.0], budget="0.5x")
    message = str(caught.value)
    assert "no usable model fits the budget 0.5x" in message
    assert "the cheapest, model 1, costs 2 s of 1.5" in message
    assert "1x is 3 s here" in message
    spoilt = np.stack([GOOD[0], GOOD[1] * np.nan])
    with pytest.raises(SelectionError, match="model 1 is left out: probabilities that are not finite"):
        smobf(spoilt, LABELS, [4.0, 2.0], budget=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": "four"}, "the budget is not a cost"),
        ({"budget": 0}, "the budget is not a cost"),
        ({"budget": "4x,320"}, "the budget is not a cost\n.*'4x,320', which sets cost_seconds twice"),
        ({"budget": math.nan}, "the budget is not a cost"),
        ({"budget": True}, "the budget is not a cost"),
        ({"budget": math.inf}, "the budget is not a cost"),
        ({"costs": None}, "a budget needs costs"),
        ({"costs": None, "budget": "4x"}, "a budget needs costs"),
        ({"costs": [1.0, 0.0]}, "a cost is not above 0"),
        ({"costs": {"parameter_bytes": [1.0, 1.0]}}, "the costs have no column for the time"),
        ({"budget": "4x,energy_joules=2x"}, "the budget names a cost that is not there"),
        ({"weights": ()}, "no weight is given"),
        ({"weights": (1.5,)}, "a weight is out of range"),
        ({"weights": (math.nan,)}, "a weight is out of range"),
        ({"loss": "accuracy"}, "unknown loss"),
        ({"costs": [1.0]}, "the costs do not match the models"),
        ({"costs": [1.0, math.nan]}, "a cost is not above 0"),
        ({"costs": [1.0, -1.0]}, "a cost is not above 0"),
        ({"costs": [1.0, None]}, "a cost is not above 0"),
        ({"costs": [1.0, "fast"]}, "a cost is not a number\n.*model 1, cost_seconds\n.*'fast'"),
        ({"costs": {"cost_seconds": [1.0, 1.0], "energy": [[1.0], 2.0]}}, "a cost is not a number\n.*model 0, energy"),
        ({"labels": [0, 1]}, "the labels do not match the probabilities"),
        ({"labels": None}, "the labels do not match the probabilities"),
        ({"labels": [0, 1, 2, 0]}, "a label is not a class"),
        ({"labels": [0, 1, math.nan, 0]}, "a label is not a class"),
        ({"probabilities": GOOD[0]}, "the probabilities have the wrong shape"),
        ({"probabilities": GOOD * [-1, 1]}, "a probability is outside 0 … 1"),
        ({"probabilities": GOOD * 1.2}, "a probability is outside 0 … 1"),
        ({"probabilities": GOOD * 0.9}, "the probabilities of a sample do not add up to 1"),
        ({"probabilities": GOOD * np.nan}, "no model has usable predictions"),
        ({"probabilities": GOOD[:0], "costs": []}, "no model has usable predictions"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    given_ = {"probabilities": GOOD, "labels": LABELS, "costs": [1.0, 2.0], "budget": 3.0} | arguments
    with pytest.raises(SelectionError, match=message):
        smobf(**given_)


def test_forward_greedy_refuses_a_budget_without_costs_and_an_empty_ensemble():
    with pytest.raises(SelectionError, match="a budget needs costs"):
        forward_greedy(GOOD, LABELS, budget=1.0)
    with pytest.raises(SelectionError, match="max_members leaves no ensemble"):
        forward_greedy(GOOD, LABELS, max_members=0)
