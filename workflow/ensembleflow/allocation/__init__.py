"""Placing an ensemble's members on devices, and the pipeline that runs them there."""

from ensembleflow.allocation.allocate import allocate_ensemble
from ensembleflow.allocation.bench import bench_allocation
from ensembleflow.allocation.devices import Device, assign_cores
from ensembleflow.allocation.dispatcher import Dispatcher
from ensembleflow.allocation.listener import Listener
from ensembleflow.allocation.machine import detect_devices
from ensembleflow.allocation.pipeline import Pipeline
from ensembleflow.allocation.placement import Allocation, Placement, allocation_text, find_neighbours
from ensembleflow.allocation.profile import Profile, profile_members, profiles_from_table, profiles_table
from ensembleflow.allocation.refine import Bench, Refinement, Score, refine
from ensembleflow.allocation.request import Answer, DeadlineError, Limits, MemberUnavailableError, QueueFullError
from ensembleflow.allocation.worker import Member, MemberError, WorkerStatus
from ensembleflow.allocation.worst_fit import worst_fit

__all__ = [
    "Allocation",
    "Answer",
    "Bench",
    "DeadlineError",
    "Device",
    "Dispatcher",
    "Limits",
    "Listener",
    "Member",
    "MemberError",
    "MemberUnavailableError",
    "Pipeline",
    "Placement",
    "Profile",
    "QueueFullError",
    "Refinement",
    "Score",
    "WorkerStatus",
    "allocate_ensemble",
    "allocation_text",
    "assign_cores",
    "bench_allocation",
    "detect_devices",
    "find_neighbours",
    "profile_members",
    "profiles_from_table",
    "profiles_table",
    "refine",
    "worst_fit",
]
