"""An ensemble at work for callers that wait."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Coroutine
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from ensembleflow.inference.cascade import make_dispatcher
from ensembleflow.inference.deployment import Deployment
from ensembleflow.inference.placement import Allocation
from ensembleflow.inference.request import MemberUnavailableError
from ensembleflow.inference.worker import MemberError, WorkerStatus

__all__ = ["Pipeline"]

_LOG = logging.getLogger(__name__)

_T = TypeVar("_T")


class Pipeline:
    """A dispatcher in a thread of its own. Use it in a `with` block: leaving it ends the members' processes.

    Args:
        deployment: the ensemble, and how it is run; of its limits those of batches count: any number of images may
            wait.
        allocation: where to start.

    Raises:
        AllocationError: the allocation names other members or unknown devices.
    """

    def __init__(self, deployment: Deployment, allocation: Allocation) -> None:
        # What is asked for at once makes full batches; nobody else's requests are to be waited for.
        limits = replace(deployment.limits, max_queued_images=2**62, batch_wait_seconds=0.0, warm_up_seconds=0.0)
        self._dispatcher = make_dispatcher(replace(deployment, limits=limits), allocation, restarts=False)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pipeline", daemon=True)

    def __enter__(self) -> Self:
        started_at = time.monotonic()
        self._thread.start()
        try:
            self._await(self._dispatcher.start())
        except BaseException:
            self.close()
            raise
        _LOG.info(
            "%d members ready after %.1f s", len(self._dispatcher.deployment.members), time.monotonic() - started_at
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def allocation(self) -> Allocation:
        """The present allocation."""
        return self._dispatcher.allocation

    def status(self) -> list[WorkerStatus]:
        """How each replica is, in the allocation's order."""
        return self._dispatcher.status()

    def reconfigure(self, allocation: Allocation) -> None:
        """Change to another allocation, restarting as few processes as possible (`Dispatcher.reconfigure`)."""
        self._await(self._dispatcher.reconfigure(allocation))

    def predict(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The ensemble's class probabilities: the mean of its members', in a cascade of those that saw the image.

        A member whose process has died since the last call is first started anew.

        Args:
            images: (images, *image_shape).

        Returns:
            float32 (images, classes).

        Raises:
            MemberError: a member failed. The pipeline can go on being used.
            ValueError: `images` has another shape or type.
        """
        if not self._dispatcher.ready:
            self.reconfigure(self.allocation)
        return self._await(self._predict(images))

    def close(self) -> None:
        """End all processes and give the shared memory back."""
        if self._thread.is_alive():
            self._await(self._dispatcher.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    async def _predict(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        try:
            return (await self._dispatcher.submit(images)).probabilities
        except MemberUnavailableError as error:
            raise MemberError(error.failures) from None

    def _await(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
