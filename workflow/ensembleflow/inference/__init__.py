"""The running ensemble: its members' processes on their devices, and the dispatcher that batches and averages."""

from ensembleflow.inference.cascade import AnyDispatcher, CascadeDispatcher, make_dispatcher
from ensembleflow.inference.deployment import Deployment, StopRule
from ensembleflow.inference.devices import Device, assign_cores
from ensembleflow.inference.dispatcher import Dispatcher
from ensembleflow.inference.fork_server import ForkServer
from ensembleflow.inference.machine import detect_devices
from ensembleflow.inference.observer import Observer
from ensembleflow.inference.pipeline import Pipeline
from ensembleflow.inference.placement import Allocation, Member, Placement, allocation_text
from ensembleflow.inference.request import Answer, DeadlineError, Limits, MemberUnavailableError, QueueFullError
from ensembleflow.inference.worker import MemberError, WorkerStatus

__all__ = [
    "Allocation",
    "Answer",
    "AnyDispatcher",
    "CascadeDispatcher",
    "DeadlineError",
    "Deployment",
    "Device",
    "Dispatcher",
    "ForkServer",
    "Limits",
    "Member",
    "MemberError",
    "MemberUnavailableError",
    "Observer",
    "Pipeline",
    "Placement",
    "QueueFullError",
    "StopRule",
    "WorkerStatus",
    "allocation_text",
    "assign_cores",
    "detect_devices",
    "make_dispatcher",
]
