"""How each algorithm chooses a trial's hyperparameters. No sampler keeps anything outside the study's storage."""

from __future__ import annotations

from optuna import Study, Trial

from ensembleflow.planning.search_plan import SearchPlan
from ensembleflow.search.samplers.network_limits import NetworkLimits, network_limits
from ensembleflow.search.samplers.slot import SlotSampler
from ensembleflow.search.samplers.whole_point import WholePointSampler
from ensembleflow.search.space import distributions

__all__ = ["NetworkLimits", "SlotSampler", "make_sampler", "network_limits", "redrawn_networks"]


def make_sampler(plan: SearchPlan, limits: NetworkLimits | None = None) -> SlotSampler | WholePointSampler:
    """The sampler of the plan's algorithm, which proposes networks within the limits only."""
    search, seed = plan.search, plan.seed
    if search.algorithm in ("random", "hyperband"):
        return SlotSampler(seed, limits)
    space = distributions(search)
    if search.algorithm == "genetic":
        from ensembleflow.search.samplers.genetic import GeneticSampler

        assert plan.generation_size is not None
        return GeneticSampler(seed, space, plan.generation_size, limits)
    if search.algorithm in ("tpe", "bohb"):
        from ensembleflow.search.samplers.tpe import ParzenSampler

        return ParzenSampler(seed, space, search.n_startup_trials, limits)
    from ensembleflow.search.samplers.smac import GaussianProcessSampler, RandomForestSampler

    sampler = RandomForestSampler if search.algorithm == "smac" else GaussianProcessSampler
    return sampler(seed, space, search.n_startup_trials, limits)


def redrawn_networks(study: Study, trial: Trial) -> list[int]:
    """The multiply-adds of the networks that were proposed for a trial before its own and were beyond the limits."""
    sampler = study.sampler
    assert isinstance(sampler, SlotSampler | WholePointSampler)
    if sampler.limits is None:  # nor is the storage asked
        return []
    return sampler.redrawn(study, study.get_trials(deepcopy=False)[trial.number])
