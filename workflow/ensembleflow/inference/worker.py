"""The parent's side of a member's process."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ensembleflow.errors import AllocationError
from ensembleflow.inference.devices import Device
from ensembleflow.inference.fork_server import ForkServer, start_member_process
from ensembleflow.inference.member_process import reason_of_death
from ensembleflow.inference.placement import Member, Placement
from ensembleflow.inference.shared_array import SharedArray

__all__ = ["MemberError", "Worker", "WorkerStatus"]

_SCRIPT = Path(__file__).with_name("worker_process.py")


class MemberError(AllocationError):
    """Members' processes failed or died; the others are unharmed.

    Attributes:
        failures: what happened, by model id.
    """

    def __init__(self, failures: Mapping[str, str]) -> None:
        self.failures = dict(failures)
        super().__init__(
            "a member of the ensemble failed"
            if len(failures) == 1
            else f"{len(failures)} members of the ensemble failed",
            found="\n            ".join(f"{model}: {reason}" for model, reason in failures.items()),
        )


WorkerState = Literal["starting", "ready", "restarting"]


@dataclass(frozen=True)
class WorkerStatus:
    """How one replica of a member is.

    Attributes:
        model: the member's model id.
        device: its device's name.
        batch_size: images per call.
        engine: what computes it.
        state: `starting` until it has loaded its model, then `ready`; `restarting` from its end to the next start.
        pid: the process's number; 0 while there is none.
        restarts: how often its process had to be started anew.
        peak_memory_mb: the most resident memory so far, in MB; 0 before it was ready.
    """

    model: str
    device: str
    batch_size: int
    engine: str
    state: WorkerState
    pid: int
    restarts: int
    peak_memory_mb: float


class Worker:
    """One replica's process, started at once; its first message says that the model is loaded and warm.

    Nothing here waits: messages are received when the process's connection is readable.

    Args:
        member: what it runs.
        placement: how.
        device: where.
        images: shared (slots, images, *image_shape).
        n_classes: number of classes.
        warm_up_seconds: for how long it computes batches of usual sizes before it is ready.
        fork_server: what it may be forked from.

    Attributes:
        placement: how it runs now.
        device: where it runs now.
        peak_memory_mb: the most resident memory so far, in MB; 0 before it was ready.
        ready: whether it lives and has loaded its model.
    """

    def __init__(
        self,
        member: Member,
        placement: Placement,
        device: Device,
        images: SharedArray,
        n_classes: int,
        warm_up_seconds: float,
        fork_server: ForkServer | None = None,
    ) -> None:
        self.member = member
        self.placement = placement
        self.device = device
        self.peak_memory_mb = 0.0
        self.ready = False
        n_slots, n_images, *image_shape = images.array.shape
        self._probabilities = SharedArray((n_slots, n_images, n_classes), np.float32)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._control, theirs = Pipe()
        try:
            fds = (theirs.fileno(), images.fd, self._probabilities.fd)
            self._process = start_member_process(
                _SCRIPT, placement.engine, fds, self._output, gpu=device.gpu, fork_server=fork_server
            )
        except BaseException:
            self._close_files()
            raise
        finally:
            theirs.close()
        self.order(
            "start",
            {
                "exported": str(Path(member.exported).resolve()),
                "engine": placement.engine,
                "gpu": device.gpu is not None,
                "core_ids": device.core_ids,
                "batch_size": placement.batch_size,
                "images_shape": (n_slots, n_images, *image_shape),
                "images_dtype": images.array.dtype.name,
                "n_classes": n_classes,
                "warm_up_seconds": warm_up_seconds,
            },
        )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Its answers, (slots, images, classes), in memory shared with the process."""
        return self._probabilities.array

    def fileno(self) -> int:
        """The file descriptor that is readable when the process has said something, or has ended."""
        return self._control.fileno()

    def order(self, *message: Any) -> None:
        """Send an order; each has one answer."""
        with suppress(OSError):  # it has died: `receive` then says so
            self._control.send(message)

    def configure(self, placement: Placement, device: Device) -> None:
        """Order it onto as many other cores, or to another batch size, without a restart."""
        self.placement = placement
        self.device = device
        self.order("configure", device.core_ids, placement.batch_size)

    def receive(self) -> tuple[Any, ...]:
        """The next message; to be called when there is one to read.

        Raises:
            EOFError: the process has died.
        """
        try:
            message: tuple[Any, ...] = self._control.recv()
        except OSError as error:
            raise EOFError from error
        return message

    def end(self) -> None:
        """End the process at once; it has nothing to lose."""
        if not self._control.closed:
            self._process.kill()
            self._process.wait()
            self._close_files()

    def reason_of_death(self) -> str:
        """Why the process ended by itself, from its exit status and its last words."""
        return reason_of_death(self._process, self._output)

    def _close_files(self) -> None:
        self.ready = False
        self._control.close()
        self._output.close()
        self._probabilities.close()
