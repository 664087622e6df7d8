"""How good an allocation is: the members' profiles, benches that run it, benches that simulate it, and their scores."""

from ensembleflow.allocation.benches.measured import MeasuredBench
from ensembleflow.allocation.benches.profile import Profile, profile_members, profiles_from_table, profiles_table
from ensembleflow.allocation.benches.profile_table import ProfileTable
from ensembleflow.allocation.benches.score import Score
from ensembleflow.allocation.benches.simulated import Calibration, SimulatedBench

__all__ = [
    "Calibration",
    "MeasuredBench",
    "Profile",
    "ProfileTable",
    "Score",
    "SimulatedBench",
    "profile_members",
    "profiles_from_table",
    "profiles_table",
]
