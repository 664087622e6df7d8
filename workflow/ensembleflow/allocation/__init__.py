"""Placing an ensemble's members on devices, and the pipeline that runs them there."""

from ensembleflow.allocation.allocate import allocate_ensemble, tell_tuning
from ensembleflow.allocation.allocation_file import read_allocation, read_devices, search_table
from ensembleflow.allocation.bench import MeasuredBench
from ensembleflow.allocation.calibrate import Comparison, calibrate, compare_benches
from ensembleflow.allocation.devices import Device, assign_cores
from ensembleflow.allocation.dispatcher import Dispatcher
from ensembleflow.allocation.fork_server import ForkServer
from ensembleflow.allocation.listener import Listener
from ensembleflow.allocation.machine import detect_devices
from ensembleflow.allocation.neighbours import Neighbourhood
from ensembleflow.allocation.pipeline import Pipeline
from ensembleflow.allocation.placement import Allocation, Placement, allocation_text
from ensembleflow.allocation.profile import Profile, profile_members, profiles_from_table, profiles_table
from ensembleflow.allocation.profile_table import ProfileTable
from ensembleflow.allocation.reallocate import carry_over, reallocate
from ensembleflow.allocation.refine import Bench, Refinement, refine
from ensembleflow.allocation.refine_allocation import refine_allocation
from ensembleflow.allocation.request import Answer, DeadlineError, Limits, MemberUnavailableError, QueueFullError
from ensembleflow.allocation.score import Score
from ensembleflow.allocation.simulate import Calibration, SimulatedBench
from ensembleflow.allocation.tune import Ensemble, Tuning, tune_allocation
from ensembleflow.allocation.worker import Member, MemberError, WorkerStatus
from ensembleflow.allocation.worst_fit import worst_fit

__all__ = [
    "Allocation",
    "Answer",
    "Bench",
    "Calibration",
    "Comparison",
    "DeadlineError",
    "Device",
    "Dispatcher",
    "Ensemble",
    "ForkServer",
    "Limits",
    "Listener",
    "MeasuredBench",
    "Member",
    "MemberError",
    "MemberUnavailableError",
    "Neighbourhood",
    "Pipeline",
    "Placement",
    "Profile",
    "ProfileTable",
    "QueueFullError",
    "Refinement",
    "Score",
    "SimulatedBench",
    "Tuning",
    "WorkerStatus",
    "allocate_ensemble",
    "allocation_text",
    "assign_cores",
    "calibrate",
    "carry_over",
    "compare_benches",
    "detect_devices",
    "profile_members",
    "profiles_from_table",
    "profiles_table",
    "read_allocation",
    "read_devices",
    "reallocate",
    "refine",
    "refine_allocation",
    "search_table",
    "tell_tuning",
    "tune_allocation",
    "worst_fit",
]
