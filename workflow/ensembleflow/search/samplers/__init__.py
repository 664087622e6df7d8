"""How each algorithm chooses a trial's hyperparameters. No sampler keeps anything outside the study's storage."""

from __future__ import annotations

from optuna.samplers import BaseSampler

from ensembleflow.planning.search_plan import SearchPlan
from ensembleflow.search.samplers.slot import SlotSampler
from ensembleflow.search.space import distributions

__all__ = ["SlotSampler", "make_sampler"]


def make_sampler(plan: SearchPlan) -> BaseSampler:
    """The sampler of the plan's algorithm."""
    search, seed = plan.search, plan.seed
    if search.algorithm in ("random", "hyperband"):
        return SlotSampler(seed)
    space = distributions(search)
    if search.algorithm == "genetic":
        from ensembleflow.search.samplers.genetic import GeneticSampler

        assert plan.generation_size is not None
        return GeneticSampler(seed, space, plan.generation_size)
    if search.algorithm in ("tpe", "bohb"):
        from ensembleflow.search.samplers.tpe import ParzenSampler

        return ParzenSampler(seed, space, search.n_startup_trials)
    from ensembleflow.search.samplers.smac import GaussianProcessSampler, RandomForestSampler

    sampler = RandomForestSampler if search.algorithm == "smac" else GaussianProcessSampler
    return sampler(seed, space, search.n_startup_trials)
