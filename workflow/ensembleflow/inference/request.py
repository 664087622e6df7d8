"""Requests to a running ensemble: their limits, their answers, and the line in which they wait."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.errors import ServingError

__all__ = [
    "Answer",
    "DeadlineError",
    "Limits",
    "MemberUnavailableError",
    "QueueFullError",
    "Request",
    "RequestQueue",
    "Segment",
]


@dataclass(frozen=True)
class Limits:
    """How much a running ensemble takes on, and how long it waits.

    Attributes:
        max_queued_images: images that may wait before they are worked at; more are refused.
        max_batch_images: images of one batch, which may be of several requests.
        max_batch_bytes: bytes of a batch's images; large images make smaller batches.
        batches_at_work: batches that members work at at a time, so that a fast one need not wait for a slow one.
        batch_wait_seconds: how long an ensemble that has just answered waits for the next request to make a batch of,
            as long as there are fewer than before; at most a quarter of what the last batch took.
        worker_timeout_seconds: a member's process that is silent so long at work is taken as hung and killed.
        start_timeout_seconds: likewise, while it loads its model.
        warm_up_seconds: for how long a member's process computes batches of usual sizes before it is ready (unless
            it takes the place of one that has failed); engines choose their kernels for a size when they first
            compute it, some 2 to 10 ms that no request should wait.
    """

    max_queued_images: int = 16384
    max_batch_images: int = 256
    max_batch_bytes: int = 64 * 2**20
    batches_at_work: int = 2
    batch_wait_seconds: float = 0.002
    worker_timeout_seconds: float = 60.0
    start_timeout_seconds: float = 300.0
    warm_up_seconds: float = 1.0

    def batch_images(self, image_shape: tuple[int, ...], image_dtype: str = "uint8") -> int:
        """Images of the largest batch, for images of a shape and type."""
        image_bytes = math.prod(image_shape) * np.dtype(image_dtype).itemsize
        return max(1, min(self.max_batch_images, self.max_batch_bytes // image_bytes))


@dataclass(frozen=True)
class Answer:
    """An ensemble's answer to a request.

    Attributes:
        probabilities: the mean of the members', float32 (images, classes).
        members_used: the members that it is the mean of.
        member_probabilities: theirs, float32 (members used, images, classes), if they were asked for; NaN where a
            cascade did not ask a member.
        stages: in a cascade, by how many members each image was answered, int32 (images,).
    """

    probabilities: npt.NDArray[np.float32]
    members_used: tuple[str, ...]
    member_probabilities: npt.NDArray[np.float32] | None = None
    stages: npt.NDArray[np.int32] | None = None

    @property
    def stage(self) -> npt.NDArray[np.int32]:
        """By how many members each image was answered, int32 (images,)."""
        if self.stages is None:
            return np.full(len(self.probabilities), len(self.members_used), np.int32)
        return self.stages


class QueueFullError(ServingError):
    """Too many images wait already.

    Args:
        n_waiting: images that wait.
        n_images: those of the request.
        limit: the most that may wait.
    """

    def __init__(self, n_waiting: int, n_images: int, limit: int) -> None:
        super().__init__(
            "too many images wait",
            found=f"{n_waiting} waiting, {n_images} more",
            expected=f"at most {limit}",
            hint="try again later, or use fewer clients",
        )


class DeadlineError(ServingError):
    """The answer would come too late.

    Args:
        seconds: how long it was waited for.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(
            "the answer would come too late",
            found=f"no answer within {seconds:g} s",
            hint="send fewer images at once, or allow more time",
        )


class MemberUnavailableError(ServingError):
    """A member's process has failed or is being started, and the request wants every member.

    Attributes:
        failures: what happened, by model id.
    """

    def __init__(self, failures: Mapping[str, str]) -> None:
        self.failures = dict(failures)
        super().__init__(
            "a member of the ensemble is not available",
            found="; ".join(f"{model}: {reason}" for model, reason in self.failures.items()),
            hint="try again in some seconds; allow_partial takes the other members' answer",
        )


class Request:
    """Images on their way through the ensemble.

    Args:
        images: (images, *image_shape).
        members: the ensemble's model ids.
        n_classes: number of classes.
        allow_partial: whether an answer may lack members.
        with_members: whether each member's probabilities are wanted.
        arrived_at: the event loop's time.
        answer: what to set when it is answered or has failed.
    """

    def __init__(
        self,
        images: npt.NDArray[Any],
        members: Sequence[str],
        n_classes: int,
        *,
        allow_partial: bool,
        with_members: bool,
        arrived_at: float,
        answer: asyncio.Future[Answer],
    ) -> None:
        self.images = images
        self.allow_partial = allow_partial
        self.arrived_at = arrived_at
        self.answer = answer
        self.n_sent = 0  # images that a batch has taken
        self._members = tuple(members)
        self._with_members = with_members
        self._n_answered = 0
        self._missing: dict[str, str] = {}
        self._probabilities = np.empty((len(images), n_classes), np.float32)
        self._by_member: npt.NDArray[np.float32] | None = None
        if self.needs_members:
            self._by_member = np.empty((len(members), len(images), n_classes), np.float32)

    @property
    def needs_members(self) -> bool:
        """Whether members' probabilities have to be kept apart, rather than their sum only."""
        return self.allow_partial or self._with_members

    @property
    def n_waiting(self) -> int:
        """Images that no batch has taken; none once the request is over."""
        return 0 if self.answer.done() else len(self.images) - self.n_sent

    def fail(self, error: ServingError) -> None:
        """End it without an answer, unless it is over already."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def take(
        self,
        first: int,
        mean: npt.NDArray[np.floating],
        by_member: npt.NDArray[np.float32] | None,
        missing: Mapping[str, str],
    ) -> None:
        """Accept the answer to some of its images; the last one ends the request.

        Args:
            first: the first image's place.
            mean: all members' mean (images, classes); only of worth if none is missing.
            by_member: each member's (members, images, classes), if `needs_members`.
            missing: members that did not answer, with the reason.
        """
        if self.answer.done():
            return
        stop = first + len(mean)
        self._missing.update(missing)
        if self._missing and (not self.allow_partial or len(self._missing) == len(self._members)):
            self.fail(MemberUnavailableError(self._missing))
            return
        self._probabilities[first:stop] = mean
        if self._by_member is not None:
            assert by_member is not None
            self._by_member[:, first:stop] = by_member
        self._n_answered += len(mean)
        if self._n_answered == len(self.images):
            self.answer.set_result(self._result())

    def _result(self) -> Answer:
        if self._by_member is None:
            return Answer(self._probabilities, self._members)
        used = [place for place, model in enumerate(self._members) if model not in self._missing]
        by_member = self._by_member[used] if self._missing else self._by_member
        if self._missing:
            # Parts of a long request may lack different members: the answer is of those that saw every image.
            self._probabilities[:] = by_member.mean(axis=0, dtype=np.float64)
        members_used = tuple(self._members[place] for place in used)
        return Answer(self._probabilities, members_used, by_member if self._with_members else None)


@dataclass(frozen=True)
class Segment:
    """Consecutive images of a request within a batch.

    Attributes:
        request: whose they are.
        request_start: the first one's place in the request.
        batch_start: its place in the batch.
        length: how many.
    """

    request: Request
    request_start: int
    batch_start: int
    length: int


class RequestQueue:
    """Requests in the order in which they came; those that are over are passed by.

    Attributes:
        n_images: images that wait.
        n_requests: requests that have such images.
    """

    def __init__(self) -> None:
        self.n_images = 0
        self.n_requests = 0
        self._requests: deque[Request] = deque()

    def put(self, request: Request) -> None:
        """Let a request wait behind all others."""
        self._requests.append(request)
        self.n_images += len(request.images)
        self.n_requests += 1
        request.answer.add_done_callback(lambda _: self._forget(request))

    def take(self, max_images: int) -> list[Segment]:
        """The next images, at most so many, in the order in which they came.

        A request longer than that is continued in the next batch.
        """
        segments: list[Segment] = []
        n_taken = 0
        while self._requests and n_taken < max_images:
            request = self._requests[0]
            length = min(request.n_waiting, max_images - n_taken)
            if length:
                segments.append(Segment(request, request.n_sent, n_taken, length))
                self._count(request, length)
                n_taken += length
            if not request.n_waiting:
                self._requests.popleft()
        return segments

    def waiting(self) -> list[Request]:
        """The requests with images that wait, the oldest first."""
        return [request for request in self._requests if request.n_waiting]

    def oldest(self) -> Request | None:
        """The request that has waited longest."""
        while self._requests and not self._requests[0].n_waiting:
            self._requests.popleft()
        return self._requests[0] if self._requests else None

    def _forget(self, request: Request) -> None:
        # Also what has been answered comes here: nothing of it waits.
        self._count(request, len(request.images) - request.n_sent)

    def _count(self, request: Request, n_images: int) -> None:
        request.n_sent += n_images
        self.n_images -= n_images
        if n_images and request.n_sent == len(request.images):
            self.n_requests -= 1
