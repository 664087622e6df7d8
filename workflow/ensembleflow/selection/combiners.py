"""Ways to make one prediction of the members', a chunk of samples at a time: no matrix of all samples is ever held.

Each gives chunks of class probabilities, float64 (samples, classes), in the order of `sample_chunks`, for
`metrics_of_chunks` to take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.models.metrics import sample_chunks
from ensembleflow.selection.candidates import Candidates
from ensembleflow.selection.methods import greedy_with_replacement

__all__ = ["average", "majority_vote", "multiplicities", "weighted_average"]

FloatArray = npt.NDArray[np.float64]


def average(probabilities: npt.NDArray[Any], members: Sequence[int]) -> Iterator[FloatArray]:
    """The mean of the members' probabilities: what an ensemble is everywhere else.

    Args:
        probabilities: (models, samples, classes), or the true class's (models, samples); may be a map of a file.
        members: indices of models, each once.
    """
    return weighted_average(probabilities, dict.fromkeys(members, 1))


def weighted_average(probabilities: npt.NDArray[Any], weights: Mapping[int, int]) -> Iterator[FloatArray]:
    """The mean of the members' probabilities, each counted as often as it was added.

    Args:
        probabilities: (models, samples, classes), or the true class's (models, samples); may be a map of a file.
        weights: how often each member counts, by index; added in this order.
    """
    for chunk in sample_chunks(probabilities.shape[1]):
        total = np.zeros(probabilities[0, chunk].shape)
        for member, weight in weights.items():
            total += weight * probabilities[member, chunk].astype(np.float64)
        yield total / sum(weights.values())


def majority_vote(probabilities: npt.NDArray[Any], members: Sequence[int]) -> Iterator[FloatArray]:
    """The shares of the members' votes; a member votes for its most probable class, the lowest of equal ones.

    Of classes with equally many votes the one of the higher mean probability wins, then the lower class. The winner's
    share is raised by the least that a float64 can be, so that it alone is the highest. Shares are no calibrated
    probabilities: a true class without a vote costs the cross-entropy what a probability of 0 does.

    Args:
        probabilities: (models, samples, classes); may be a map of a file.
        members: indices of models, each once.
    """
    for chunk in sample_chunks(probabilities.shape[1]):
        total = np.zeros(probabilities[0, chunk].shape)
        votes = np.zeros(total.shape)
        samples = np.arange(len(total))
        for member in members:
            values = probabilities[member, chunk].astype(np.float64)
            total += values
            votes[samples, values.argmax(axis=1)] += 1
        winners = np.where(votes == votes.max(axis=1, keepdims=True), total, -np.inf).argmax(axis=1)
        shares = votes / len(members)
        shares[samples, winners] = np.nextafter(shares[samples, winners], np.inf)
        shares[~np.isfinite(total).all(axis=1)] = np.nan
        yield shares


def multiplicities(candidates: Candidates, members: Sequence[int], n_steps: int = 100) -> dict[int, int]:
    """How often greedy selection with replacement, among the members alone, adds each: by index, in their order.

    A member that it never adds is left out: its weight is 0.

    Args:
        candidates: gives the validation losses that the weights are fitted to.
        members: indices of usable models.
        n_steps: as for `greedy_with_replacement`.
    """
    added = Counter(greedy_with_replacement(candidates, n_steps=n_steps, among=members).members)
    return {member: added[member] for member in members if added[member]}
