"""How long a search would take on other devices: recorded trials replayed in virtual time."""

from ensembleflow.search.simulation.busy import trials_to_keep_busy
from ensembleflow.search.simulation.limits import Limits
from ensembleflow.search.simulation.recording import (
    RecordedTrial,
    Recording,
    assume_recording,
    optuna_study,
    read_recording,
    recorded_limits,
)
from ensembleflow.search.simulation.simulate import Simulation, simulate
from ensembleflow.search.simulation.trials import PlannedTrial, TrialSource

__all__ = [
    "Limits",
    "PlannedTrial",
    "RecordedTrial",
    "Recording",
    "Simulation",
    "TrialSource",
    "assume_recording",
    "optuna_study",
    "read_recording",
    "recorded_limits",
    "simulate",
    "trials_to_keep_busy",
]
