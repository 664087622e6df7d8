"""The trials of a planned search: the recorded ones, continued and drawn again where more are asked for."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median

from ensembleflow.search.simulation.recording import RecordedTrial, Recording

__all__ = ["PlannedTrial", "TrialSource"]

# Clones of one trial would tie at every rung and all be promoted; real trials differ.
_RELATIVE_NOISE = 1e-6


@dataclass(frozen=True)
class PlannedTrial:
    """One slot's trial: what it takes as long as nothing stops it.

    Attributes:
        before_seconds: until its first epoch.
        epoch_seconds: of each epoch that it may have; one that fails has fewer than the others.
        values: the metric after each epoch, times `factor`.
        factor: see `values`.
        after_seconds: after its last epoch.
    """

    before_seconds: float
    epoch_seconds: tuple[float, ...]
    values: tuple[float, ...]
    factor: float
    after_seconds: float


class TrialSource:
    """Gives each slot of a planned search its trial.

    Slot i of the recording is slot i of the plan. Slots beyond take a recorded trial, drawn with replacement.
    A trial that was stopped early is continued: each further epoch takes the mean time of its epochs after the
    first (where it has only one: that one's time by the population's median ratio of first to later epochs), and
    multiplies its metric by the population's median ratio between these two epochs; beyond the last epoch that
    two trials reached, the metric stays.

    Args:
        recording: at least one trial.
        max_epochs: epochs of a trial that is never stopped.
        seed: of the draws.
        time_factor: the planned devices' time for a trial, by that of the recorded ones.
    """

    def __init__(self, recording: Recording, max_epochs: int, seed: int = 0, time_factor: float = 1.0) -> None:
        self._max_epochs = max_epochs
        self._time_factor = time_factor
        self._seed = seed
        self.n_recorded = len(recording.trials)
        self._first_ratio = _first_epoch_ratio(recording.trials)
        self._ratios = _curve_ratios(recording.trials, max_epochs)
        self._recorded = {trial.slot: self._continue(trial) for trial in recording.trials}
        self._pool = list(self._recorded.values())

    def trial(self, slot: int) -> PlannedTrial:
        """The trial of one slot, the same each time."""
        if slot in self._recorded:
            return self._recorded[slot]
        draw = random.Random(f"{self._seed} {slot}")
        chosen = draw.choice(self._pool)
        return PlannedTrial(
            chosen.before_seconds,
            chosen.epoch_seconds,
            chosen.values,
            1.0 + _RELATIVE_NOISE * draw.uniform(-1.0, 1.0),
            chosen.after_seconds,
        )

    def _continue(self, trial: RecordedTrial) -> PlannedTrial:
        seconds, values = list(trial.epoch_seconds[: self._max_epochs]), list(trial.values[: self._max_epochs])
        fails = trial.failed and len(trial.epoch_seconds) <= self._max_epochs
        if seconds and not fails:
            later = fmean(seconds[1:]) if len(seconds) > 1 else seconds[0] / self._first_ratio
            for epoch in range(len(seconds), self._max_epochs):
                seconds.append(later)
                values.append(values[-1] * self._ratios[epoch - 1])
        factor = self._time_factor
        scaled = tuple(factor * each for each in seconds)
        return PlannedTrial(factor * trial.before_seconds, scaled, tuple(values), 1.0, factor * trial.after_seconds)


def _first_epoch_ratio(trials: Iterable[RecordedTrial]) -> float:
    """How much longer than the later ones a first epoch takes, in the median."""
    ratios = [
        trial.epoch_seconds[0] / later
        for trial in trials
        if len(trial.epoch_seconds) > 1 and (later := fmean(trial.epoch_seconds[1:])) > 0
    ]
    ratio = median(ratios) if ratios else 1.0
    return ratio if ratio > 0 else 1.0


def _curve_ratios(trials: Iterable[RecordedTrial], max_epochs: int) -> list[float]:
    """Per epoch the median ratio of the next epoch's metric to its own; 1 where fewer than two trials have both."""
    trials = list(trials)
    ratios = []
    for epoch in range(max_epochs - 1):
        known = [
            trial.values[epoch + 1] / trial.values[epoch]
            for trial in trials
            if len(trial.values) > epoch + 1 and trial.values[epoch] > 0 and math.isfinite(trial.values[epoch + 1])
        ]
        ratios.append(median(known) if len(known) > 1 else 1.0)
    return ratios
