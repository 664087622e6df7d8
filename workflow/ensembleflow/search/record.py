"""What is kept of a trial while it runs and after: a record and a checkpoint or model beside it.

The folder `{study}/search/store/{fingerprint}/trial-00012/` is not an output of any rule, so nothing in it
is lost when Snakemake clears a job's outputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ensembleflow.errors import ArtefactError
from ensembleflow.io import read_json, write_json

__all__ = ["Epoch", "PhaseSeconds", "TrialAttempt", "TrialRecord", "TrialStore"]


@dataclass(frozen=True)
class Epoch:
    """One epoch of a trial; times are Unix seconds, cross-entropies nats, errors shares from 0 to 1."""

    epoch: int
    rung: int | None
    started_at: float
    ended_at: float
    train_cross_entropy: float
    train_error: float
    valid_error: float
    valid_macro_f1_error: float
    valid_cross_entropy: float
    learning_rate: float


@dataclass
class PhaseSeconds:
    """Where a trial's time went, over all processes that worked on it; what a killed one lost is not in it.

    Attributes:
        build: making or loading the network and tracing its functions.
        input: the training step waited for its batches.
        step: in the training step.
        valid: validation predictions and metrics.
        checkpoint: writing checkpoints and the model's file.
        storage: Optuna's storage, the pruner, and the trial's record.
    """

    build: float = 0.0
    input: float = 0.0
    step: float = 0.0
    valid: float = 0.0
    checkpoint: float = 0.0
    storage: float = 0.0

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the block's time to a phase."""
        started_at = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, time.perf_counter() - started_at)

    def add(self, phase: str, seconds: float) -> None:
        """Add to a phase."""
        setattr(self, phase, getattr(self, phase) + seconds)


@dataclass
class TrialAttempt:
    """One process's work on a trial; times are Unix seconds.

    Attributes:
        host: the machine.
        device: the device's name.
        device_id: a GPU's UUID, or `cpu`.
        process_id: the process.
        process_started_at: when it was started, before anything was imported.
        ready_at: when TensorFlow was ready in it.
        started_at: when it took up the trial.
        ended_at: when it last wrote the record.
        first_epoch: the first epoch that it trained, from 1.
        epochs: how many it finished.
        energy_joules: what its GPU used meanwhile, other processes' share included; None where nothing measures it.
    """

    host: str
    device: str
    device_id: str
    process_id: int
    process_started_at: float
    ready_at: float
    started_at: float
    ended_at: float
    first_epoch: int
    epochs: int = 0
    energy_joules: float | None = None

    @property
    def process(self) -> tuple[str, int, float]:
        """Which process it was, among all of all machines: host, number and start."""
        return self.host, self.process_id, self.process_started_at


@dataclass
class TrialRecord:
    """All that is known of one trial.

    Attributes:
        slot: the trial's number.
        state: `RUNNING`, `COMPLETE`, `PRUNED` or `FAIL`.
        reason: why it failed, else empty.
        stopped: the pruner has said to stop; only the model is still to be kept.
        continued: the last epoch after which the pruner has let it go on.
        attempts: how often a process has taken it up since its last finished epoch.
        bracket: Hyperband's bracket, or None.
        hyperparameters: by name.
        epochs: the finished ones, in order.
        n_parameters: weights of the network, trained or not.
        redrawn: multiply-adds of the networks that were proposed before this one and were beyond `search.limits`.
        weights_sha256: of the model's weights after the last epoch; empty before it is kept, and where a failed
            trial's model could not be.
        seconds: where the time went.
        runs: the processes that worked on it, in order.
    """

    slot: int
    state: str = "RUNNING"
    reason: str = ""
    stopped: bool = False
    continued: int = 0
    attempts: int = 0
    bracket: int | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)
    n_parameters: int | None = None
    redrawn: list[int] = field(default_factory=list)
    weights_sha256: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    seconds: PhaseSeconds = field(default_factory=PhaseSeconds)
    runs: list[TrialAttempt] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.state != "RUNNING"

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrialRecord:
        """Read `to_dict`'s values."""
        return cls(
            **{
                **values,
                "epochs": [Epoch(**epoch) for epoch in values["epochs"]],
                "seconds": PhaseSeconds(**values["seconds"]),
                "runs": [TrialAttempt(**run) for run in values["runs"]],
            }
        )


class TrialStore:
    """The folder of one trial.

    A checkpoint is named after its epoch and the record says which epochs are finished: whichever of the
    two a killed process wrote last, they are read as one consistent state.

    Args:
        folder: the trial's folder.
        check: to be called before each write; raises when this process may no longer write.
    """

    def __init__(self, folder: Path, check: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self.check = check
        self.model_path = folder / "model.keras"
        self._record_path = folder / "record.json"

    @property
    def way_out(self) -> str:
        """What to do when one of the trial's files is lost or damaged."""
        return (
            f"restore it; or, when no search job runs, delete {self.folder} and the study in its storage (the file "
            "study.journal, or optuna delete-study): this trial is trained anew, all others go into the study again"
        )

    def read(self) -> TrialRecord | None:
        """The record, or None before the first attempt; the slot's lease must be held.

        Raises:
            ArtefactError: the record is damaged, or a file that it speaks of is gone.
        """
        record = self.read_alone()
        if record is None:
            return None
        needed = self.model_path if record.finished else self.checkpoint_path(len(record.epochs))
        has_weights = record.weights_sha256 if record.finished else record.epochs
        if has_weights and not needed.exists():
            raise ArtefactError(
                "a finished trial's weights are gone" if record.finished else "a trial's checkpoint is gone",
                where=needed,
                hint=self.way_out,
            )
        return record

    def read_alone(self) -> TrialRecord | None:
        """The record without a look at the weights, which another process may just be replacing.

        Raises:
            ArtefactError: the record is damaged.
        """
        if not self._record_path.exists():
            return None
        try:
            return TrialRecord.from_dict(read_json(self._record_path))
        except (ArtefactError, KeyError, TypeError) as error:
            raise ArtefactError(
                "a trial's record is damaged",
                where=self._record_path,
                found=error.found if isinstance(error, ArtefactError) else f"{type(error).__name__}: {error}",
                expected="JSON as this version of ensembleflow writes it",
                hint=self.way_out,
            ) from None

    def write(self, record: TrialRecord) -> None:
        """Replace the record; older checkpoints go once the record no longer needs them."""
        self.check()
        write_json(self._record_path, record.to_dict())
        needed = None if record.finished else self.checkpoint_path(len(record.epochs))
        for path in self.folder.glob("epoch-*.npz"):
            if path != needed:
                path.unlink(missing_ok=True)

    def checkpoint_path(self, epoch: int) -> Path:
        """Where the checkpoint after `epoch` epochs lies; it holds the optimizer's state as well."""
        return self.folder / f"epoch-{epoch:04d}.npz"

    def discard_leftovers(self) -> None:
        """Remove what a killed process was writing aside (its names start with a dot)."""
        for path in self.folder.glob(".*"):
            path.unlink()
