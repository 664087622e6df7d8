"""The compiled sums of every loss are those of plain float64 NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.models.metrics import METRICS, SMALLEST_PROBABILITY
from ensembleflow.models.tolerances import OUTSIDE_BY
from ensembleflow.selection.sums.losses import Prefixes, block_type

N_CLASSES = st.one_of(st.integers(1, 12), st.integers(1, 40), st.just(300))


def lowest_allowed(dtype):
    """The lowest stored value that is still taken for rounding: NumPy compares with the bound as rounded to it."""
    return dtype(-OUTSIDE_BY)


@st.composite
def sums_to_make(draw, loss):
    """Stored probabilities (models, samples, classes), labels, prefixes and candidates."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_classes, n_models = draw(N_CLASSES), draw(st.integers(1, 6))
    chunk = block_type(loss).chunk_samples(n_classes)
    n_samples = draw(st.sampled_from([1, 2, 63, 64, 65, chunk - 1, chunk, chunk + 1, 2 * chunk + 65]).filter(bool))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    stored = rng.dirichlet(np.full(n_classes, draw(st.sampled_from([0.05, 0.3, 2.0]))), (n_models, n_samples))
    if draw(st.booleans()):
        # Sums of eighths are exact: many are equal, and the lowest class has to win.
        stored = rng.multinomial(8, stored) / 8
    stored = stored.astype(dtype)
    if draw(st.booleans()):
        stored[rng.random(stored.shape) < 0.2] = lowest_allowed(dtype)
    if draw(st.booleans()):
        stored[-1] = stored[0]
    model = st.integers(0, n_models - 1)
    prefixes = draw(st.lists(st.lists(model, max_size=5), min_size=1, max_size=3))
    candidates = draw(st.lists(model, min_size=1, max_size=4))
    return stored, rng.integers(0, n_classes, n_samples), prefixes, candidates


def sums_of(average, labels, loss):
    """The sums that a loss is made of, of averages (samples, classes)."""
    n_samples, n_classes = average.shape
    predicted = average.argmax(axis=1)
    if loss == "error":
        return [(predicted != labels).sum()]
    if loss == "macro_f1_error":
        right = predicted[predicted == labels]
        return np.concatenate([np.bincount(each, minlength=n_classes) for each in (right, predicted, labels)])
    if loss == "brier":
        return [((average - np.eye(n_classes)[labels]) ** 2).sum()]
    return [-np.log(np.maximum(average[np.arange(n_samples), labels], SMALLEST_PROBABILITY)).sum()]


@pytest.mark.parametrize("loss", METRICS)
@settings(deadline=None, max_examples=200)
@given(st.data())
def test_the_sums_are_those_of_plain_numpy(loss, data):
    stored, labels, prefixes, candidates = data.draw(sums_to_make(loss))
    needs_all, kind = METRICS[loss].needs_all_classes, block_type(loss)
    values = stored if needs_all else np.ascontiguousarray(stored[:, np.arange(len(labels)), labels])
    found = np.zeros((len(prefixes), len(candidates), kind.n_terms(stored.shape[2])))
    kind(values, labels).add_sums(Prefixes(prefixes), np.array(candidates), found)
    for sums_of_prefix, prefix in zip(found, prefixes, strict=True):
        for sums, candidate in zip(sums_of_prefix, candidates, strict=True):
            total = np.zeros(stored.shape[1:])
            for member in [*prefix, candidate]:
                total = total + stored[member]
            # Counts are of the sums themselves, for a division may make two of them equal.
            expected = sums_of(total if kind.sums_are_counts else total / (len(prefix) + 1), labels, loss)
            if kind.sums_are_counts:
                np.testing.assert_array_equal(sums, expected)
            else:
                np.testing.assert_allclose(sums, expected, rtol=1e-12, atol=1e-12 * len(labels))


@pytest.mark.parametrize("loss", METRICS)
def test_sums_are_added_to_what_is_there(loss):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 100)
    stored = rng.dirichlet(np.ones(7), (3, 100)).astype(np.float32)
    values = stored if METRICS[loss].needs_all_classes else np.ascontiguousarray(stored[:, np.arange(100), labels])
    block, shape = block_type(loss)(values, labels), (1, 3, block_type(loss).n_terms(7))
    once, before = np.zeros(shape), rng.integers(1, 9, shape).astype(np.float64)
    onto = before.copy()
    for sums in (once, onto):
        block.add_sums(Prefixes([[0, 1]]), np.arange(3), sums)
    np.testing.assert_allclose(onto, before + once, rtol=1e-14)
    assert once.any()
