"""The combiners, held against their definitions sample by sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.selection.combiners import MajorityVote, WeightedAverage
from support.selection_problems import problems


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
