"""Selection problems for tests, the losses from their definitions, and SMOBF in plain float64 NumPy."""

import math
import os
import signal
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from ensembleflow.models.metrics import SMALLEST_PROBABILITY
from ensembleflow.selection import read_candidates
from ensembleflow.selection.sums.evaluation import Evaluator, ThreadWorkers
from ensembleflow.selection.sums.partition import partitions_of


@st.composite
def problems(draw, distinct=False):
    """Probabilities (models, samples, classes), labels, costs and a budget that at least one model fits."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_models, n_samples = draw(st.integers(1, 6)), draw(st.integers(2, 12))
    n_classes = draw(st.integers(2 if distinct else 1, 4))
    labels = rng.integers(0, n_classes, n_samples)
    probabilities = rng.dirichlet(np.full(n_classes, 0.4), (n_models, n_samples))
    costs = rng.uniform(0.1, 2.0, n_models)
    if not distinct:
        if draw(st.booleans()):
            rounded = np.round(probabilities, 1)  # zero probabilities and equal losses
            rounded /= np.maximum(rounded.sum(axis=2, keepdims=True), 0.1)
            # A model that became constant would be left out, and the budget might fit no other.
            varied = np.ptp(rounded, axis=1).max(axis=1) > 0.01
            probabilities[varied] = rounded[varied]
        if draw(st.booleans()):
            probabilities[-1] = probabilities[0]
        if draw(st.booleans()):
            costs = np.round(costs, 1) + 0.1
    budget = draw(st.one_of(st.none(), st.floats(float(costs.min()), float(costs.sum()) * 1.2)))
    return probabilities, labels, costs, budget


def naive_loss(probabilities, labels, members, loss):
    """The loss of an average, written down from its definition."""
    average = np.mean([probabilities[member] for member in members], axis=0, dtype=np.float64)
    n_samples, n_classes = average.shape
    predicted = [max(range(n_classes), key=lambda k: (row[k], -k)) for row in average]
    if loss == "error":
        return sum(a != b for a, b in zip(predicted, labels, strict=True)) / n_samples
    if loss == "macro_f1_error":
        scores = []
        for k in set(predicted) | set(map(int, labels)):
            hits = sum(a == b == k for a, b in zip(predicted, labels, strict=True))
            scores.append(2 * hits / (predicted.count(k) + list(labels).count(k)))
        return 1 - sum(scores) / len(scores)
    if loss == "brier":
        return (
            sum(np.sum((row - np.eye(n_classes)[k]) ** 2) for row, k in zip(average, labels, strict=True)) / n_samples
        )
    true_class = [max(row[k], SMALLEST_PROBABILITY) for row, k in zip(average, labels, strict=True)]
    return -sum(math.log(value) for value in true_class) / n_samples


def reference_losses(probabilities, labels, members, loss):
    """The losses of the members with each model, in float64, written down a second time."""
    averages = (probabilities[list(members)].sum(axis=0, dtype=np.float64) + probabilities.astype(np.float64)) / (
        len(members) + 1
    )
    return np.array([naive_loss(average[None], labels, [0], loss) for average in averages])


def reference_smobf(probabilities, labels, costs, usable, limit, weight, loss):
    """Equation 2, step by step; scores and losses within 1e-12 of the lowest are equal, then cost and index decide."""
    members, score = [], math.inf
    while True:
        fitting = [m for m in usable if m not in members and math.fsum(costs[[*members, m]]) <= limit]
        if not fitting:
            return members
        losses = reference_losses(probabilities, labels, members, loss)[fitting]
        shares = np.array([math.fsum(costs[[*members, m]]) / limit for m in fitting])
        scores = (1 - weight) * losses + weight * shares
        tied = np.flatnonzero(scores <= scores.min() + 1e-12)
        tied = tied[losses[tied] <= losses[tied].min() + 1e-12]
        best = min(tied, key=lambda place: (costs[fitting[place]], fitting[place]))
        if not scores[best] < score - 1e-12:
            return members
        members, score = [*members, fitting[best]], scores[best]


def sharp(labels, n_classes, p_true):
    """Predictions that give the true class `p_true` (a number or one a sample), the rest evenly."""
    p_true = np.broadcast_to(p_true, len(labels))
    rows = np.repeat(((1 - p_true) / (n_classes - 1))[:, None], n_classes, axis=1)
    rows[np.arange(len(labels)), labels] = p_true
    return rows


def reordered(probabilities, labels, costs, loss, order):
    """Candidates in another order, that of `order`, whose ids are those they had before."""
    candidates = read_candidates(probabilities[order], labels, costs, loss)
    ranks, source = np.array(order, dtype=np.intp), candidates.source
    workers = ThreadWorkers(partitions_of(source, loss, 1))
    evaluator = Evaluator(workers, candidates.metric, candidates.usable, ranks, source.n_samples)
    return replace(candidates, tie_ranks=ranks, evaluator=evaluator)


class DeadlySource:
    """Samples that are too large for any machine, as it were: whoever reads them is killed."""

    n_samples, n_classes, bytes_per_sample = 100, 2, 8

    def read(self, start, stop):
        os.kill(os.getpid(), signal.SIGKILL)

    def part(self, start, stop):
        return self


LABELS = np.array([0, 1, 0, 1])
