"""A cascade at work: an image is shown to one member after the other, until its class is clear."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.inference.deployment import Deployment, StopRule
from ensembleflow.inference.dispatcher import Dispatcher, checked_allocation
from ensembleflow.inference.observer import Observer
from ensembleflow.inference.placement import Allocation
from ensembleflow.inference.request import Answer, DeadlineError, MemberUnavailableError, QueueFullError
from ensembleflow.inference.worker import MemberError, WorkerStatus

__all__ = ["AnyDispatcher", "CascadeDispatcher", "make_dispatcher"]

_UNLIMITED = 2**62
_MOST_PARTS = 64  # of a request, each a task


class CascadeDispatcher:
    """A cascade at work, in an asyncio event loop: each member has a `Dispatcher` of its own.

    What goes on from one member waits in the next one's queue with the images of all other requests, and makes batches
    with them as requests do: begun when the member is free, or full. A long request goes through in parts of the first
    member's batches, so that later members work at some while earlier ones work at others.

    It is used as a `Dispatcher` is.

    Args:
        deployment: the ensemble, and how it is run, with its `stop_rule`.
        allocation: where to start.
        restarts: as of a `Dispatcher`.
        observer: called with what happens.

    Raises:
        AllocationError: the allocation names other members or unknown devices.
    """

    def __init__(
        self,
        deployment: Deployment,
        allocation: Allocation,
        *,
        restarts: bool = True,
        observer: Observer | None = None,
    ) -> None:
        rule = deployment.stop_rule
        if rule is None or sorted(rule.members) != sorted(deployment.models):
            raise ValueError(f"a cascade of {deployment.models} cannot stop by {rule}")
        self.deployment = deployment
        self._rule: StopRule = rule
        self._allocation = checked_allocation(deployment, allocation)
        # Whoever has come in goes through: the first member's queue is bounded for all.
        limits = replace(deployment.limits, max_queued_images=_UNLIMITED)
        self._stages = {
            member.model: Dispatcher(
                replace(deployment, members=[member], limits=limits, stop_rule=None),
                _part(allocation, member.model),
                restarts=restarts,
            )
            for member in deployment.members
        }
        self._n_entering = 0  # images of long requests whose parts are not yet in the first queue
        self.observer = observer or Observer()

    @property
    def observer(self) -> Observer:
        """Is called with what happens."""
        return self._observer

    @observer.setter
    def observer(self, observer: Observer) -> None:
        self._observer = observer
        for stage in self._stages.values():
            stage.observer = observer

    @property
    def allocation(self) -> Allocation:
        """The present allocation."""
        return self._allocation

    @property
    def ready(self) -> bool:
        """Whether every member has a process that can answer."""
        return all(stage.ready for stage in self._stages.values())

    @property
    def queued_images(self) -> int:
        """Images that wait, before any member."""
        return self._n_entering + sum(stage.queued_images for stage in self._stages.values())

    def unavailable(self) -> dict[str, str]:
        """The members that no process can answer for now, with the reason."""
        return {model: reason for stage in self._stages.values() for model, reason in stage.unavailable().items()}

    def status(self) -> list[WorkerStatus]:
        """How each replica is, in the allocation's order."""
        return [status for stage in self._stages.values() for status in stage.status()]

    async def start(self) -> None:
        """Start all processes, and wait until each has loaded its model.

        Raises:
            MemberError: members could not start. The dispatcher is closed then.
        """
        try:
            await _together([stage.start() for stage in self._stages.values()])
        except BaseException:
            await self.close()
            raise

    async def reconfigure(self, allocation: Allocation) -> None:
        """Change to another allocation, as a `Dispatcher` does.

        Raises:
            AllocationError: the allocation names other members or unknown devices.
            MemberError: members could not start or change; the others did.
        """
        self._allocation = checked_allocation(self.deployment, allocation)
        await _together([stage.reconfigure(_part(allocation, model)) for model, stage in self._stages.items()])

    async def submit(
        self,
        images: npt.NDArray[Any],
        *,
        allow_partial: bool = False,
        deadline_seconds: float | None = None,
        with_members: bool = False,
    ) -> Answer:
        """The cascade's class probabilities: of each image the mean of the members that it was shown to.

        Cancelling it takes its images out of the queues.

        Args:
            images: uint8 (images, height, width, channels). Not to be changed before the answer.
            allow_partial: take the members that are available, if there is one; where one is missing, thresholds mean
                nothing, and each image is shown to all others.
            deadline_seconds: how long to wait at most.
            with_members: keep each member's probabilities as well, NaN where it was not asked.

        Raises:
            DeadlineError: there was no answer in time.
            MemberUnavailableError: a member is not available (with `allow_partial`: none is).
            QueueFullError: too many images wait.
            ValueError: `images` has another shape or type.
        """
        self.deployment.require_images(images)
        n_waiting, limit = self.queued_images, self.deployment.limits.max_queued_images
        if n_waiting and n_waiting + len(images) > limit:
            raise QueueFullError(n_waiting, len(images), limit)
        try:
            async with asyncio.timeout(deadline_seconds):
                return await self._answer(images, allow_partial, with_members)
        except TimeoutError:
            assert deadline_seconds is not None
            raise DeadlineError(deadline_seconds) from None

    async def close(self) -> None:
        """End all processes, fail what waits, and give the shared memory back."""
        for stage in self._stages.values():
            await stage.close()

    async def _answer(self, images: npt.NDArray[Any], allow_partial: bool, with_members: bool) -> Answer:
        missing: dict[str, str] = {}
        while True:
            missing |= self.unavailable()
            if missing and (not allow_partial or len(missing) == len(self._stages)):
                raise MemberUnavailableError(missing)
            used = [model for model in self._rule.members if model not in missing]
            thresholds = self._rule.thresholds if not missing else (float("inf"),) * (len(used) - 1)
            passage = _Passage(self.deployment, used, thresholds, len(images), with_members)
            whole_batch = max(each.batch_size for each in self._stages[used[0]].allocation)
            size = max(whole_batch, -(-len(images) // _MOST_PARTS))
            parts = [slice(start, start + size) for start in range(0, len(images), size)]
            try:
                if len(parts) > 1:
                    await self._go_in_parts(passage, images, parts)
                else:
                    await passage.go(self._stages, images, slice(None))
            except MemberUnavailableError as error:
                if not allow_partial:
                    raise
                # A member has failed meanwhile: each image is shown to all others.
                missing |= error.failures
                continue
            if not missing:
                self.observer.cascade_answered(dict(zip(used, passage.n_seen, strict=True)))
            return passage.result()

    async def _go_in_parts(self, passage: _Passage, images: npt.NDArray[Any], parts: Sequence[slice]) -> None:
        entering = {part.start: len(images[part]) for part in parts}
        self._n_entering += len(images)

        async def go(part: slice) -> None:
            # From here to the first queue nothing waits.
            self._n_entering -= entering.pop(part.start)
            await passage.go(self._stages, images, part)

        try:
            await _all_or_none([go(part) for part in parts])
        finally:
            self._n_entering -= sum(entering.values())


class _Passage:
    """The images of one request on their way from member to member.

    Args:
        deployment: the ensemble.
        models: the members that answer, in their order.
        thresholds: of each but the last.
        n_images: images of the request.
        with_members: whether each member's probabilities are wanted.

    Attributes:
        n_seen: how many images each of the members has seen.
    """

    def __init__(
        self,
        deployment: Deployment,
        models: Sequence[str],
        thresholds: Sequence[float],
        n_images: int,
        with_members: bool,
    ) -> None:
        self.n_seen = [0] * len(models)
        self._models, self._thresholds = models, thresholds
        # Answers name members, and hold their probabilities, in the ensemble's order.
        self._used = tuple(model for model in deployment.models if model in models)
        self._places = {model: place for place, model in enumerate(self._used)}
        self._probabilities = np.empty((n_images, deployment.n_classes), np.float32)
        self._stages = np.zeros(n_images, np.int32)
        self._by_member: npt.NDArray[np.float32] | None = None
        if with_members:
            self._by_member = np.full((len(models), n_images, deployment.n_classes), np.nan, np.float32)

    async def go(self, stages: dict[str, Dispatcher], images: npt.NDArray[Any], part: slice) -> None:
        """Bring a part of the images through."""
        going = np.arange(len(images))[part]
        shown = images[part]
        # As in `selection.cascade.Stages`, so that the same image stops at the same stage.
        total = np.zeros((len(going), self._probabilities.shape[1]))
        for place, model in enumerate(self._models):
            if not len(going):
                return
            answered = (await stages[model].submit(shown)).probabilities
            self.n_seen[place] += len(going)
            if self._by_member is not None:
                self._by_member[self._places[model], going] = answered
            total += answered
            mean = total / (place + 1)
            last = place + 1 == len(self._models)
            stop = np.full(len(going), True) if last else mean.max(axis=1) >= self._thresholds[place]
            self._probabilities[going[stop]] = mean[stop]
            self._stages[going[stop]] = place + 1
            going, shown, total = going[~stop], shown[~stop], total[~stop]

    def result(self) -> Answer:
        """The answer, once all images have stopped."""
        return Answer(self._probabilities, self._used, self._by_member, self._stages)


AnyDispatcher = Dispatcher | CascadeDispatcher
"""An ensemble at work, whether images may stop early or not."""


def make_dispatcher(
    deployment: Deployment, allocation: Allocation, *, restarts: bool = True, observer: Observer | None = None
) -> AnyDispatcher:
    """The ensemble at work: a cascade where the deployment has a stop rule.

    Raises:
        AllocationError: the allocation names other members or unknown devices.
    """
    kind = Dispatcher if deployment.stop_rule is None else CascadeDispatcher
    return kind(deployment, allocation, restarts=restarts, observer=observer)


def _part(allocation: Allocation, model: str) -> Allocation:
    return tuple(placement for placement in allocation if placement.model == model)


async def _together(changes: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all; what failed is one error.

    Raises:
        MemberError: members failed.
    """
    failed = [error for error in await asyncio.gather(*changes, return_exceptions=True) if error is not None]
    members = [error for error in failed if isinstance(error, MemberError)]
    for error in failed:
        if not isinstance(error, MemberError):
            raise error
    if members:
        raise MemberError({model: reason for error in members for model, reason in error.failures.items()})


async def _all_or_none(parts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all; the first error ends the others."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
