"""Metrics of a matrix of class probabilities."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from ensembleflow.models.metrics import (
    ALL_METRICS,
    CHUNK_SAMPLES,
    METRICS,
    SMALLEST_PROBABILITY,
    add_in_order,
    calibration_error,
    classification_metrics,
    sample_chunks,
)


def random_probabilities(seed, n_samples, n_classes, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(n_classes, 0.5), n_samples).astype(dtype), rng.integers(0, n_classes, n_samples)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), n_samples=st.integers(1, 40), n_classes=st.integers(2, 6))
def test_the_metrics_are_those_of_scikit_learn(seed, n_samples, n_classes):
    probabilities, labels = random_probabilities(seed, n_samples, n_classes)
    found = classification_metrics(probabilities, labels)
    predicted = probabilities.argmax(axis=1)
    one_hot = np.eye(n_classes)[labels]
    clipped = np.maximum(probabilities.astype(np.float64), SMALLEST_PROBABILITY)
    assert found["error"] == pytest.approx(1 - reference.accuracy_score(labels, predicted))
    assert found["macro_f1_error"] == pytest.approx(1 - reference.f1_score(labels, predicted, average="macro"))
    assert found["cross_entropy"] == pytest.approx(-np.log(clipped[np.arange(n_samples), labels]).mean())
    assert found["brier"] == pytest.approx(np.square(probabilities.astype(np.float64) - one_hot).sum(axis=1).mean())


def test_the_cross_entropy_over_many_chunks_is_that_of_scikit_learn():
    probabilities, labels = random_probabilities(1, 3 * CHUNK_SAMPLES + 7, 5, np.float64)
    found = classification_metrics(probabilities, labels)["cross_entropy"]
    assert found == pytest.approx(reference.log_loss(labels, probabilities, labels=range(5)), rel=1e-12)


def test_perfect_predictions_cost_nothing():
    assert classification_metrics(np.eye(3), [0, 1, 2]) == dict.fromkeys(METRICS, 0.0)
    assert math.copysign(1, classification_metrics(np.eye(3), [0, 1, 2])["cross_entropy"]) == 1


def test_a_true_class_of_probability_zero_costs_a_large_finite_loss():
    found = classification_metrics([[1.0, 0.0]], [1])
    assert found == {
        "error": 1.0,
        "macro_f1_error": 1.0,
        "cross_entropy": -math.log(SMALLEST_PROBABILITY),
        "brier": 2.0,
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_probabilities_that_are_not_finite_give_nan_and_no_exception(value):
    found = classification_metrics([[0.5, 0.5], [value, 0.5]], [0, 1])
    assert list(found) == list(METRICS)
    assert all(math.isnan(metric) for metric in found.values())


def test_no_samples_give_nan():
    assert all(math.isnan(metric) for metric in classification_metrics(np.empty((0, 3)), []).values())


def test_of_equally_probable_classes_the_lowest_is_predicted():
    assert classification_metrics([[0.4, 0.4, 0.2]], [0])["error"] == 0
    assert classification_metrics([[0.4, 0.4, 0.2]], [1])["error"] == 1


def test_a_class_neither_labelled_nor_predicted_does_not_enter_the_macro_f1():
    assert classification_metrics([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]], [0, 1])["macro_f1_error"] == 0


def test_one_class_is_always_right():
    assert classification_metrics([[1.0], [1.0]], [0, 0]) == dict.fromkeys(METRICS, 0.0)


def test_the_arguments_are_not_changed():
    probabilities, labels = random_probabilities(2, 20, 3, np.float64)
    kept = probabilities.copy()
    classification_metrics(probabilities, labels)
    np.testing.assert_array_equal(probabilities, kept)


@pytest.mark.parametrize("name", METRICS)
def test_sums_of_many_ensembles_are_the_digits_of_each_alone(name):
    metric = METRICS[name]
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet(np.ones(4), (5, 300))
    labels = rng.integers(0, 4, 300)
    values = probabilities if metric.needs_all_classes else probabilities[:, np.arange(300), labels]
    together = metric.value(metric.sums(values.copy(), labels), 300)
    alone = [metric.value(metric.sums(value.copy(), labels), 300) for value in values]
    np.testing.assert_array_equal(together, alone)
    expected = [classification_metrics(matrix, labels)[name] for matrix in probabilities]
    np.testing.assert_array_equal(together, expected)


def test_chunks_cover_the_samples_in_order_and_their_sums_are_added_in_order():
    assert [range(10)[chunk] for chunk in sample_chunks(10, 4)] == [range(4), range(4, 8), range(8, 10)]
    sums = [np.array([1e16]), np.array([1.0]), np.array([-1e16])]
    assert add_in_order(sums) == 0
    assert add_in_order([sums[0], sums[2], sums[1]]) == 1


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), n_samples=st.integers(1, 60), n_classes=st.integers(1, 5), rounded=st.booleans())
def test_the_calibration_error_is_that_of_its_definition(seed, n_samples, n_classes, rounded):
    probabilities, labels = random_probabilities(seed, n_samples, n_classes, np.float64)
    if rounded:
        probabilities = np.round(probabilities * 15) / 15  # on the edges of the bins
    expected = 0.0
    for low in range(15):
        inside = [row for row in range(n_samples) if low / 15 < probabilities[row].max() <= (low + 1) / 15]
        if inside:
            accuracy = np.mean([probabilities[row].argmax() == labels[row] for row in inside])
            confidence = np.mean([probabilities[row].max() for row in inside])
            expected += len(inside) / n_samples * abs(accuracy - confidence)
    assert calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-12)


def test_the_calibration_error_of_a_coin_that_knows_itself_is_zero():
    assert calibration_error([[0.5, 0.5], [0.5, 0.5]], [0, 1]) == 0
    assert calibration_error([[1.0, 0.0], [1.0, 0.0]], [0, 1]) == 0.5
    assert calibration_error([[0.6, 0.4], [0.9, 0.1]], [0, 0]) == pytest.approx((0.4 + 0.1) / 2)
    assert math.isnan(calibration_error([[np.nan, 0.5]], [0]))
    assert math.isnan(calibration_error(np.empty((0, 3)), []))


def test_the_calibration_error_is_reported_and_cannot_be_selected_by():
    assert set(ALL_METRICS) - set(METRICS) == {"calibration_error"}


def test_the_calibration_error_over_many_chunks_is_that_of_the_whole():
    probabilities, labels = random_probabilities(4, 2 * CHUNK_SAMPLES + 3, 3, np.float64)
    metric = ALL_METRICS["calibration_error"]
    whole = metric.value(metric.sums(probabilities.copy(), labels), len(labels))
    assert calibration_error(probabilities, labels) == pytest.approx(float(whole), abs=1e-14)
    together = metric.value(metric.sums(np.stack([probabilities, probabilities[::-1]]), labels), len(labels))
    assert together[0] == whole and together.shape == (2,)
