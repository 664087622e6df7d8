"""A dispatcher at work in a thread's event loop, for tests that ask it from outside."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from ensembleflow.inference import AnyDispatcher, Observer


class Counting(Observer):
    """Keeps what an observer is called with."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.images: dict[str, int] = {}
        self.failures: list[tuple[str, str]] = []
        self.seen: list[dict[str, int]] = []

    def batch_finished(self, n_images: int, n_requests: int, seconds: float) -> None:
        self.batches.append((n_images, n_requests))

    def member_answered(self, model: str, n_images: int, seconds: float) -> None:
        self.images[model] = self.images.get(model, 0) + n_images

    def member_failed(self, model: str, reason: str) -> None:
        self.failures.append((model, reason))

    def cascade_answered(self, n_seen: Mapping[str, int]) -> None:
        self.seen.append(dict(n_seen))


class Running:
    """A dispatcher and the loop that it runs in."""

    def __init__(self, dispatcher: AnyDispatcher, loop: asyncio.AbstractEventLoop) -> None:
        self.dispatcher = dispatcher
        self.loop = loop

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.begin(coroutine).result(timeout=120)

    def submit(self, *arguments: Any, **options: Any) -> Future[Any]:
        return self.begin(self.dispatcher.submit(*arguments, **options))

    def call(self, function: Callable[[], Any]) -> Any:
        """Its result, in the dispatcher's own thread."""

        async def answer() -> Any:
            return function()

        return self.wait(answer())

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so; a minute at most."""
        for _ in range(6000):
            if self.call(condition):
                return
            time.sleep(0.01)
        raise AssertionError("it did not come")

    def pids(self) -> list[int]:
        return [status.pid for status in self.call(self.dispatcher.status)]


@contextmanager
def running(make: Callable[[], AnyDispatcher]) -> Iterator[Running]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    it = Running(make(), loop)
    try:
        it.wait(it.dispatcher.start())
        yield it
    finally:
        it.wait(it.dispatcher.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
