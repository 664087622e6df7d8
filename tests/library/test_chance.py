"""Networks at chance, told from those that have learned something."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.library.chance import are_at_chance
from ensembleflow.models.metrics import METRICS

NAMES = ("error", "macro_f1_error", "cross_entropy")


def labels_of(*class_sizes: int) -> np.ndarray:
    return np.repeat(np.arange(len(class_sizes), dtype=np.int64), class_sizes)


def judged(probabilities: np.ndarray, labels: np.ndarray) -> bool:
    """Whether what a network predicts is at chance, by the metrics that a trial records."""
    values = []
    for name in NAMES:
        metric = METRICS[name]
        given_to = probabilities if metric.needs_all_classes else probabilities[np.arange(len(labels)), labels]
        values.append([float(metric.value(metric.sums(given_to, labels), len(labels)))])
    (at_chance,) = are_at_chance(*values, labels)
    return bool(at_chance)


def surely(classes: np.ndarray, n_classes: int, sureness: float) -> np.ndarray:
    """Answers of these classes, each with this probability, the others sharing the rest."""
    rest = (1 - sureness) / (n_classes - 1)
    return np.where(np.eye(n_classes, dtype=bool)[classes], sureness, rest)


class_sizes = st.lists(st.integers(1, 60), min_size=2, max_size=12)


@given(class_sizes, st.data())
def test_a_constant_answer_is_at_chance_whatever_it_is(sizes: list[int], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.001, 1), min_size=len(sizes), max_size=len(sizes)))
    answer = np.array(weights) / sum(weights)
    labels = labels_of(*sizes)
    assert judged(np.tile(answer, (len(labels), 1)), labels)


@given(class_sizes)
def test_the_classes_shares_in_single_precision_are_at_chance(sizes: list[int]) -> None:
    labels, shares = labels_of(*sizes), np.array(sizes, dtype=np.float32) / np.float32(sum(sizes))
    cross_entropy = float(-np.log(shares)[labels].mean(dtype=np.float32))
    assert are_at_chance([1 - max(sizes) / sum(sizes)], [1.0], [cross_entropy], labels).all()


@given(class_sizes)
def test_a_network_that_is_right_has_learned_however_few_images_there_are(sizes: list[int]) -> None:
    labels = labels_of(*sizes)
    assert not judged(surely(labels, len(sizes), 0.99), labels)


@pytest.mark.parametrize("sizes", [(50, 50), (20,) * 30, (300, 10, 10), (400, 60, 30, 5, 5)])
def test_random_answers_pass_no_more_often_than_stated(sizes: tuple[int, ...]) -> None:
    labels, rng, n_passed = labels_of(*sizes), np.random.default_rng(0), 0
    for _ in range(1000):
        n_passed += not judged(surely(rng.permutation(labels), len(sizes), 0.9), labels)
    assert n_passed <= 45  # two tests at 1 %, and luck


LEARNED = {
    "an unbalanced problem, right no oftener than the largest class, but likelier": (
        *(labels_of(95, 5), 0.05, 0.52, 0.12),
    ),
    "trained with class weights: wrong oftener and less likely, but both classes are told": (
        *(labels_of(900, 100), 0.15, 0.28, 0.40),
    ),
    "right oftener than luck, but far too sure": (labels_of(*[50] * 10), 0.6, 0.6, 6.0),
    "few images: right about most, and likely": (labels_of(4, 4, 4), 0.4, 0.4, 0.9),
    "an error alone": (labels_of(*[50] * 10), 0.5, np.nan, np.nan),
}
AT_CHANCE = {
    "the largest class": (labels_of(95, 5), 0.05, 0.513, 0.2),
    "a little luck": (labels_of(*[50] * 10), 0.88, 0.88, 2.31),
    "few images: what looks good is luck": (labels_of(5, 5), 0.2, 0.2, 0.8),
    "thirty classes at the first epoch": (labels_of(*[12] * 30), 0.97, 0.99, 3.45),
    "nothing but an error as of chance": (labels_of(*[50] * 10), 0.9, np.nan, np.nan),
}
CASES = [(case, False) for case in LEARNED.items()] + [(case, True) for case in AT_CHANCE.items()]


@pytest.mark.parametrize(("case", "expected"), CASES, ids=[name for (name, _), _ in CASES])
def test_every_metric_speaks_for_a_network(case: tuple, expected: bool) -> None:
    labels, *values = case[1]
    assert are_at_chance(*([value] for value in values), labels).tolist() == [expected]


def test_nothing_is_told_without_an_error_or_of_one_class() -> None:
    assert not are_at_chance([np.nan], [np.nan], [np.nan], labels_of(5, 5)).any()
    assert not are_at_chance([0.0, 1.0], [0.0, 1.0], [0.1, 9.0], labels_of(8)).any()
