"""From cached predictions and costs to the best ensemble within each budget."""

from typing import TYPE_CHECKING

from ensembleflow.lazy_names import lazy_names
from ensembleflow.selection.arrays import forward_greedy, smobf
from ensembleflow.selection.candidates import Candidates, open_candidates, read_candidates
from ensembleflow.selection.cascade_stage import select_cascade
from ensembleflow.selection.greedy import BestOnPath, SelectedEnsemble, Step
from ensembleflow.selection.local_search import local_search
from ensembleflow.selection.pareto import pareto_front
from ensembleflow.selection.smobf import SmobfResult, forward_greedy_path, smobf_budgets
from ensembleflow.selection.stage import select_ensemble, select_for_budget
from ensembleflow.selection.sums.cluster import selection_workers
from ensembleflow.selection.tables import collect_ensembles

if TYPE_CHECKING:
    from ensembleflow.selection.rivals.certificate import Certificate, certify
    from ensembleflow.selection.rivals.comparison import compare_methods
    from ensembleflow.selection.rivals.methods import best_single, greedy_with_replacement, top_k, weight_sweep
    from ensembleflow.selection.rivals.pruning_study import pruning_study, write_pruning_study

__all__ = [
    "BestOnPath",
    "Candidates",
    "Certificate",
    "SelectedEnsemble",
    "SmobfResult",
    "Step",
    "best_single",
    "certify",
    "collect_ensembles",
    "compare_methods",
    "forward_greedy",
    "forward_greedy_path",
    "greedy_with_replacement",
    "local_search",
    "open_candidates",
    "pareto_front",
    "pruning_study",
    "read_candidates",
    "select_cascade",
    "select_ensemble",
    "select_for_budget",
    "selection_workers",
    "smobf",
    "smobf_budgets",
    "top_k",
    "weight_sweep",
    "write_pruning_study",
]

# What SMOBF is compared with is loaded by who compares.
__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("Certificate", "certify"), "rivals.certificate"),
        **dict.fromkeys(("best_single", "greedy_with_replacement", "top_k", "weight_sweep"), "rivals.methods"),
        **dict.fromkeys(("pruning_study", "write_pruning_study"), "rivals.pruning_study"),
        "compare_methods": "rivals.comparison",
    },
)
