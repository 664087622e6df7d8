"""A cascade at work, with real processes: who sees which image, and what is answered when parts fail."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest

from ensembleflow.config import DeviceConfig
from ensembleflow.errors import AllocationError
from ensembleflow.inference import (
    CascadeDispatcher,
    DeadlineError,
    Deployment,
    Limits,
    Member,
    MemberError,
    MemberUnavailableError,
    Pipeline,
    Placement,
    QueueFullError,
    StopRule,
    assign_cores,
    make_dispatcher,
)
from ensembleflow.selection.cascade import Stages
from support.running_dispatcher import Counting, Running, running

IMAGE_SHAPE = (8, 8, 1)
LIMITS = Limits(max_queued_images=400, max_batch_images=50, worker_timeout_seconds=4.0)


def random_images(seed: int, n_images: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n_images, *IMAGE_SHAPE), dtype=np.uint8)


@pytest.fixture(scope="module")
def order(exported) -> tuple[str, ...]:
    """Another one than the ensemble's."""
    return exported.models[1], exported.models[2], exported.models[0]


def stages_of(exported, order, images) -> Stages:
    return Stages.of(np.stack([exported.answers(model, images) for model in order]))


@pytest.fixture(scope="module")
def rule(exported, order) -> StopRule:
    """A third of all images stops at each stage."""
    stages = stages_of(exported, order, random_images(0, 3000))
    first = np.quantile(stages.confidences[0], 2 / 3)
    goes_on = stages.confidences[0] < first
    return StopRule(order, (float(first), float(np.quantile(stages.confidences[1, goes_on], 0.5))))


@pytest.fixture(scope="module")
def deployment(exported, rule) -> Deployment:
    devices = assign_cores([DeviceConfig(name="cpu0", cores=1), DeviceConfig(name="cpu1", cores=1)])
    members = [Member(model, exported.folder / model) for model in exported.models]
    return Deployment(members, devices, IMAGE_SHAPE, n_classes=10, limits=LIMITS, stop_rule=rule)


@pytest.fixture(scope="module")
def allocation(exported):
    first, second, third = exported.models
    return (
        Placement(first, "cpu0", 16),
        Placement(second, "cpu0", 8),
        Placement(second, "cpu1", 4),
        Placement(third, "cpu1", 64),
    )


@pytest.fixture(scope="module")
def observer() -> Counting:
    return Counting()


@pytest.fixture(scope="module")
def started(deployment, allocation, observer):
    with running(lambda: make_dispatcher(deployment, allocation, observer=observer)) as it:
        assert isinstance(it.dispatcher, CascadeDispatcher)
        yield it


@pytest.fixture
def cascade(started: Running) -> Running:
    started.until(lambda: all(each.state == "ready" for each in started.dispatcher.status()))
    started.until(lambda: started.dispatcher.queued_images == 0)
    return started


def near_a_threshold(stages: Stages, rule: StopRule) -> np.ndarray:
    """Images that rounding may stop at another stage."""
    return (abs(stages.confidences[:-1] - np.reshape(rule.thresholds, (-1, 1))) < 1e-5).any(axis=0)


def require_right(answer, images, exported, rule) -> None:
    stages = stages_of(exported, rule.members, images)
    sure = ~near_a_threshold(stages, rule)
    stops = stages.stops(rule.thresholds)
    assert (answer.stage == stops + 1)[sure].all()
    members = np.stack([exported.answers(model, images) for model in rule.members]).astype(np.float64)
    for image in np.flatnonzero(sure):
        expected = members[: stops[image] + 1, image].mean(axis=0)
        np.testing.assert_allclose(answer.probabilities[image], expected, atol=1e-6)


def test_each_image_stops_where_the_cached_answers_say_and_is_the_mean_of_those_that_saw_it(cascade, exported, rule):
    images = random_images(1, 300)
    answer = cascade.submit(images).result(timeout=60)
    require_right(answer, images, exported, rule)
    assert set(answer.stage) == {1, 2, 3}
    assert answer.members_used == exported.models


def test_many_requests_at_once_get_their_own_answers_and_share_later_batches(cascade, exported, rule, observer):
    observer.seen.clear()
    observer.images.clear()
    failures: list[BaseException] = []
    n_asked = []

    def ask(seed: int) -> None:
        random = np.random.default_rng(seed)
        try:
            for turn in range(25):
                images = random_images(100 * seed + turn, int(random.integers(0, 40)))
                answer = cascade.submit(images, with_members=bool(random.integers(2))).result(timeout=60)
                require_right(answer, images, exported, rule)
                n_asked.append(len(images))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    seen = {model: sum(each[model] for each in observer.seen) for model in rule.members}
    assert seen == observer.images
    assert seen[rule.members[0]] == sum(n_asked)
    assert seen[rule.members[2]] < seen[rule.members[1]] < sum(n_asked)


def test_members_that_were_not_asked_have_no_probabilities(cascade, exported, rule):
    images = random_images(2, 60)
    answer = cascade.submit(images, with_members=True).result(timeout=60)
    for place, model in enumerate(exported.models):
        asked = answer.stage > rule.members.index(model)
        np.testing.assert_allclose(
            answer.member_probabilities[place, asked], exported.answers(model, images)[asked], atol=1e-6
        )
        assert np.isnan(answer.member_probabilities[place, ~asked]).all()


def test_no_images_have_an_empty_answer(cascade):
    answer = cascade.submit(random_images(0, 0)).result(timeout=60)
    assert answer.probabilities.shape == (0, 10) and answer.stage.shape == (0,)


def test_what_waits_before_any_member_counts_against_the_limit(cascade, order, exported, rule, observer):
    observer.images.clear()
    (place,) = (n for n, each in enumerate(cascade.call(cascade.dispatcher.status)) if each.model == order[1])
    pid = cascade.pids()[place]
    os.kill(pid, signal.SIGSTOP)
    requests, answers = [], []
    try:
        while cascade.call(lambda: cascade.dispatcher.queued_images) <= 340:
            requests.append(random_images(10 + len(requests), 60))
            answers.append(cascade.submit(requests[-1]))
            cascade.until(lambda: observer.images.get(order[0]) == 60 * len(requests))
        with pytest.raises(QueueFullError, match="too many images wait"):
            cascade.submit(random_images(9, 100)).result(timeout=60)
        with pytest.raises(DeadlineError, match=r"(?s)too late.*within 0.2 s"):
            cascade.submit(random_images(8, 20), deadline_seconds=0.2).result(timeout=60)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert len(requests) > 7, "what the first member had answered did not make room"
    for images, answer in zip(requests, answers, strict=True):
        require_right(answer.result(timeout=60), images, exported, rule)


def test_long_requests_that_come_at_once_count_against_the_limit_before_they_are_in_a_queue(cascade, exported, rule):
    async def at_once():
        asked = [cascade.dispatcher.submit(random_images(seed, 300)) for seed in (20, 21, 22)]
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = cascade.wait(at_once())
    assert sum(isinstance(answer, QueueFullError) for answer in answers) == 2
    (answered,) = (answer for answer in answers if not isinstance(answer, QueueFullError))
    require_right(answered, random_images(20, 300), exported, rule)
    assert cascade.call(lambda: cascade.dispatcher.queued_images) == 0


def test_an_answer_that_nobody_waits_for_makes_room(cascade):
    pids = cascade.pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        unwanted = cascade.submit(random_images(3, 200))
        cascade.until(lambda: cascade.dispatcher.queued_images > 0)
        unwanted.cancel()
        cascade.until(lambda: cascade.dispatcher.queued_images == 0)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_killed_member_comes_back_and_meanwhile_the_others_answer_who_takes_a_part(cascade, order, exported, rule):
    images = random_images(4, 40)
    status = cascade.call(cascade.dispatcher.status)
    second = [pid for each, pid in zip(status, cascade.pids(), strict=True) if each.model == order[0]]
    assert len(second) == 2
    for pid in second:
        os.kill(pid, signal.SIGKILL)
    cascade.until(lambda: bool(cascade.dispatcher.unavailable()))
    with pytest.raises(MemberUnavailableError, match="not available"):
        cascade.submit(images).result(timeout=60)
    partial = cascade.submit(images, allow_partial=True).result(timeout=60)
    if partial.members_used != exported.models:  # it has not come back in the meantime
        others = [model for model in exported.models if model != order[0]]
        assert list(partial.members_used) == others
        expected = np.mean([exported.answers(model, images) for model in others], axis=0)
        np.testing.assert_allclose(partial.probabilities, expected, atol=1e-6)
        assert (partial.stage == 2).all()
    cascade.until(lambda: cascade.dispatcher.ready)
    require_right(cascade.submit(images).result(timeout=60), images, exported, rule)


def test_a_pipeline_of_a_cascade_changes_its_allocation_and_answers_the_same(deployment, allocation, exported, rule):
    images = random_images(5, 500)
    moved = tuple(replace(each, device="cpu1", batch_size=32) for each in allocation if each.device == "cpu0")
    with Pipeline(deployment, allocation) as pipeline:
        before = pipeline.predict(images)
        pipeline.reconfigure((*moved, allocation[-1]))
        np.testing.assert_allclose(pipeline.predict(images), before, atol=1e-6)
    stages = stages_of(exported, rule.members, images)
    sure = ~near_a_threshold(stages, rule)
    assert (before.argmax(axis=1) == stages.answers(rule.thresholds))[sure].all()


def test_members_that_cannot_start_are_told_together(deployment, allocation, tmp_path):
    missing = [replace(member, exported=tmp_path / member.model) for member in deployment.members]
    with pytest.raises(MemberError, match="3 members of the ensemble failed") as caught:  # noqa: SIM117
        with Pipeline(replace(deployment, members=missing), allocation):
            pass
    assert set(caught.value.failures) == set(deployment.models)


def test_a_rule_of_other_members_is_refused(deployment, allocation):
    with pytest.raises(ValueError, match="cannot stop"):
        make_dispatcher(replace(deployment, stop_rule=StopRule(("a", "b"), (math.inf,))), allocation)


def test_less_than_float32_is_refused(deployment, allocation):
    inexact = (replace(allocation[0], engine="openvino_bfloat16"), *allocation[1:])
    with pytest.raises(AllocationError, match="less than float32"):
        make_dispatcher(deployment, inexact)
    assert make_dispatcher(replace(deployment, stop_rule=None), inexact).allocation == inexact
