"""The combiners, held against their definitions sample by sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.models.metrics import CHUNK_SAMPLES, METRICS, classification_metrics, metrics_of_chunks
from ensembleflow.selection import read_candidates
from ensembleflow.selection.combiners import average, majority_vote, multiplicities, weighted_average
from selection_problems import LABELS, naive_loss, problems, sharp


def whole(chunks):
    return np.concatenate(list(chunks))


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
    np.testing.assert_allclose(whole(weighted_average(probabilities, weights)), repeated.mean(axis=0), atol=1e-15)
    np.testing.assert_allclose(whole(average(probabilities, members)), probabilities[members].mean(axis=0), atol=1e-15)


@settings(deadline=None, max_examples=120)
@given(ensemble=ensembles())
def test_a_majority_vote_counts_votes_and_settles_ties_by_probability_then_class(ensemble):
    probabilities, members = ensemble
    shares = whole(majority_vote(probabilities, members))
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
    assert whole(majority_vote(votes, [0, 1])).argmax(axis=1) == 1
    equal = np.array([[[0.6, 0.4, 0.0]], [[0.4, 0.6, 0.0]]])
    assert whole(majority_vote(equal, [1, 0])).argmax(axis=1) == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("combine", [average, majority_vote])
def test_chunks_give_what_the_whole_matrix_gives(combine, dtype, tmp_path):
    rng = np.random.default_rng(2)
    n_samples = 2 * CHUNK_SAMPLES + 5
    probabilities = rng.dirichlet(np.ones(4), (5, n_samples)).astype(dtype)
    mapped = np.memmap(tmp_path / "probabilities", dtype, "w+", shape=probabilities.shape)
    mapped[:] = probabilities
    labels = rng.integers(0, 4, n_samples)
    members = [3, 0, 4]
    chunks = list(combine(mapped, members))
    assert [len(chunk) for chunk in chunks] == [CHUNK_SAMPLES, CHUNK_SAMPLES, 5]
    assert all(chunk.dtype == np.float64 for chunk in chunks)
    found = metrics_of_chunks(combine(mapped, members), labels, METRICS)
    assert found == classification_metrics(np.concatenate(chunks), labels)


def test_the_cross_entropy_of_a_true_class_s_average_needs_no_other_class():
    rng = np.random.default_rng(3)
    probabilities, labels = rng.dirichlet(np.ones(4), (5, 1500)), rng.integers(0, 4, 1500)
    true_class = probabilities[:, np.arange(1500), labels]
    found = metrics_of_chunks(average(true_class, [1, 2]), labels, METRICS)
    expected = metrics_of_chunks(average(probabilities, [1, 2]), labels, METRICS)
    assert found["cross_entropy"] == expected["cross_entropy"]
    assert all(np.isnan(found[name]) for name in METRICS if name != "cross_entropy")


@pytest.mark.parametrize("combine", [average, majority_vote])
def test_a_probability_that_is_not_finite_gives_no_metric(combine):
    probabilities = np.full((2, 3, 2), 0.5)
    probabilities[1, 2] = np.nan
    assert all(
        np.isnan(value) for value in metrics_of_chunks(combine(probabilities, [0, 1]), LABELS[:3], METRICS).values()
    )
    assert metrics_of_chunks(combine(probabilities, [0]), LABELS[:3], METRICS)["error"] == pytest.approx(1 / 3)


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
