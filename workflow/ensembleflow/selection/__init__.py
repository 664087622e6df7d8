"""From cached predictions and costs to the best ensemble within each budget."""

from ensembleflow.selection.candidates import Candidates, read_candidates
from ensembleflow.selection.cluster import selection_workers
from ensembleflow.selection.greedy import Run, Step
from ensembleflow.selection.pareto import pareto_front
from ensembleflow.selection.smobf import ForwardResult, SmobfResult, forward_greedy, smobf, smobf_budgets
from ensembleflow.selection.stage import select_ensemble, select_for_budget
from ensembleflow.selection.tables import collect_ensembles

__all__ = [
    "Candidates",
    "ForwardResult",
    "Run",
    "SmobfResult",
    "Step",
    "collect_ensembles",
    "forward_greedy",
    "pareto_front",
    "read_candidates",
    "select_ensemble",
    "select_for_budget",
    "selection_workers",
    "smobf",
    "smobf_budgets",
]
