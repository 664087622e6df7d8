"""How many trials and epochs, and what follows from them: jobs, the library, budgets, benches, resources."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ensembleflow.config import Config, n_kept
from ensembleflow.errors import ConfigError
from ensembleflow.first_config.choices import Choice, Dataset, config_of
from ensembleflow.first_config.expected_time import ExpectedTime, expected_time
from ensembleflow.first_config.fingerprint import Fingerprint
from ensembleflow.first_config.machine import Machine
from ensembleflow.first_config.network_times import NetworkTimes
from ensembleflow.search.remaining import readable_duration

__all__ = ["LEAST_TRIALS", "FirstConfig", "choose_length", "fit_length"]

LEAST_TRIALS = 8
"""Fewer leave nothing to choose from."""

_MOST_TRIALS = 1000
_TRIALS = 24
_CLUSTER_TRIALS = (48, 400)
_TRIALS_A_CLUSTER_JOB = 4
_UPDATES, _UPDATES_A_CLASS, _BATCH = 3000, 100, 36
_EPOCH_STEP, _MOST_EPOCHS = 9, 54
_MANY_CLASSES = 50
_KEPT = 5
_WORTHWHILE_JOB_SECONDS = 60.0
_REPEAT_SECONDS = 2.0
_COST_IMAGES = (2000, 1000, 500, 200, 100)


@dataclass(frozen=True)
class FirstConfig:
    """A whole config with its reasons.

    Attributes:
        choices: all keys that it sets.
        config: what they make.
        expected: how long it takes; None where nothing was measured.
    """

    choices: tuple[Choice, ...]
    config: Config
    expected: ExpectedTime | None


@dataclass(frozen=True)
class _Case:
    fingerprint: Fingerprint
    dataset: Dataset
    space: Sequence[Choice]
    machine: Machine
    times: NetworkTimes | None

    @property
    def n_classes(self) -> int:
        return len(self.fingerprint.class_counts)


def choose_length(
    fingerprint: Fingerprint, dataset: Dataset, space: Sequence[Choice], machine: Machine, times: NetworkTimes | None
) -> FirstConfig:
    """A whole config whose trials and epochs follow from the images and the machine.

    Args:
        fingerprint: what was found.
        dataset: of `choose_dataset`.
        space: of `choose_space`.
        machine: where it is to run.
        times: of networks of the space; without, no time is told.
    """
    case = _Case(fingerprint, dataset, space, machine, times)
    if machine.cluster:
        n_trials = int(min(max(_TRIALS_A_CLUSTER_JOB * machine.jobs, _CLUSTER_TRIALS[0]), _CLUSTER_TRIALS[1]))
        reason = f"{_TRIALS_A_CLUSTER_JOB} for each of {machine.jobs} jobs at once, 48 at least and 400 at most"
    else:
        n_trials, reason = _TRIALS, "the networks to train; can be raised later, which keeps the finished ones"
    return _planned(case, n_trials, _epochs(case), reason)


def fit_length(
    fingerprint: Fingerprint,
    dataset: Dataset,
    space: Sequence[Choice],
    machine: Machine,
    times: NetworkTimes,
    hours: float,
) -> FirstConfig:
    """A whole config that is expected to take at most so many hours.

    Epochs are those that the images want, and as many trials as fit, 8 at least and 1,000 at most; where 8 do not fit,
    epochs are lowered by 9 until they do.

    Args:
        fingerprint: what was found.
        dataset: of `choose_dataset`.
        space: of `choose_space`.
        machine: where it is to run.
        times: of networks of the space.
        hours: of the whole run.

    Raises:
        ConfigError: not even 8 trials of 9 epochs fit.
    """
    case = _Case(fingerprint, dataset, space, machine, times)
    reason = f"as many as are expected to fit into {hours:g} hours"

    def planned(n_trials: int, epochs: int) -> FirstConfig:
        return _planned(case, n_trials, epochs, reason)

    def seconds(first: FirstConfig) -> float:
        assert first.expected is not None
        return first.expected.seconds

    for epochs in range(_epochs(case), 0, -_EPOCH_STEP):
        best = planned(LEAST_TRIALS, epochs)
        if seconds(best) > 3600 * hours:
            continue
        low, high = LEAST_TRIALS, _MOST_TRIALS + 1
        while high - low > 1:
            middle = (low + high) // 2
            tried = planned(middle, epochs)
            if seconds(tried) <= 3600 * hours:
                low, best = middle, tried
            else:
                high = middle
        return best
    needed = math.ceil(seconds(best) / 36) / 100
    raise ConfigError(
        "the hours are too few for the smallest search",
        where="--hours",
        found=f"{hours:g}",
        expected=f"{needed:.2f} or more: {LEAST_TRIALS} trials of {_EPOCH_STEP} epochs take "
        f"{readable_duration(seconds(best))} on {machine.name}",
        hint=f"give more hours, a smaller --image-size than {fingerprint.image_size}, or "
        + ("more --jobs" if machine.cluster else "a cluster (--cluster slurm)"),
    )


def _epochs(case: _Case) -> int:
    """Some 3,000 updates, 100 a class where there are many; a multiple of 9, for Hyperband's rungs."""
    updates = max(_UPDATES, _UPDATES_A_CLASS * case.n_classes)
    epochs = updates * _BATCH / case.dataset.n_train
    return min(_MOST_EPOCHS, max(_EPOCH_STEP, math.ceil(epochs / _EPOCH_STEP) * _EPOCH_STEP))


def _planned(case: _Case, n_trials: int, max_epochs: int, why_trials: str) -> FirstConfig:
    updates = case.dataset.n_train * max_epochs / _BATCH
    many = case.n_classes >= _MANY_CLASSES
    min_epochs = max_epochs // 3 if many else max_epochs // 9
    why_min = "the first look at which Hyperband may stop a trial"
    why_min += ", late: with many classes networks are at chance for long" if many else ", a ninth of the longest"
    epochs = [
        Choice("search.max_epochs", max_epochs, f"some {updates:,.0f} updates of the weights for a trial that is kept"),
        Choice("search.min_epochs", min_epochs, why_min),
    ]
    trials = Choice("search.n_trials", n_trials, why_trials)
    after = [*_library(case, n_trials), *_allocation(case)]
    common = [*case.dataset.choices, trials, *epochs, *case.space, *after]

    def expected(per_job: int) -> tuple[list[Choice], Config, ExpectedTime | None]:
        choices = [*common, Choice("search.trials_per_job", per_job, ""), *_resources(case, None)]
        config = config_of(choices)
        if case.times is None:
            return choices, config, None
        return choices, config, expected_time(config, case.dataset, case.n_classes, case.times, case.machine)

    most = max(1, n_trials // (2 * case.machine.jobs))
    alone = expected(1)[2]
    if alone is None:
        per_job = 1 if case.machine.cluster else min(4, most)
        why = "a trial a job" if per_job == 1 else "so that jobs are not mostly TensorFlow's start"
    else:
        wanted = math.ceil(_WORTHWHILE_JOB_SECONDS / max(alone.mean_trial_seconds, 0.01))
        per_job = min(most, wanted)
        why = (
            f"a trial takes about {readable_duration(alone.mean_trial_seconds)} on average, and a job's start some 10 s"
        )
    job = Choice("search.trials_per_job", per_job, why)
    time = expected(per_job)[2]
    choices = [*case.dataset.choices, trials, job, *epochs, *case.space, *after]
    choices += _resources(case, None if time is None else time.longest_trial_seconds * per_job)
    return FirstConfig(tuple(choices), config_of(choices), time)


def _library(case: _Case, n_trials: int) -> list[Choice]:
    choices, keep = [], 0.2
    if n_kept(n_trials, keep) < _KEPT:
        keep = min(1.0, math.ceil(10 * _KEPT / n_trials) / 10)
        choices.append(Choice("library.keep_fraction", keep, "of few trials the better ones, five or six networks"))
    if case.machine.gpus and not case.machine.cluster:
        choices.append(Choice("library.cost.device", "gpu", "costs are those of the device that will predict"))
    if (n_images := _cost_images(case)) < _COST_IMAGES[0]:
        reason = "a repeat then takes some two seconds; budgets in seconds are for so many images, too"
        choices.append(Choice("library.cost.n_images", n_images, reason))
    if n_kept(n_trials, keep) < 2 * _KEPT:
        reason = "multiples of the median network's cost: more buys nothing of so few networks"
        choices.append(Choice("selection.budgets", ["1x", "2x", "4x"], reason))
    return choices


def _cost_images(case: _Case) -> int:
    """The most of 2,000, 1,000, 500, 200 and 100 images that a middling network predicts within two seconds."""
    if case.times is None:
        return _COST_IMAGES[0]
    middle = case.times.networks[len(case.times.networks) // 2].predict_seconds
    return next((n for n in _COST_IMAGES if n * middle <= _REPEAT_SECONDS), _COST_IMAGES[-1])


def _allocation(case: _Case) -> list[Choice]:
    choices, devices = [], case.machine.devices
    if devices:
        written = [each.model_dump(exclude_none=True, exclude_defaults=True) for each in devices]
        choices += [
            Choice("allocation.devices", written, f"{case.machine.name}; `ensembleflow devices` prints them anew"),
            Choice("allocation.device_counts", [len(devices)], "ensembles are placed on all of them"),
        ]
    if (n_images := _cost_images(case)) < _COST_IMAGES[0]:
        choices.append(Choice("allocation.bench_images", n_images, "as for the costs: a bench takes seconds"))
    return choices


def _resources(case: _Case, job_seconds: float | None) -> list[Choice]:
    machine, choices = case.machine, []
    if machine.gpus:
        choices.append(Choice("resources.search.gpus", 1, "each search job trains on a GPU"))
        choices.append(Choice("resources.search.threads", machine.threads, "cores that prepare its images"))
    if machine.cluster:
        mem_mb = 16000 if machine.gpus else 4000
        choices.append(Choice("resources.search.mem_mb", mem_mb, "MB a job; the images are mapped, not loaded"))
        if job_seconds is None:
            minutes, why = 240, "not measured: a job that ends at its limit goes on in the next one"
        else:
            minutes = max(60, math.ceil(2 * job_seconds / 3600) * 60)
            why = f"twice what the slowest networks take, never stopped: {readable_duration(job_seconds)}"
        choices.append(Choice("resources.search.runtime_minutes", minutes, why))
    elif machine.devices:
        n_cores = sum(each.cores for each in machine.devices)
        choices.append(Choice("resources.allocation.threads", n_cores, "the cores of all devices"))
    return choices
