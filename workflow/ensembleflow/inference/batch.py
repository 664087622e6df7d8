"""Batches: images at work, in one slot of the shared memory, and what the members have answered so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ensembleflow.inference.request import Segment

__all__ = ["Batch", "Work", "WorkQueue"]


class Batch:
    """Images of one or several requests that the members work at.

    Args:
        slot: the place in the shared memory.
        segments: whose images they are.
        members: the ensemble's model ids.
        n_classes: number of classes.
        started_at: the event loop's time.
    """

    def __init__(
        self, slot: int, segments: Sequence[Segment], members: Sequence[str], n_classes: int, started_at: float
    ) -> None:
        self.slot = slot
        self.segments = list(segments)
        self.started_at = started_at
        self.n_images = sum(segment.length for segment in segments)
        self._places = {model: place for place, model in enumerate(members)}
        self._unanswered = dict.fromkeys(members, self.n_images)
        self._missing: dict[str, str] = {}
        # In float64 the sum of a few float32 values does not depend on their order (to float32's precision).
        self._total = np.zeros((self.n_images, n_classes))
        self._by_member: npt.NDArray[np.float32] | None = None
        if any(segment.request.needs_members for segment in segments):
            self._by_member = np.zeros((len(members), self.n_images, n_classes), np.float32)

    @property
    def finished(self) -> bool:
        """Whether every member has answered or failed."""
        return not self._unanswered

    def add(self, model: str, start: int, probabilities: npt.NDArray[np.float32]) -> None:
        """Accept a member's probabilities (images, classes) of the images from `start` on."""
        stop = start + len(probabilities)
        self._total[start:stop] += probabilities
        if self._by_member is not None:
            self._by_member[self._places[model], start:stop] = probabilities
        if model in self._unanswered:
            self._unanswered[model] -= len(probabilities)
            if not self._unanswered[model]:
                del self._unanswered[model]

    def miss(self, model: str, reason: str) -> None:
        """Do without a member, unless it has answered already."""
        if self._unanswered.pop(model, None) is not None:
            self._missing[model] = reason

    def deliver(self) -> None:
        """Give each request its part of the answer."""
        mean = self._total / len(self._places)
        for segment in self.segments:
            part = slice(segment.batch_start, segment.batch_start + segment.length)
            by_member = None if self._by_member is None else self._by_member[:, part]
            segment.request.take(segment.request_start, mean[part], by_member, self._missing)


@dataclass
class Work:
    """Images of a batch that one process predicts at a time.

    Attributes:
        batch: the batch.
        start: the first image's place in it.
        stop: behind the last one's.
    """

    batch: Batch
    start: int
    stop: int


class WorkQueue:
    """The images that a member has still to predict; its replicas share them."""

    def __init__(self) -> None:
        self._works: deque[Work] = deque()

    def put(self, batch: Batch) -> None:
        """Add a whole batch."""
        self._works.append(Work(batch, 0, batch.n_images))

    def put_back(self, works: Sequence[Work]) -> None:
        """Return what a process did not finish, to be done first."""
        self._works.extendleft(reversed(works))

    def take(self, max_images: int | None) -> Work | None:
        """The next images, at most so many (None: as many as belong together); None if there are none."""
        if not self._works:
            return None
        work = self._works[0]
        if max_images is None or work.stop - work.start <= max_images:
            return self._works.popleft()
        taken = Work(work.batch, work.start, work.start + max_images)
        work.start = taken.stop
        return taken

    def clear(self) -> list[Work]:
        """Take everything."""
        works = list(self._works)
        self._works.clear()
        return works
