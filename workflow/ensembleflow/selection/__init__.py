"""From cached predictions and costs to the best ensemble within each budget."""

from ensembleflow.selection.candidates import CachedPredictions
from ensembleflow.selection.greedy import ForwardResult, Run, SmobfResult, Step, forward_greedy, smobf
from ensembleflow.selection.pareto import pareto_front
from ensembleflow.selection.tables import collect_ensembles, select_ensemble

__all__ = [
    "CachedPredictions",
    "ForwardResult",
    "Run",
    "SmobfResult",
    "Step",
    "collect_ensembles",
    "forward_greedy",
    "pareto_front",
    "select_ensemble",
    "smobf",
]
