"""The pipeline that runs an ensemble under an allocation."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from ensembleflow.allocation.devices import Device
from ensembleflow.allocation.placement import Allocation, allocation_text
from ensembleflow.allocation.shared_array import SharedArray
from ensembleflow.allocation.worker import Member, Worker, await_answers
from ensembleflow.errors import AllocationError

__all__ = ["Pipeline"]

_LOG = logging.getLogger(__name__)

_MAX_BUFFER_BYTES = 256 * 2**20
_MAX_BUFFER_IMAGES = 4096


class Pipeline:
    """An ensemble at work: one process a member, images and probabilities in shared memory.

    The members work side by side, each through a whole request by itself; this process, which never imports
    TensorFlow, adds up their probabilities in the order in which they finish. Use it in a `with` block:
    entering starts the processes, leaving ends them, however the block ends. One request at a time.

    Args:
        members: the ensemble, in the allocation's order.
        devices: those that allocations may name.
        allocation: where to start.
        image_shape: (height, width, channels).
        n_classes: number of classes.
        capacity_images: images that the shared buffer holds; longer requests are predicted in parts of so
            many. By default up to 4,096 images or 256 MB.

    Raises:
        AllocationError: the allocation names other members or unknown devices.

    Source: the paper's section 2.4 and figure 2.
    """

    def __init__(
        self,
        members: Sequence[Member],
        devices: Sequence[Device],
        allocation: Allocation,
        *,
        image_shape: tuple[int, int, int],
        n_classes: int,
        capacity_images: int | None = None,
    ) -> None:
        self.members = list(members)
        self.image_shape = image_shape
        self.n_classes = n_classes
        self._devices = {device.name: device for device in devices}
        self._allocation = self._checked(allocation)
        if capacity_images is None:
            fitting = _MAX_BUFFER_BYTES // int(np.prod(image_shape))
            capacity_images = max(1, min(_MAX_BUFFER_IMAGES, fitting))
        self._capacity_images = capacity_images
        self._images: SharedArray | None = None
        self._workers: list[Worker] = []

    def __enter__(self) -> Self:
        started_at = time.monotonic()
        try:
            self._images = SharedArray((self._capacity_images, *self.image_shape), np.uint8)
            self.reconfigure(self._allocation)
        except BaseException:
            self.close()
            raise
        _LOG.info("%d members ready after %.1f s", len(self.members), time.monotonic() - started_at)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def allocation(self) -> Allocation:
        """The present allocation."""
        return self._allocation

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The members' processes, in the members' order."""
        return tuple(self._workers)

    def reconfigure(self, allocation: Allocation) -> None:
        """Change to another allocation, restarting as few processes as possible.

        Another batch size, or a device with as many cores, is one message to the process. A device with
        another number of cores restarts that member's process, because TensorFlow's threads are fixed at
        its start. Processes that have died are started anew.

        Raises:
            AllocationError: the allocation names other members or unknown devices.
            MemberError: members could not start or change; the others did.
        """
        self._allocation = self._checked(allocation)
        busy = []
        for place, placement in enumerate(self._allocation):
            core_ids = self._devices[placement.device].core_ids
            worker = self._workers[place] if place < len(self._workers) else None
            if worker is None or not worker.idle or len(worker.core_ids) != len(core_ids):
                busy.append(self._start(place, core_ids, placement.batch_size))
            elif (worker.core_ids, worker.batch_size) != (core_ids, placement.batch_size):
                worker.configure(core_ids, placement.batch_size)
                busy.append(worker)
        for _ in await_answers(busy):
            pass

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The ensemble's class probabilities: the mean of its members'.

        A member whose process has died since the last call is first started anew.

        Args:
            images: uint8 (images, height, width, channels).

        Returns:
            float32 (images, classes).

        Raises:
            MemberError: a member failed. The pipeline can go on being used.
            ValueError: `images` has another shape or type.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            raise ValueError(f"images are {images.dtype} {images.shape}, expected uint8 (n, {self.image_shape})")
        self.reconfigure(self._allocation)
        assert self._images is not None
        probabilities = np.empty((len(images), self.n_classes), np.float32)
        for start in range(0, len(images), self._capacity_images):
            part = images[start : start + self._capacity_images]
            self._images.array[: len(part)] = part
            probabilities[start : start + len(part)] = self._predict_buffer(len(part))
        return probabilities

    def _predict_buffer(self, n_images: int) -> npt.NDArray[np.float64]:
        for worker in self._workers:
            worker.order("predict", n_images)
        # In float64 the sum of a few float32 values does not depend on their order (to float32's precision).
        total = np.zeros((n_images, self.n_classes))
        for worker in await_answers(self._workers):
            total += worker.probabilities[:n_images]
        return total / len(self._workers)

    def close(self) -> None:
        """End all processes and give the shared memory back."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()
        if self._images is not None:
            self._images.close()
            self._images = None

    def _start(self, place: int, core_ids: tuple[int, ...], batch_size: int) -> Worker:
        if self._images is None:
            raise RuntimeError("the pipeline is closed: use it in a with block")
        if place < len(self._workers):
            self._workers[place].end()
        worker = Worker(self.members[place], core_ids, batch_size, self._images, self.n_classes)
        self._workers[place : place + 1] = [worker]
        return worker

    def _checked(self, allocation: Allocation) -> Allocation:
        placed = [placement.model for placement in allocation]
        unknown = [placement.device for placement in allocation if placement.device not in self._devices]
        if placed != [member.model for member in self.members] or unknown:
            raise AllocationError(
                "the allocation does not suit the ensemble",
                found=allocation_text(allocation),
                expected=f"members {' '.join(member.model for member in self.members)} in this order, "
                f"on devices {', '.join(self._devices)}",
            )
        return allocation
