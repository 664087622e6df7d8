"""How long a search takes, and what comes after it, from measured networks and the plan's simulation."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean

import optuna

from ensembleflow.config import Config, SearchConfig, n_kept
from ensembleflow.first_config.choices import Dataset
from ensembleflow.first_config.machine import Machine
from ensembleflow.first_config.network_times import NetworkTimes
from ensembleflow.models.batch_statistics import RECOMPUTED_FROM_IMAGES
from ensembleflow.models.hyperparameters import Hyperparameters
from ensembleflow.models.network_size import network_size
from ensembleflow.search.simulation import Limits, Recording, TrialSource, assume_recording, simulate
from ensembleflow.search.space import distributions, hyperparameters_of

__all__ = ["ExpectedTime", "expected_time", "seconds_of_networks"]

_DRAWN_NETWORKS = 200
# Of few trials it is a matter of luck how many are stopped early: the mean is told.
_SIMULATIONS = 5
# On one's own machine: Snakemake starts a script, which imports the package; the journal lies on a local disk.
_LOCAL_LIMITS = Limits(launch_seconds=3.0, storage_seconds=0.0003)
# The other rules' starts and what is done but once: preparing, the baseline, tables, figures, the page.
_OTHER_STAGES_SECONDS = 180.0
_COST_PASSES = 3


@dataclass(frozen=True)
class ExpectedTime:
    """What a run is expected to take, seconds.

    Attributes:
        search_seconds: from the first job's start to the last trial's end.
        after_seconds: measured costs, the search for allocations and all other stages, roughly.
        longest_trial_seconds: of the slowest network that was drawn, trained for all epochs.
        mean_trial_seconds: over the trials, most of them stopped early.
        epochs: trained in all.
        stopped: trials that are stopped early.
    """

    search_seconds: float
    after_seconds: float
    longest_trial_seconds: float
    mean_trial_seconds: float
    epochs: int
    stopped: int

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.search_seconds + self.after_seconds


@dataclass(frozen=True)
class _Networks:
    """Networks drawn from the space: seconds of an epoch, and of what comes before the first; of one prediction."""

    epoch_seconds: tuple[float, ...]
    build_seconds: tuple[float, ...]
    predict_seconds: float


def expected_time(
    config: Config, dataset: Dataset, n_classes: int, times: NetworkTimes, machine: Machine
) -> ExpectedTime:
    """Simulate a config's search on a machine's jobs, and add up what comes after.

    Networks are drawn from the space as the search draws them; each one's times are those of the measured networks,
    linear in its multiply-adds. Their errors are those of `assume_recording`. Hyperband stops them as Optuna's does.
    Told is the mean of five such draws.

    Args:
        config: the whole config.
        dataset: the images of each part.
        n_classes: of the data.
        times: measured.
        machine: whose jobs run side by side.
    """
    search = config.search
    assert config.dataset.image_size is not None
    networks = seconds_of_networks(search, dataset, config.dataset.image_size, n_classes, times)
    limits = Limits() if machine.cluster else replace(_LOCAL_LIMITS, start_seconds=times.start_seconds)
    simulations = [
        simulate(
            search,
            TrialSource(_recording(networks, search.max_epochs, times.start_seconds, seed), search.max_epochs),
            machine.jobs,
            limits,
            study_name=config.study,
        )
        for seed in range(_SIMULATIONS)
    ]
    longest = max(
        build + search.max_epochs * epoch
        for build, epoch in zip(networks.build_seconds, networks.epoch_seconds, strict=True)
    )
    return ExpectedTime(
        search_seconds=fmean(each.duration_seconds for each in simulations),
        after_seconds=_after(config, networks.predict_seconds),
        longest_trial_seconds=longest,
        mean_trial_seconds=fmean(each.trial_seconds for each in simulations) / search.n_trials,
        epochs=round(fmean(sum(each.epochs) for each in simulations)),
        stopped=round(fmean(len(each.stopped) for each in simulations)),
    )


def seconds_of_networks(
    search: SearchConfig, dataset: Dataset, image_size: int, n_classes: int, times: NetworkTimes
) -> _Networks:
    """Times of networks that are drawn from the space, uniformly as Hyperband's are."""
    space = search.model_dump_json(include={"family", "space", "schedule"})
    sizes = _drawn_sizes(space, image_size, n_classes)
    n_statistics = min(RECOMPUTED_FROM_IMAGES, dataset.n_train)
    epochs = [
        dataset.n_train * times.of("train_seconds", size)
        + n_statistics * times.of("statistics_seconds", size)
        + dataset.n_valid * times.of("predict_seconds", size)
        for size in sizes
    ]
    predictions = [times.of("predict_seconds", size) for size in sizes]
    builds = [times.of("build_seconds", size) for size in sizes]
    return _Networks(tuple(epochs), tuple(builds), sum(predictions) / len(predictions))


@cache
def _drawn_sizes(space: str, image_size: int, n_classes: int) -> tuple[int, ...]:
    """Multiply-adds; `space` is the part of `search` that they depend on, as JSON."""
    config = SearchConfig.model_validate_json(space)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    sizes = []
    for _ in range(_DRAWN_NETWORKS):
        point = hyperparameters_of(study.ask(distributions(config)).params, config)
        assert isinstance(point, Hyperparameters)
        sizes.append(network_size(point, (image_size, image_size, 3), n_classes).multiply_adds)
    return tuple(sizes)


def _recording(networks: _Networks, max_epochs: int, start_seconds: float, seed: int) -> Recording:
    """The networks as trials, in an order and with errors that are drawn by the seed."""
    assumed = assume_recording(1.0, 0.0, max_epochs, start_seconds, n_trials=len(networks.epoch_seconds), seed=seed)
    times = list(zip(networks.build_seconds, networks.epoch_seconds, strict=True))
    random.Random(seed).shuffle(times)
    trials = [
        replace(trial, before_seconds=build, epoch_seconds=(epoch,) * max_epochs)
        for trial, (build, epoch) in zip(assumed.trials, times, strict=True)
    ]
    return replace(assumed, trials=tuple(trials))


def _after(config: Config, predict_seconds: float) -> float:
    """Costs are measured one network after the other; ensembles are taken to fill half their budget, a multiple."""
    cost, allocation = config.library.cost, config.allocation
    kept = n_kept(config.search.n_trials, config.library.keep_fraction)
    costs = kept * predict_seconds * cost.n_images * (cost.repeats + _COST_PASSES * cost.warmup_repeats)
    members = sum(min(kept, max(1.0, float(budget.removesuffix("x")) / 2)) for budget in config.selection.budgets)
    an_image = predict_seconds * members / max(1, len(allocation.devices))
    benches = allocation.max_benches * (allocation.bench_repeats + 1) * allocation.bench_images * an_image
    return _OTHER_STAGES_SECONDS + costs + benches
