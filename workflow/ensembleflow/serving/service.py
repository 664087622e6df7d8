"""A bundle's ensemble at work, as the server's routes see it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.errors import BundleError, ConfigError, ServingError
from ensembleflow.inference import Answer, AnyDispatcher
from ensembleflow.serving.bundle import MANIFEST, Bundle, require_equal_answers, split_check_images
from ensembleflow.serving.metrics import Metrics
from ensembleflow.serving.signature import Signature, most_images

__all__ = ["NotReadyError", "Service"]

_DECODING_THREADS = 2  # bounds the memory of large images


class NotReadyError(ServingError):
    """The members are being started, or have not yet been proven to answer as the bundle says."""


class Service:
    """A bundle's ensemble at work; it answers only once it has answered the bundle's check images as it should.

    Args:
        bundle: what is served. The model's name is the study, its version the budget.
        dispatcher: its ensemble, not yet started.
        max_images: the most images of one request; by default 1,024, or what 32 MB hold.
        request_timeout_seconds: how long a request may take at most.
        checks_answers: whether it first has to answer the check images; only who makes a bundle compares by itself.

    Attributes:
        bundle: as given.
        metrics: what it counts.
        signature: what the model is called and takes.
        decoding: threads for image files.

    Raises:
        BundleError: no server has been proven to answer from this bundle as its cache says.
        ConfigError: the dispatcher's queue is shorter than one request.
    """

    def __init__(
        self,
        bundle: Bundle,
        dispatcher: AnyDispatcher,
        *,
        max_images: int | None = None,
        request_timeout_seconds: float = 60.0,
        checks_answers: bool = True,
    ) -> None:
        self.bundle = bundle
        self.dispatcher = dispatcher
        manifest = bundle.manifest
        if checks_answers and manifest.servable is None:
            raise BundleError(
                "the bundle is not servable",
                where=f"{bundle.path / MANIFEST}: servable",
                expected="the proof that a server answers from it as the cached predictions say",
                hint="make the bundle again: snakemake bundles",
            )
        if max_images is None:
            max_images = most_images(manifest.image_shape, manifest.image_dtype)
        if max_images > dispatcher.deployment.limits.max_queued_images:
            raise ConfigError(
                "the longest request would never find room",
                where="--max-queued-images",
                found=dispatcher.deployment.limits.max_queued_images,
                expected=f"at least --max-request-images, which is {max_images}",
            )
        self.signature = Signature(
            manifest.study, manifest.budget, manifest.image_shape, max_images, manifest.image_dtype
        )
        self.metrics = Metrics(dispatcher.status, lambda: dispatcher.queued_images, lambda: self.ready)
        if manifest.cascade is not None:
            intervals = dict(zip(manifest.cascade.members, manifest.cascade.share_intervals, strict=True))
            self.metrics.watch_cascade(intervals)
        dispatcher.observer = self.metrics
        self.decoding = ThreadPoolExecutor(_DECODING_THREADS, thread_name_prefix="decode")
        self._request_timeout_seconds = request_timeout_seconds
        self._checks_answers = checks_answers
        self._checked = False

    @property
    def ready(self) -> bool:
        """Whether every member is there, and the ensemble has answered as the bundle says."""
        return self._checked and self.dispatcher.ready

    async def start(self) -> None:
        """Start the members, and have them answer the bundle's check images.

        Raises:
            BundleError: an answer differs by more than its engines' tolerance.
            MemberError: a member cannot run.
        """
        await self.dispatcher.start()
        if self._checks_answers:
            await self._check_answers()
        self._checked = True

    async def _check_answers(self) -> None:
        parts = split_check_images(self.bundle.check_images(), self.dispatcher.deployment.limits.max_queued_images)
        answers = [await self.dispatcher.submit(part) for part in parts]
        require_equal_answers(
            np.concatenate([answer.probabilities for answer in answers]),
            self.bundle.check_probabilities(),
            self.bundle.answer_tolerance(self.dispatcher.allocation),
            self.bundle.path,
        )

    async def close(self) -> None:
        """End the members' processes."""
        self._checked = False
        self.decoding.shutdown(wait=False, cancel_futures=True)
        await self.dispatcher.close()

    async def answer(
        self,
        images: npt.NDArray[Any],
        *,
        allow_partial: bool = False,
        with_members: bool = False,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """The ensemble's answer to a request, within the server's or the client's time, whichever is less.

        Args:
            images: (images, *image_shape), of the bundle's type.
            allow_partial: take the mean of those members that are available.
            with_members: keep each member's probabilities as well.
            timeout_seconds: how long the client waits; None for the server's limit.

        Raises:
            ServingError: there is no answer now.
        """
        if not self._checked:
            raise NotReadyError("the members are being started", hint="try again in some seconds")
        limit = self._request_timeout_seconds
        return await self.dispatcher.submit(
            images,
            allow_partial=allow_partial,
            with_members=with_members,
            deadline_seconds=limit if timeout_seconds is None else min(limit, timeout_seconds),
        )
