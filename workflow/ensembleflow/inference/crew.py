"""The processes of an ensemble's members: who works at what, who is hung, who has to be started anew."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ensembleflow.inference.batch import Batch, Work, WorkQueue
from ensembleflow.inference.deployment import Deployment
from ensembleflow.inference.devices import Device
from ensembleflow.inference.observer import Observer
from ensembleflow.inference.placement import Member, Placement
from ensembleflow.inference.shared_array import SharedArray
from ensembleflow.inference.worker import MemberError, Worker, WorkerState, WorkerStatus

__all__ = ["Crew"]

_LOG = logging.getLogger(__name__)

_ORDERS_AHEAD = 2  # so that a process need not wait for its next order
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0


@dataclass(eq=False)
class _Post:
    """One replica's place: its process, or what became of it.

    Attributes:
        unanswered: the orders to predict that it has not answered, in order.
        settled: done once it has answered to its start or change: None, or why it failed.
        reason: why there is no process that is ready.
    """

    member: Member
    placement: Placement
    device: Device
    worker: Worker | None = None
    unanswered: deque[Work] = field(default_factory=deque)
    settled: asyncio.Future[str | None] | None = None
    timer: asyncio.TimerHandle | None = None
    restart: asyncio.TimerHandle | None = None
    n_restarts: int = 0
    n_failures_in_row: int = 0
    reason: str = "its process is being started"

    @property
    def ready(self) -> bool:
        return self.worker is not None and self.worker.ready

    def settle(self, failure: str | None) -> None:
        if self.settled is not None and not self.settled.done():
            self.settled.set_result(failure)

    def cancel_timers(self) -> None:
        for timer in (self.timer, self.restart):
            if timer is not None:
                timer.cancel()
        self.timer = self.restart = None

    def status(self) -> WorkerStatus:
        state: WorkerState = "ready" if self.ready else "starting" if self.worker is not None else "restarting"
        return WorkerStatus(
            self.placement.model,
            self.placement.device,
            self.placement.batch_size,
            self.placement.engine,
            state,
            0 if self.worker is None else self.worker.pid,
            self.n_restarts,
            0.0 if self.worker is None else self.worker.peak_memory_mb,
        )


class Crew:
    """The processes, in an asyncio event loop.

    Args:
        deployment: the ensemble, and how long a process may be silent.
        images: shared (slots, images, *image_shape).
        restarts: whether processes that end are started anew.
        on_progress: called with a batch after a member has answered a part of it, or failed.
        on_failure: called with the members that have no process, and why, whenever one loses its last.
        observer: called with what happens.

    Attributes:
        changing: whether processes are being started or changed by `configure`.
    """

    def __init__(
        self,
        deployment: Deployment,
        images: SharedArray,
        *,
        restarts: bool,
        on_progress: Callable[[Batch], None],
        on_failure: Callable[[Mapping[str, str]], None],
        observer: Observer,
    ) -> None:
        self.changing = False
        self._deployment = deployment
        self._limits = deployment.limits
        self._members = {member.model: member for member in deployment.members}
        self._images = images
        self._restarts = restarts
        self._on_progress = on_progress
        self._on_failure = on_failure
        self._observer = observer
        self._queues = {model: WorkQueue() for model in self._members}
        self._posts: list[_Post] = []
        self._posts_of: dict[str, list[_Post]] = {model: [] for model in self._members}
        self._loop = asyncio.get_running_loop()

    def unavailable(self) -> dict[str, str]:
        """The members without a process that can answer, and why."""
        if self._posts and all(post.ready for post in self._posts):
            return {}  # at once, since every request asks
        return {
            model: next((post.reason for post in self._posts_of[model]), _Post.reason)
            for model in self._members
            if not any(post.ready for post in self._posts_of[model])
        }

    def status(self) -> list[WorkerStatus]:
        """How each replica is, in the allocation's order."""
        return [post.status() for post in self._posts]

    async def configure(self, placed: Sequence[tuple[Placement, Device]]) -> None:
        """Have a process for each placement, keeping those that fit; to be called when none is at work.

        Raises:
            MemberError: members could not start or change; the others did.
        """
        self.changing = True
        try:
            self._posts = self._posts_for(placed)
            for model in self._members:
                self._posts_of[model] = [post for post in self._posts if post.member.model == model]
            failures = {}
            for post in self._posts:
                failure = None if post.settled is None else await post.settled
                if failure is not None:
                    failures[post.member.model] = failure
        finally:
            self.changing = False
        if failures:
            raise MemberError(failures)

    def predict(self, batch: Batch) -> None:
        """Have every member predict a batch; those that have no process miss it."""
        unavailable = self.unavailable()
        for model, queue in self._queues.items():
            if model in unavailable:
                batch.miss(model, unavailable[model])
            else:
                queue.put(batch)
                for post in self._posts_of[model]:
                    self._give(post)

    def close(self) -> None:
        """End all processes."""
        for post in self._posts:
            self._dismiss(post)
            post.settle("the ensemble is not running")
        self._posts = []
        self._posts_of = {model: [] for model in self._members}

    def _posts_for(self, placed: Sequence[tuple[Placement, Device]]) -> list[_Post]:
        left = [post for post in self._posts if post.ready]
        for post in self._posts:
            if not post.ready:
                self._dismiss(post)
        found: dict[int, _Post] = {}
        # First whoever is there already, so that nobody takes the process of another replica.
        for suits in (_is_there, _can_move):
            for place, (placement, device) in enumerate(placed):
                suited = next((post for post in left if suits(post, placement, device)), None)
                if place not in found and suited is not None:
                    left.remove(suited)
                    found[place] = suited
        # Before others start: they may need the memory.
        for post in left:
            self._dismiss(post)
        posts = []
        for place, (placement, device) in enumerate(placed):
            posts.append(found.get(place) or _Post(self._members[placement.model], placement, device))
            self._settle_in(posts[-1], placement, device)
        return posts

    def _settle_in(self, post: _Post, placement: Placement, device: Device) -> None:
        changed = (post.placement, post.device) != (placement, device)
        post.placement, post.device, post.settled = placement, device, None
        if post.worker is None:
            post.settled = self._loop.create_future()
            self._start(post)
        elif changed:
            post.settled = self._loop.create_future()
            post.worker.configure(placement, device)
            self._watch(post, self._limits.start_timeout_seconds)

    def _start(self, post: _Post) -> None:
        try:
            post.worker = Worker(
                post.member,
                post.placement,
                post.device,
                self._images,
                self._deployment.n_classes,
                # One that comes back is waited for.
                0.0 if post.n_restarts else self._limits.warm_up_seconds,
                self._deployment.fork_server,
            )
        except OSError as error:
            self._lose(post, f"its process cannot be started: {error.strerror}")
            return
        self._loop.add_reader(post.worker.fileno(), self._receive, post, post.worker)
        self._watch(post, self._limits.start_timeout_seconds)

    def _receive(self, post: _Post, worker: Worker) -> None:
        # One message a call: while there are more, the event loop calls again.
        if post.worker is not worker:
            return
        try:
            message = worker.receive()
        except EOFError:
            self._lose(post, worker.reason_of_death())
        else:
            self._heed(post, worker, *message)

    def _heed(self, post: _Post, worker: Worker, answer: str, value: Any) -> None:
        if answer == "failed":
            self._lose(post, value)
            return
        if answer == "ready":
            worker.peak_memory_mb = value
            worker.ready = True
            post.settle(None)
            self._watch(post, None)
        elif answer == "done":
            post.n_failures_in_row = 0
            work = post.unanswered.popleft()
            self._watch(post, self._limits.worker_timeout_seconds if post.unanswered else None)
            self._observer.member_answered(post.member.model, work.stop - work.start, value)
            work.batch.add(post.member.model, work.start, worker.probabilities[work.batch.slot, work.start : work.stop])
            # Its next order first, for it waits; then what its answer leads to.
            self._give(post)
            self._on_progress(work.batch)
            return
        self._give(post)

    def _give(self, post: _Post) -> None:
        """Order a process to predict, as far as it can take orders and there is work."""
        queue = self._queues[post.member.model]
        shared = sum(each.ready for each in self._posts_of[post.member.model]) > 1
        while post.worker is not None and post.ready and len(post.unanswered) < _ORDERS_AHEAD:
            work = queue.take(post.placement.batch_size if shared else None)
            if work is None:
                return
            post.unanswered.append(work)
            post.worker.order("predict", work.batch.slot, work.start, work.stop)
            if len(post.unanswered) == 1:
                self._watch(post, self._limits.worker_timeout_seconds)

    def _watch(self, post: _Post, seconds: float | None) -> None:
        """Take the process as hung if nothing comes from it for so long; None: it has nothing to do."""
        if post.timer is not None:
            post.timer.cancel()
        post.timer = None
        if seconds is not None:
            hung = f"its process hung: nothing came from it for {seconds:g} s"
            post.timer = self._loop.call_later(seconds, self._lose, post, hung)

    def _lose(self, post: _Post, reason: str) -> None:
        lost, model = list(post.unanswered), post.member.model
        self._dismiss(post)
        post.reason = reason
        post.n_failures_in_row += 1
        post.settle(reason)
        if not self.changing:
            _LOG.warning("%s on %s: %s", model, post.placement.device, reason)
            self._observer.member_failed(model, reason)
            if self._restarts:
                self._restart_later(post)
        queue = self._queues[model]
        others = [each for each in self._posts_of[model] if each.ready]
        if others:
            queue.put_back(lost)
            for other in others:
                self._give(other)
            return
        batches = {id(work.batch): work.batch for work in (*lost, *queue.clear())}
        for batch in batches.values():
            batch.miss(model, reason)
        self._on_failure(self.unavailable())
        for batch in batches.values():
            self._on_progress(batch)

    def _restart_later(self, post: _Post) -> None:
        n_before = post.n_failures_in_row - 1
        pause = min(_FIRST_PAUSE_SECONDS * 2 ** (n_before - 1), _LONGEST_PAUSE_SECONDS) if n_before else 0.0
        post.restart = self._loop.call_later(pause, self._restart_now, post)

    def _restart_now(self, post: _Post) -> None:
        post.n_restarts += 1
        self._start(post)

    def _dismiss(self, post: _Post) -> None:
        post.cancel_timers()
        post.unanswered.clear()
        if post.worker is not None:
            self._loop.remove_reader(post.worker.fileno())
            post.worker.end()
            post.worker = None


def _is_there(post: _Post, placement: Placement, device: Device) -> bool:
    return (post.member.model, post.placement.engine, post.device) == (placement.model, placement.engine, device)


def _can_move(post: _Post, placement: Placement, device: Device) -> bool:
    """Whether its process can serve there: TensorFlow's threads and its GPU are fixed at its start."""
    return (
        (post.member.model, post.placement.engine) == (placement.model, placement.engine)
        and post.device.gpu is None
        and device.gpu is None
        and len(post.device.core_ids) == len(device.core_ids)
    )
