"""An ensemble at work under load and when its parts fail, with real processes."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from ensembleflow.config import DeviceConfig
from ensembleflow.inference import (
    DeadlineError,
    Deployment,
    Dispatcher,
    Limits,
    Member,
    MemberUnavailableError,
    Placement,
    QueueFullError,
    assign_cores,
)
from support.running_dispatcher import Counting, Running, running

IMAGE_SHAPE = (8, 8, 1)
LIMITS = Limits(max_queued_images=400, max_batch_images=50, worker_timeout_seconds=4.0)


@pytest.fixture(scope="module")
def observer() -> Counting:
    return Counting()


@pytest.fixture(scope="module")
def started(exported, observer):
    """Three members; the second has two replicas."""
    first, second, third = exported.models
    devices = assign_cores([DeviceConfig(name="cpu0", cores=1), DeviceConfig(name="cpu1", cores=1)])
    allocation = (
        Placement(first, "cpu0", 16),
        Placement(second, "cpu0", 8),
        Placement(second, "cpu1", 4),
        Placement(third, "cpu1", 64),
    )
    members = [Member(model, exported.folder / model) for model in exported.models]
    deployment = Deployment(members, devices, IMAGE_SHAPE, n_classes=10, limits=LIMITS)
    with running(lambda: Dispatcher(deployment, allocation, observer=observer)) as it:
        yield it


@pytest.fixture
def ensemble(started: Running) -> Running:
    """The same, with all of its processes ready and nothing to do."""
    started.until(lambda: all(each.state == "ready" for each in started.dispatcher.status()))
    started.until(lambda: started.dispatcher.queued_images == 0)
    return started


def stop(ensemble: Running, *places: int) -> list[int]:
    """Have processes answer nothing until they are killed or continued."""
    pids = [ensemble.pids()[place] for place in places]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


def test_each_answer_belongs_to_its_own_request_whatever_else_is_asked(ensemble, exported, observer):
    observer.batches.clear()
    failures: list[BaseException] = []
    n_asked = []

    def ask(seed: int) -> None:
        random = np.random.default_rng(seed)
        try:
            for _ in range(40):
                images = random.integers(0, 256, (random.integers(0, 70), *IMAGE_SHAPE), dtype=np.uint8)
                answer = ensemble.submit(images, with_members=bool(random.integers(2))).result(timeout=60)
                np.testing.assert_allclose(answer.probabilities, exported.average(images), atol=1e-6)
                assert answer.members_used == exported.models
                n_asked.append(len(images))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(n_asked) == 240
    assert sum(n_images for n_images, _ in observer.batches) == sum(n_asked)
    assert max(n_requests for _, n_requests in observer.batches) > 1, "no batch was of several requests"


def test_members_probabilities_come_in_the_ensembles_order(ensemble, exported, images):
    answer = ensemble.submit(images, with_members=True).result(timeout=60)
    expected = [exported.answers(model, images) for model in exported.models]
    np.testing.assert_allclose(answer.member_probabilities, expected, atol=1e-6)
    assert ensemble.submit(images).result(timeout=60).member_probabilities is None


def test_what_waits_beyond_the_limit_is_refused_and_the_rest_is_answered(ensemble, exported):
    random = np.random.default_rng(5)
    requests = [random.integers(0, 256, (50, *IMAGE_SHAPE), dtype=np.uint8) for _ in range(11)]
    stopped = stop(ensemble, 0)
    answers = [ensemble.submit(images) for images in requests]
    # Two batches are at work, eight requests wait: there is no room for the eleventh.
    with pytest.raises(QueueFullError, match="too many images wait") as caught:
        answers[-1].result(timeout=60)
    assert "400 waiting, 50 more" in str(caught.value)
    signal_all(stopped, signal.SIGCONT)
    for images, answer in zip(requests[:-1], answers, strict=False):
        np.testing.assert_allclose(answer.result(timeout=60).probabilities, exported.average(images), atol=1e-6)


def test_an_answer_that_is_late_or_unwanted_is_given_up_and_makes_room(ensemble, exported, images):
    stopped = stop(ensemble, 3)
    at_work = [ensemble.submit(images[:50]) for _ in range(2)]
    late = ensemble.submit(images[:30], deadline_seconds=0.2)
    with pytest.raises(DeadlineError, match=r"(?s)too late.*within 0.2 s"):
        late.result(timeout=60)
    unwanted = ensemble.submit(images[:40])
    ensemble.until(lambda: ensemble.dispatcher.queued_images == 40)
    unwanted.cancel()
    with pytest.raises(CancelledError):
        unwanted.result()
    ensemble.until(lambda: ensemble.dispatcher.queued_images == 0)
    signal_all(stopped, signal.SIGCONT)
    for answer in at_work:
        np.testing.assert_allclose(answer.result(timeout=60).probabilities, exported.average(images[:50]), atol=1e-6)


def test_a_replica_that_is_killed_at_work_is_replaced_by_the_other_without_a_failure(ensemble, exported, images):
    stopped = stop(ensemble, 1)
    answer = ensemble.submit(images)
    with pytest.raises(TimeoutError):
        answer.result(timeout=0.3)  # it has work that nobody answers
    signal_all(stopped, signal.SIGKILL)
    np.testing.assert_allclose(answer.result(timeout=60).probabilities, exported.average(images), atol=1e-6)
    ensemble.until(lambda: ensemble.dispatcher.status()[1].state == "ready")
    assert ensemble.pids()[1] != stopped[0]


def test_a_member_that_is_killed_fails_requests_until_it_is_back_and_no_answer_is_wrong(
    ensemble, exported, images, observer
):
    stopped = stop(ensemble, 0)
    at_work, waiting = ensemble.submit(images[:50]), ensemble.submit(images[:20])
    partial = ensemble.submit(images, allow_partial=True)
    with pytest.raises(TimeoutError):
        at_work.result(timeout=0.3)
    signal_all(stopped, signal.SIGKILL)
    for failed in (at_work, waiting):
        with pytest.raises(MemberUnavailableError, match="not available") as caught:
            failed.result(timeout=60)
        assert list(caught.value.failures) == [exported.models[0]]
        assert "SIGKILL" in str(caught.value)
    answer = partial.result(timeout=60)
    assert answer.members_used == exported.models[1:]
    np.testing.assert_allclose(answer.probabilities, exported.average(images, exported.models[1:]), atol=1e-6)
    with pytest.raises(MemberUnavailableError, match="SIGKILL"):
        ensemble.submit(images).result(timeout=60)
    assert not ensemble.call(lambda: ensemble.dispatcher.ready)

    ensemble.until(lambda: ensemble.dispatcher.ready)
    np.testing.assert_allclose(
        ensemble.submit(images).result(timeout=60).probabilities, exported.average(images), atol=1e-6
    )
    assert ensemble.call(ensemble.dispatcher.status)[0].restarts == 1
    assert observer.failures[-1][0] == exported.models[0]


def test_a_member_that_hangs_is_killed_and_started_anew(ensemble, exported, images):
    stopped = stop(ensemble, 3)
    with pytest.raises(MemberUnavailableError, match="not available") as caught:
        ensemble.submit(images).result(timeout=60)
    assert "hung: nothing came from it for 4 s" in str(caught.value)
    ensemble.until(lambda: ensemble.dispatcher.ready)
    assert ensemble.pids()[3] != stopped[0]
    np.testing.assert_allclose(
        ensemble.submit(images).result(timeout=60).probabilities, exported.average(images), atol=1e-6
    )


def test_without_any_member_even_a_partial_answer_is_refused(ensemble, images):
    pids = ensemble.pids()
    stop(ensemble, *range(len(pids)))
    answer = ensemble.submit(images, allow_partial=True)
    signal_all(pids, signal.SIGKILL)
    with pytest.raises(MemberUnavailableError) as caught:
        answer.result(timeout=60)
    assert len(caught.value.failures) == 3
    ensemble.until(lambda: ensemble.dispatcher.ready)
