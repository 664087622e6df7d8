"""The parent's side of a member's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

import ensembleflow
from ensembleflow.allocation import worker_process
from ensembleflow.allocation.shared_array import SharedArray
from ensembleflow.errors import AllocationError

__all__ = ["Member", "MemberError", "Worker", "await_answers"]


@dataclass(frozen=True)
class Member:
    """A member to run.

    Attributes:
        model: its model id.
        exported: the folder of its exported function.
    """

    model: str
    exported: Path


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


class Worker:
    """One member's process, started at once; its first answer says that the model is loaded and warm.

    Attributes:
        member: what it runs.
        core_ids: the cores that it is bound to.
        batch_size: images a call.
        peak_memory_mb: the most resident memory so far, in MB; 0 before the first answer.
    """

    def __init__(
        self, member: Member, core_ids: tuple[int, ...], batch_size: int, images: SharedArray, n_classes: int
    ) -> None:
        self.member = member
        self.core_ids = core_ids
        self.batch_size = batch_size
        self.peak_memory_mb = 0.0
        capacity_images, *image_shape = images.array.shape
        self._probabilities = SharedArray((capacity_images, n_classes), np.float32)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._n_unanswered = 0
        self.control, theirs = Pipe()
        try:
            passed = (theirs.fileno(), images.fd, self._probabilities.fd)
            self._process = _spawn(theirs.fileno(), passed, self._output)
        except BaseException:
            self._close_files()
            raise
        finally:
            theirs.close()
        settings = {
            "exported": str(Path(member.exported).resolve()),
            "core_ids": core_ids,
            "batch_size": batch_size,
            "image_shape": tuple(image_shape),
            "n_classes": n_classes,
            "capacity_images": capacity_images,
            "images_fd": images.fd,
            "probabilities_fd": self._probabilities.fd,
        }
        self.order("start", settings)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def idle(self) -> bool:
        """Whether it lives and has answered every order."""
        return not self.control.closed and self._n_unanswered == 0 and self._process.poll() is None

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Its answers, (images, classes), in memory shared with the process."""
        return self._probabilities.array

    def configure(self, core_ids: tuple[int, ...], batch_size: int) -> None:
        """Order it onto as many other cores, or to another batch size, without a restart."""
        self.core_ids = core_ids
        self.batch_size = batch_size
        self.order("configure", core_ids, batch_size)

    def order(self, *message: Any) -> None:
        """Send an order; each has one answer, to be fetched with `await_answers`."""
        self._n_unanswered += 1
        with suppress(OSError):  # it has died: fetching its answer tells why
            self.control.send(message)

    def answer(self) -> tuple[Any, ...]:
        """Wait for the answer to an order.

        Raises:
            EOFError: the process has died.
        """
        try:
            answer: tuple[Any, ...] = self.control.recv()
        except OSError as error:
            raise EOFError from error
        self._n_unanswered -= 1
        return answer

    def end(self) -> None:
        """End the process at once; it has nothing to lose."""
        if not self.control.closed:
            self._process.kill()
            self._process.wait()
            self._close_files()

    def reason_of_death(self) -> str:
        """Why the process ended by itself, from its exit status and its last words."""
        status = self._process.wait()
        if status < 0:
            hint = " (out of memory?)" if status == -signal.SIGKILL else ""
            return f"its process was killed by {signal.Signals(-status).name}{hint}"
        self._output.seek(0)
        lines = self._output.read().decode("utf-8", "replace").strip().splitlines()
        return f"its process ended with exit status {status}: {' / '.join(lines[-3:])[-500:] or 'no message'}"

    def _close_files(self) -> None:
        self.control.close()
        self._output.close()
        self._probabilities.close()


def await_answers(workers: Iterable[Worker]) -> Iterator[Worker]:
    """Yield each worker as it answers the order that it was given.

    Workers that fail are ended; the others are waited for all the same, so that none is left at work.
    If the caller stops early (Ctrl-C), those that have not answered are ended.

    Raises:
        MemberError: when all have answered, if any has failed.
    """
    workers = list(workers)
    pending: dict[Any, Worker] = {worker.control: worker for worker in workers}
    failures: dict[str, str] = {}
    try:
        while pending:
            for control in wait(list(pending)):
                worker = pending.pop(control)
                try:
                    answer, *values = worker.answer()
                except EOFError:
                    answer, values = "failed", [worker.reason_of_death()]
                if answer == "failed":
                    failures[worker.member.model] = values[0]
                    worker.end()
                elif answer == "ready":
                    (worker.peak_memory_mb,) = values
                if answer != "failed":
                    yield worker
    finally:
        for worker in pending.values():
            worker.end()
    if failures:
        models = [worker.member.model for worker in workers]
        raise MemberError({model: failures[model] for model in models if model in failures})


def _spawn(control_fd: int, passed_fds: tuple[int, ...], output: IO[bytes]) -> subprocess.Popen[bytes]:
    # Not multiprocessing's spawn: that runs the parent's main script again in the child, and a Snakemake
    # script would then start its rule a second time.
    path = [str(Path(ensembleflow.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "CUDA_VISIBLE_DEVICES": "-1",  # a device is a set of CPU cores
    }
    # Blocked until the child ignores it: Ctrl-C during its start would print a traceback.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(
            [sys.executable, "-P", worker_process.__file__, str(control_fd)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=passed_fds,
            env=environment,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
