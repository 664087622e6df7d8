"""The line of requests: every image is taken once, in order, and what is counted is what waits."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.errors import ServingError
from ensembleflow.inference.batch import Batch, WorkQueue
from ensembleflow.inference.request import (
    DeadlineError,
    Limits,
    MemberUnavailableError,
    QueueFullError,
    Request,
    RequestQueue,
)

MEMBERS = ("a", "b", "c")


def make_request(n_images: int, **options: bool) -> Request:
    images = np.zeros((n_images, 2, 2, 1), np.uint8)
    options = {"allow_partial": False, "with_members": False, **options}
    return Request(images, MEMBERS, 2, arrived_at=0.0, answer=asyncio.get_running_loop().create_future(), **options)


class Put(int):
    """A request of so many images arrives."""


class Take(int):
    """A batch of at most so many images is made."""


class End(int):
    """The request of that number is over: cancelled, or too late."""


steps = st.one_of(
    st.integers(1, 9).map(Put), st.integers(1, 7).map(Take), st.integers(0, 30).map(End), st.just(Take(3))
)


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(steps, max_size=40))
def test_every_image_is_taken_once_in_order_unless_its_request_is_over(steps):
    async def play() -> None:
        queue, requests, taken = RequestQueue(), [], []
        for step in steps:
            waiting = [request for request in requests if request.n_waiting]
            assert queue.n_images == sum(request.n_waiting for request in requests)
            assert queue.n_requests == len(waiting) and queue.waiting() == waiting
            assert queue.oldest() is (waiting[0] if waiting else None)
            if isinstance(step, Put):
                requests.append(make_request(step))
                queue.put(requests[-1])
            elif isinstance(step, End):
                if step < len(requests):
                    requests[step].answer.cancel()
                    await asyncio.sleep(0)
            else:
                n_before = queue.n_images
                segments = queue.take(step)
                assert sum(segment.length for segment in segments) == min(step, n_before)
                assert [segment.batch_start for segment in segments] == list(
                    np.cumsum([0, *(segment.length for segment in segments)])[:-1]
                )
                taken += segments
        for request in requests:
            parts = [(each.request_start, each.length) for each in taken if each.request is request]
            assert [start for start, _ in parts] == list(np.cumsum([0, *(length for _, length in parts)])[:-1])
        assert [each.request for each in taken] == sorted(
            (each.request for each in taken), key=lambda request: requests.index(request)
        )

    asyncio.run(play())


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_an_answer_is_the_mean_of_the_members_that_saw_every_image(data):
    """Batches of any size, members that answer in any order and in pieces, and some that fail."""

    async def play() -> None:
        rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
        queue = RequestQueue()
        requests = [
            make_request(
                data.draw(st.integers(1, 6)),
                allow_partial=data.draw(st.booleans()),
                with_members=data.draw(st.booleans()),
            )
            for _ in range(data.draw(st.integers(1, 4)))
        ]
        for request in requests:
            queue.put(request)
        answers = {id(request): rng.random((3, len(request.images), 2), np.float32) for request in requests}
        missing: dict[int, set[str]] = {id(request): set() for request in requests}
        while segments := queue.take(data.draw(st.integers(1, 7))):
            batch = Batch(0, segments, MEMBERS, 2, 0.0)
            whole = np.concatenate(
                [
                    answers[id(each.request)][:, each.request_start : each.request_start + each.length]
                    for each in segments
                ],
                axis=1,
            )
            for place in data.draw(st.permutations(range(3))):
                work = WorkQueue()
                work.put(batch)
                fails = data.draw(st.integers(0, 4)) == 0
                while part := work.take(data.draw(st.one_of(st.none(), st.integers(1, 4)))):
                    assert not batch.finished
                    if fails:
                        break
                    batch.add(MEMBERS[place], part.start, whole[place, part.start : part.stop])
                if fails:
                    batch.miss(MEMBERS[place], "it died")
                    for each in segments:
                        missing[id(each.request)].add(MEMBERS[place])
            assert batch.finished
            batch.deliver()
        for request in requests:
            used = [place for place, model in enumerate(MEMBERS) if model not in missing[id(request)]]
            if not used or (len(used) < 3 and not request.allow_partial):
                with pytest.raises(MemberUnavailableError, match="not available"):
                    request.answer.result()
                continue
            answer = request.answer.result()
            expected = answers[id(request)][used]
            assert answer.members_used == tuple(MEMBERS[place] for place in used)
            np.testing.assert_allclose(answer.probabilities, expected.mean(axis=0), rtol=1e-6)
            if answer.member_probabilities is not None:
                np.testing.assert_array_equal(answer.member_probabilities, expected)

    asyncio.run(play())


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), data=st.data())
def test_replicas_share_a_members_work_without_gap_or_overlap(lengths, data):
    async def play() -> None:
        queue = WorkQueue()
        batches = []
        for slot, length in enumerate(lengths):
            requests = RequestQueue()
            requests.put(make_request(length))
            batches.append(Batch(slot, requests.take(length), MEMBERS, 2, 0.0))
            queue.put(batches[-1])
        done: list[tuple[int, int]] = []
        held = []
        while (work := queue.take(data.draw(st.one_of(st.none(), st.integers(1, 4))))) is not None:
            if data.draw(st.integers(0, 3)) == 0 and len(held) < 20:
                held.append(work)
                queue.put_back([work])  # its process died
            else:
                done += [(work.batch.slot, image) for image in range(work.start, work.stop)]
        assert sorted(done) == [(slot, image) for slot, length in enumerate(lengths) for image in range(length)]

    asyncio.run(play())


def test_large_images_make_small_batches():
    assert Limits().batch_images((8, 8, 1)) == 256
    assert Limits(max_batch_bytes=10 * 224 * 224 * 3).batch_images((224, 224, 3)) == 10
    assert Limits(max_batch_bytes=1).batch_images((224, 224, 3)) == 1


def test_errors_of_a_busy_ensemble_say_what_to_do():
    error = MemberUnavailableError({"trial-00001": "its process was killed by SIGKILL"})
    assert "trial-00001: its process was killed" in str(error) and "allow_partial" in str(error)
    assert all(issubclass(each, ServingError) for each in (DeadlineError, MemberUnavailableError, QueueFullError))
