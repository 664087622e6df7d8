"""The combiners, held against their definitions sample by sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.models.metrics import METRICS
from ensembleflow.selection import read_candidates
from ensembleflow.selection.combiners import MajorityVote, WeightedAverage, multiplicities
from selection_problems import LABELS, naive_loss, problems, sharp


def combined(combiner, probabilities, weights):
    """The prediction of members, by index with how often each counts."""
    together = combiner(probabilities.shape[1:])
    for member, times in weights.items():
        together.add(probabilities[member].astype(np.float64), times)
    return together.probabilities()


def voted(probabilities, members):
    return combined(MajorityVote, probabilities, dict.fromkeys(members, 1))


@st.composite
def ensembles(draw):
    """Probabilities, some of them equal and some ties, and distinct members in any order."""
    probabilities = draw(problems())[0]
    members = draw(st.permutations(range(len(probabilities))))
    return probabilities, members[: draw(st.integers(1, len(members)))]


@settings(deadline=None, max_examples=60)
@given(ensemble=ensembles(), data=st.data())
def test_a_weighted_average_is_the_average_of_repeated_members(ensemble, data):
    probabilities, members = ensemble
    weights = {member: data.draw(st.integers(1, 4)) for member in members}
    repeated = np.repeat(probabilities[members], [weights[member] for member in members], axis=0)
    found = combined(WeightedAverage, probabilities, weights)
    np.testing.assert_allclose(found, repeated.mean(axis=0), atol=1e-15)


@settings(deadline=None, max_examples=120)
@given(ensemble=ensembles())
def test_a_majority_vote_counts_votes_and_settles_ties_by_probability_then_class(ensemble):
    probabilities, members = ensemble
    shares = voted(probabilities, members)
    n_classes = probabilities.shape[2]
    for sample, row in enumerate(shares):
        ballots = [max(range(n_classes), key=lambda k: (probabilities[m, sample, k], -k)) for m in members]
        np.testing.assert_allclose(row, [ballots.count(k) / len(members) for k in range(n_classes)], atol=1e-15)
        total = np.zeros(n_classes)
        for member in members:
            total += probabilities[member, sample]
        winner = max(range(n_classes), key=lambda k: (ballots.count(k), total[k], -k))
        assert row.argmax() == winner and (np.delete(row, winner) < row[winner]).all()


def test_a_tied_vote_falls_to_the_higher_averaged_probability():
    votes = np.array([[[0.6, 0.4, 0.0]], [[0.1, 0.9, 0.0]]])
    assert voted(votes, [0, 1]).argmax(axis=1) == 1
    equal = np.array([[[0.6, 0.4, 0.0]], [[0.4, 0.6, 0.0]]])
    assert voted(equal, [1, 0]).argmax(axis=1) == 0


@settings(deadline=None, max_examples=60)
@given(ensemble=ensembles(), combiner=st.sampled_from([WeightedAverage, MajorityVote]))
def test_a_prediction_leaves_the_sum_that_further_members_are_added_to(ensemble, combiner):
    probabilities, members = ensemble
    together = combiner(probabilities.shape[1:])
    for size, member in enumerate(members, start=1):
        together.add(probabilities[member].astype(np.float64))
        together.probabilities()[:] = 7.0
        alone = combined(combiner, probabilities, dict.fromkeys(members[:size], 1))
        np.testing.assert_array_equal(together.probabilities(), alone)


@pytest.mark.parametrize("combiner", [WeightedAverage, MajorityVote])
def test_a_sample_with_a_probability_that_is_not_finite_has_no_prediction(combiner):
    probabilities = np.full((2, 3, 2), 0.5)
    probabilities[1, 2, 0] = np.nan
    found = combined(combiner, probabilities, {0: 1, 1: 1})
    assert np.isfinite(found[:2]).all() and np.isnan(found[2]).any()


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
