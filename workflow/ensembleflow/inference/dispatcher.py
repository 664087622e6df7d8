"""An ensemble at work: requests are batched, every member predicts each batch, and the answers are averaged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.errors import AllocationError
from ensembleflow.inference.batch import Batch
from ensembleflow.inference.crew import Crew
from ensembleflow.inference.deployment import Deployment
from ensembleflow.inference.observer import Observer
from ensembleflow.inference.placement import Allocation, allocation_text
from ensembleflow.inference.request import (
    Answer,
    DeadlineError,
    MemberUnavailableError,
    QueueFullError,
    Request,
    RequestQueue,
)
from ensembleflow.inference.shared_array import SharedArray
from ensembleflow.inference.worker import WorkerStatus
from ensembleflow.models.tolerances import ANSWER_TOLERANCE, answer_tolerance

__all__ = ["Dispatcher", "checked_allocation"]

_WAIT_SHARE = 0.25  # of what a batch takes


class Dispatcher:
    """An ensemble at work, in an asyncio event loop: one process a replica of a member, memory shared with all.

    Images of waiting requests are copied once, into a slot of the shared memory, as one batch. All members predict it
    side by side, each in its own time; this process, which never imports TensorFlow, adds up their probabilities as
    they come, and answers. While members work, further requests wait and make the next batch; a second batch is
    begun beside the first once it fills the largest of the members' batch sizes. An idle ensemble waits a little for
    as many requests as there were before the last answers: clients that wait for an answer ask again.

    A process that dies, fails or hangs is started anew. Meanwhile requests that want every member are refused, unless
    a replica of the member lives: then it does the work.

    Args:
        deployment: the ensemble, and how it is run.
        allocation: where to start.
        restarts: whether processes that end are started anew; otherwise `reconfigure` does it.
        observer: called with what happens.

    Raises:
        AllocationError: the allocation names other members or unknown devices.

    Source: the paper's section 2.4 and figure 2.
    """

    def __init__(
        self,
        deployment: Deployment,
        allocation: Allocation,
        *,
        restarts: bool = True,
        observer: Observer | None = None,
    ) -> None:
        self.deployment = deployment
        self.observer = observer or Observer()
        self._models = deployment.models
        self._devices = {device.name: device for device in deployment.devices}
        self._allocation = checked_allocation(deployment, allocation)
        self._restarts = restarts
        self._queue = RequestQueue()
        self._n_slots = deployment.limits.batches_at_work
        self._free_slots = list(range(self._n_slots))
        self._n_expected = 0
        self._batch_seconds = 0.0
        self._idle_since = self._last_arrival = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._images: SharedArray | None = None
        self._crew: Crew | None = None

    @property
    def allocation(self) -> Allocation:
        """The present allocation."""
        return self._allocation

    @property
    def ready(self) -> bool:
        """Whether every member has a process that can answer."""
        return self._crew is not None and not self._crew.unavailable()

    @property
    def queued_images(self) -> int:
        """Images that wait."""
        return self._queue.n_images

    def unavailable(self) -> dict[str, str]:
        """The members that no process can answer for now, with the reason."""
        if self._crew is None:
            return dict.fromkeys(self._models, "the ensemble is not running")
        return dict(self._crew.unavailable())

    def status(self) -> list[WorkerStatus]:
        """How each replica is, in the allocation's order."""
        return [] if self._crew is None else self._crew.status()

    async def start(self) -> None:
        """Start all processes, and wait until each has loaded its model.

        Raises:
            MemberError: members could not start. The dispatcher is closed then.
        """
        image_shape, dtype = self.deployment.image_shape, self.deployment.image_dtype
        shape = (self._n_slots, self.deployment.limits.batch_images(image_shape, dtype), *image_shape)
        self._images = SharedArray(shape, dtype)
        self._crew = Crew(
            self.deployment,
            self._images,
            restarts=self._restarts,
            on_progress=self._on_progress,
            on_failure=self._on_failure,
            observer=self.observer,
        )
        try:
            await self.reconfigure(self._allocation)
        except BaseException:
            await self.close()
            raise

    async def reconfigure(self, allocation: Allocation) -> None:
        """Change to another allocation, restarting as few processes as possible; to be called between requests.

        Another batch size, or a device with as many cores, is one message to a process. Another engine, a GPU, or
        another number of cores starts a process of its own. Processes that have died are started anew.

        Raises:
            AllocationError: the allocation names other members or unknown devices.
            MemberError: members could not start or change; the others did.
        """
        self._allocation = checked_allocation(self.deployment, allocation)
        if self._crew is None:
            raise RuntimeError("the dispatcher is not running")
        await self._crew.configure([(placement, self._devices[placement.device]) for placement in self._allocation])

    async def submit(
        self,
        images: npt.NDArray[Any],
        *,
        allow_partial: bool = False,
        deadline_seconds: float | None = None,
        with_members: bool = False,
    ) -> Answer:
        """The ensemble's class probabilities: the mean of its members'.

        Cancelling it takes its images out of the queue.

        Args:
            images: (images, *image_shape), of the deployment's type. Not to be changed before the answer.
            allow_partial: take the mean of those members that are available, if there is one.
            deadline_seconds: how long to wait at most.
            with_members: keep each member's probabilities as well.

        Raises:
            DeadlineError: there was no answer in time.
            MemberUnavailableError: a member is not available (with `allow_partial`: none is).
            QueueFullError: too many images wait.
            ValueError: `images` has another shape or type.
        """
        n_classes = self.deployment.n_classes
        self.deployment.require_images(images)
        if not len(images):
            none = np.empty((len(self._models), 0, n_classes), np.float32)
            return Answer(none[0], tuple(self._models), none if with_members else None)
        unavailable = self.unavailable()
        if unavailable and (not allow_partial or len(unavailable) == len(self._models)):
            raise MemberUnavailableError(unavailable)
        if self._queue.n_images and self._queue.n_images + len(images) > self.deployment.limits.max_queued_images:
            raise QueueFullError(self._queue.n_images, len(images), self.deployment.limits.max_queued_images)
        loop = asyncio.get_running_loop()
        self._last_arrival = loop.time()
        request = Request(
            images,
            self._models,
            n_classes,
            allow_partial=allow_partial,
            with_members=with_members,
            arrived_at=self._last_arrival,
            answer=loop.create_future(),
        )
        self._queue.put(request)
        self._fill_slots()
        if deadline_seconds is None:
            return await request.answer
        timer = loop.call_later(deadline_seconds, partial(_too_late, request, deadline_seconds))
        try:
            return await request.answer
        finally:
            timer.cancel()

    async def close(self) -> None:
        """End all processes, fail what waits, and give the shared memory back."""
        crew, self._crew = self._crew, None
        if self._timer is not None:
            self._timer.cancel()
        ended = dict.fromkeys(self._models, "the ensemble is not running")
        for request in self._queue.waiting():
            request.fail(MemberUnavailableError(ended))
        if crew is not None:
            crew.close()
        if self._images is not None:
            self._images.close()
            self._images = None

    def _fill_slots(self) -> None:
        """Begin batches, as far as there is room and reason to."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._crew is None or self._crew.changing:
            return
        full = max(placement.batch_size for placement in self._allocation)
        while self._free_slots and self._queue.oldest() is not None:
            if self._queue.n_images < full:
                if len(self._free_slots) < self._n_slots:
                    return  # what comes meanwhile makes the next batch larger
                loop = asyncio.get_running_loop()
                if self._queue.n_requests < self._n_expected and loop.time() < (wait_until := self._wait_until()):
                    self._timer = loop.call_at(wait_until, self._fill_slots)
                    return
            self._begin_batch()

    def _wait_until(self) -> float:
        """When to wait no longer for requests: none has come for a while, or what could be won is lost by waiting."""
        return min(
            max(self._last_arrival, self._idle_since) + self.deployment.limits.batch_wait_seconds,
            self._idle_since + _WAIT_SHARE * self._batch_seconds,
        )

    def _begin_batch(self) -> None:
        assert self._images is not None and self._crew is not None
        slots = self._images.array
        segments = self._queue.take(slots.shape[1])
        slot = self._free_slots.pop()
        for segment in segments:
            images = segment.request.images[segment.request_start : segment.request_start + segment.length]
            slots[slot, segment.batch_start : segment.batch_start + segment.length] = images
        now = asyncio.get_running_loop().time()
        batch = Batch(slot, segments, self._models, self.deployment.n_classes, now)
        self._crew.predict(batch)

    def _on_progress(self, batch: Batch) -> None:
        """A member has answered a part of a batch, or failed at it."""
        if not batch.finished:
            return
        now = asyncio.get_running_loop().time()
        self._free_slots.append(batch.slot)
        self._idle_since = now
        self._batch_seconds = now - batch.started_at
        n_requests = len({id(segment.request) for segment in batch.segments})
        self._n_expected = self._queue.n_requests + n_requests
        self.observer.batch_finished(batch.n_images, n_requests, self._batch_seconds)
        batch.deliver()
        self._fill_slots()

    def _on_failure(self, unavailable: Mapping[str, str]) -> None:
        """Members have no process left: what waits for them fails now rather than later."""
        for request in self._queue.waiting():
            if not request.allow_partial or len(unavailable) == len(self._models):
                request.fail(MemberUnavailableError(unavailable))


def checked_allocation(deployment: Deployment, allocation: Allocation) -> Allocation:
    """The allocation itself, if it has the ensemble's members in their order, on its devices.

    Raises:
        AllocationError: it has not, or an engine is too inexact for a cascade.
    """
    devices = [device.name for device in deployment.devices]
    placed = [model for model, _ in groupby(allocation, key=lambda placement: placement.model)]
    unknown = [placement.device for placement in allocation if placement.device not in devices]
    if placed != deployment.models or unknown:
        raise AllocationError(
            "the allocation does not suit the ensemble",
            found=allocation_text(allocation),
            expected=f"members {' '.join(deployment.models)} in this order, on devices {', '.join(devices)}",
        )
    engines = dict.fromkeys(placement.engine for placement in allocation)
    if deployment.stop_rule is not None and answer_tolerance(engines) > ANSWER_TOLERANCE:
        raise AllocationError(
            "a cascade cannot be computed in less than float32",
            found=", ".join(engines),
            expected="engines that answer as the calibrated networks did: its thresholds are theirs",
            hint="leave openvino_bfloat16 out of allocation.engines or --engines",
        )
    return allocation


def _too_late(request: Request, seconds: float) -> None:
    request.fail(DeadlineError(seconds))
