"""Placing an ensemble's members on devices, and the search for a fast placement, by benches real or simulated."""

from ensembleflow.allocation.allocate import allocate_ensemble, log_tuning
from ensembleflow.allocation.allocation_file import read_allocation, search_table
from ensembleflow.allocation.benches.measured import MeasuredBench
from ensembleflow.allocation.benches.profile import Profile, profile_members, profiles_from_table, profiles_table
from ensembleflow.allocation.benches.profile_table import ProfileTable
from ensembleflow.allocation.benches.score import Score
from ensembleflow.allocation.benches.simulated import Calibration, SimulatedBench
from ensembleflow.allocation.calibrate import calibrate, compare_benches
from ensembleflow.allocation.hill_climb import Refinement, ScoredState, refine
from ensembleflow.allocation.neighbours import Neighbourhood
from ensembleflow.allocation.refine_allocation import refine_allocation
from ensembleflow.allocation.tune import Ensemble, Tuning, tune_allocation
from ensembleflow.allocation.worst_fit import carry_over, worst_fit

__all__ = [
    "Calibration",
    "Ensemble",
    "MeasuredBench",
    "Neighbourhood",
    "Profile",
    "ProfileTable",
    "Refinement",
    "Score",
    "ScoredState",
    "SimulatedBench",
    "Tuning",
    "allocate_ensemble",
    "calibrate",
    "carry_over",
    "compare_benches",
    "log_tuning",
    "profile_members",
    "profiles_from_table",
    "profiles_table",
    "read_allocation",
    "refine",
    "refine_allocation",
    "search_table",
    "tune_allocation",
    "worst_fit",
]
