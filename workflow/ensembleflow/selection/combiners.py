"""Ways to make one prediction of the members', a chunk of samples at a time: no matrix of all samples is ever held."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["COMBINERS", "MajorityVote", "WeightedAverage"]

FloatArray = npt.NDArray[np.float64]


class WeightedAverage:
    """The mean of the members' probabilities, each counted as often as it was added.

    With every member added once it is what an ensemble is everywhere else.

    Args:
        shape: of one member's probabilities: (samples, classes), or (samples,) for the true class's.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._total = np.zeros(shape)
        self._n_added = 0

    def add(self, values: FloatArray, times: int = 1) -> None:
        """Add a member's probabilities, float64."""
        self._total += values if times == 1 else times * values
        self._n_added += times

    def probabilities(self) -> FloatArray:
        """The prediction of all members that were added so far, in an array of its own."""
        return self._total / self._n_added


class MajorityVote(WeightedAverage):
    """The shares of the members' votes; a member votes for its most probable class, the lowest of equal ones.

    Of classes with equally many votes the one of the higher mean probability wins, then the lower class. The winner's
    share is raised by the least that a float64 can be, so that it alone is the highest. Shares are no calibrated
    probabilities: a true class without a vote costs the cross-entropy what a probability of 0 does.

    Args:
        shape: (samples, classes).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self._votes = np.zeros(shape)
        self._samples = np.arange(shape[0])

    def add(self, values: FloatArray, times: int = 1) -> None:
        """Add a member's probabilities and its votes."""
        super().add(values, times)
        self._votes[self._samples, values.argmax(axis=1)] += times

    def probabilities(self) -> FloatArray:
        """The shares (samples, classes); NaN where a member's probability is not finite."""
        most = self._votes == self._votes.max(axis=1, keepdims=True)
        winners = np.where(most, self._total, -np.inf).argmax(axis=1)
        shares = self._votes / self._n_added
        shares[self._samples, winners] = np.nextafter(shares[self._samples, winners], np.inf)
        shares[~np.isfinite(self._total).all(axis=1)] = np.nan
        return shares


COMBINERS = {"average": WeightedAverage, "weighted_average": WeightedAverage, "majority_vote": MajorityVote}
"""By name; an average is one whose members all count once."""
