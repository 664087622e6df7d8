"""Thresholds against every possible vector of them, and guarantees against what they promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.errors import SelectionError
from ensembleflow.selection.cascade import (
    Stages,
    calibrate_cascade,
    find_thresholds,
    images_needed,
    share_interval,
    threshold_path,
)

COSTS = [1.0, 1.5, 2.5, 4.0]


def stages_of(seed: int, n_members: int = 3, n_images: int = 200, n_classes: int = 3, sure: float = 3.0) -> Stages:
    """Members that mostly agree, the surer of an image the more."""
    random = np.random.default_rng(seed)
    image = sure * random.standard_normal((n_images, n_classes))
    logits = image + random.standard_normal((n_members, n_images, n_classes))
    exponentials = np.exp(logits - logits.max(axis=2, keepdims=True))
    return Stages.of(exponentials / exponentials.sum(axis=2, keepdims=True))


def price(stages: Stages, thresholds, costs, change_cost: float) -> float:
    """What `find_thresholds` makes small, image by image."""
    total = 0.0
    for image in range(stages.n_images):
        last = len(costs) - 1
        stop = next((k for k in range(last) if stages.confidences[k, image] >= thresholds[k]), last)
        changed = stages.classes[stop, image] != stages.classes[last, image]
        total += sum(costs[: stop + 1]) / sum(costs) + change_cost * changed
    return total


@st.composite
def few_images(draw):
    n_members, n_images = draw(st.integers(2, 3)), draw(st.integers(1, 7))
    numbers = st.integers(1, 9)
    weights = draw(st.lists(numbers, min_size=n_members * n_images * 2, max_size=n_members * n_images * 2))
    values = np.array(weights, np.float64).reshape(n_members, n_images, 2)
    return Stages.of(values / values.sum(axis=2, keepdims=True))


@given(stages=few_images(), change_cost=st.sampled_from([0.0, 0.3, 2.0, 100.0]))
@settings(deadline=None)
def test_two_stages_get_the_best_threshold_of_all_and_more_are_no_worse_than_a_single_change(stages, change_cost):
    costs = COSTS[: len(stages.confidences)]
    found = find_thresholds(stages, costs, change_cost)
    own = price(stages, found, costs, change_cost)
    choices = [[0.0, math.inf, *np.unique(stages.confidences[stage])] for stage in range(len(costs) - 1)]
    if len(costs) == 2:
        assert own == pytest.approx(
            min(price(stages, each, costs, change_cost) for each in itertools.product(*choices))
        )
    for stage, values in enumerate(choices):
        others = ([*found[:stage], value, *found[stage + 1 :]] for value in values)
        assert own <= min(price(stages, each, costs, change_cost) for each in others) + 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_on_real_looking_answers_the_thresholds_are_within_a_hundredth_of_the_best(seed):
    stages = stages_of(seed, n_images=60)
    for change_cost in (0.5, 3.0, 1000.0):
        found = price(stages, find_thresholds(stages, COSTS[:3], change_cost), COSTS[:3], change_cost)
        choices = [[0.0, math.inf, *np.unique(each)[::2]] for each in stages.confidences[:2]]
        best = min(price(stages, each, COSTS[:3], change_cost) for each in itertools.product(*choices))
        assert found <= best * 1.01


@given(seed=st.integers(0, 50), thresholds=st.lists(st.floats(0, 1.1), min_size=3, max_size=3))
@settings(deadline=None)
def test_each_stage_sees_a_part_of_what_the_one_before_saw_and_a_higher_threshold_lets_more_go_on(seed, thresholds):
    stages = stages_of(seed, n_members=4, n_images=50)
    reached = stages.reached(thresholds)
    assert reached[0] == 50 and (np.diff(reached) <= 0).all()
    for stage in range(3):
        higher = [*thresholds[:stage], thresholds[stage] + 0.1, *thresholds[stage + 1 :]]
        assert (stages.stops(higher) >= stages.stops(thresholds)).all()


def test_an_image_that_never_stops_gets_the_full_ensembles_answer():
    stages = stages_of(0, n_members=4)
    never = [math.inf] * 3
    assert not stages.changed(never).any()
    assert list(stages.reached(never)) == [200] * 4
    assert stages.reached([0.0] * 3).tolist() == [200, 0, 0, 0]


def test_an_ensemble_of_one_member_has_one_stage():
    stages = stages_of(0, n_members=1)
    assert stages.reached(()).tolist() == [200] and not stages.changed(()).any()


def test_the_path_goes_from_cautious_to_bold_on_the_images_that_made_it():
    stages = stages_of(1, n_images=500)
    path = threshold_path(stages, COSTS[:3])
    changed = [int(stages.changed(each).sum()) for each in path]
    costs = [np.dot(stages.reached(each), COSTS[:3]) for each in path]
    assert len(path) > 5 and len(set(path)) == len(path)
    assert changed[0] == 0 and changed == sorted(changed)
    assert costs[-1] < costs[0] < 500 * sum(COSTS[:3])


def test_guaranteed_cascades_keep_their_promise_as_often_as_they_say():
    """Of many draws of calibration images from one population, with its known share of changed images."""
    population, valid = stages_of(2, n_images=40_000, sure=2.0), stages_of(3, n_images=400, sure=2.0)
    random = np.random.default_rng(4)
    max_changed, broken, shares = 0.02, 0, []
    n_draws = 300
    for _ in range(n_draws):
        drawn = random.integers(0, population.n_images, 600)
        calibration = Stages(population.confidences[:, drawn], population.classes[:, drawn])
        cascade = calibrate_cascade(valid, calibration, COSTS[:3], max_changed, 0.9)
        assert cascade.guarantee.upper_bound <= max_changed
        broken += population.changed(cascade.thresholds).mean() > max_changed
        shares.append(population.reached(cascade.thresholds)[1] / population.n_images)
    # A tenth may; three standard deviations of 300 draws are a twentieth.
    assert broken / n_draws <= 0.15
    # And the promise is not kept by never stopping.
    assert np.median(shares) < 0.9


def test_where_even_the_most_cautious_thresholds_change_too_many_no_image_stops():
    valid, other = stages_of(5, n_images=300), stages_of(6, n_images=300)
    # The first member of the calibration images is sure of the wrong class.
    classes = other.classes.copy()
    classes[0] = (classes[-1] + 1) % 3
    confidences = other.confidences.copy()
    confidences[0] = 1.0
    cascade = calibrate_cascade(valid, Stages(confidences, classes), COSTS[:3], 0.01, 0.95)
    assert cascade.thresholds == (math.inf, math.inf)
    assert cascade.guarantee.n_changed == 0


@pytest.mark.parametrize(("max_changed", "confidence"), [(0.001, 0.95), (0.02, 0.9), (0.3, 0.99)])
def test_as_many_images_as_are_asked_for_guarantee_and_one_less_does_not(max_changed, confidence):
    needed = images_needed(max_changed, confidence)
    assert (1 - max_changed) ** needed <= 1 - confidence < (1 - max_changed) ** (needed - 1)
    valid = stages_of(7, n_images=50)
    sure = Stages(np.ones((3, needed)), np.zeros((3, needed), np.int64))
    assert calibrate_cascade(valid, sure, COSTS[:3], max_changed, confidence).guarantee.upper_bound <= max_changed
    fewer = Stages(sure.confidences[:, 1:], sure.classes[:, 1:])
    with pytest.raises(SelectionError) as caught:
        calibrate_cascade(valid, fewer, COSTS[:3], max_changed, confidence)
    assert f"at least {needed:,}" in str(caught.value)
    assert "dataset.calibration_fraction" in str(caught.value)


def test_the_share_that_a_hint_names_can_be_guaranteed():
    valid, fewer = stages_of(8), Stages(np.ones((3, 359)), np.zeros((3, 359), np.int64))
    with pytest.raises(SelectionError) as caught:
        calibrate_cascade(valid, fewer, COSTS[:3], 0.001, 0.95)
    named = float(str(caught.value).rsplit("max_changed to ", 1)[1].split()[0])
    assert calibrate_cascade(valid, fewer, COSTS[:3], named, 0.95).guarantee.upper_bound <= named


@pytest.mark.parametrize(("n_found", "n_images"), [(0, 10), (3, 10), (10, 10), (0, 0)])
def test_intervals_of_shares_hold_the_share(n_found, n_images):
    low, high = share_interval(n_found, n_images, 0.95)
    assert 0 <= low <= (n_found / n_images if n_images else 0.5) <= high <= 1


def test_no_threshold_is_so_near_to_1_that_rounding_decides_and_what_rounding_may_change_counts():
    """Networks so sure that most of their confidences are within rounding of 1."""
    valid, calibration = stages_of(9, n_images=2000, sure=30.0), stages_of(10, n_images=4000, sure=30.0)
    assert (valid.confidences[0] > 1 - 1e-4).mean() > 0.5
    for thresholds in threshold_path(valid, COSTS[:3], tolerance=1e-4):
        assert all(math.isinf(each) or each <= 1 - 2e-4 for each in thresholds)
    cascade = calibrate_cascade(valid, calibration, COSTS[:3], 0.005, 0.95)
    assert calibration.reached(cascade.thresholds)[1] < calibration.n_images, "it stops sure images all the same"
    random = np.random.default_rng(11)
    served = Stages(
        calibration.confidences + random.uniform(-1e-4, 1e-4, calibration.confidences.shape), calibration.classes
    )
    changed = served.answers(cascade.thresholds) != calibration.classes[-1]
    assert changed.sum() <= cascade.guarantee.n_changed


@pytest.mark.parametrize("max_changed", [1e-17, 1e-9])
def test_a_share_that_no_number_of_images_can_promise_is_told_as_any_other(max_changed):
    with pytest.raises(SelectionError, match="too few calibration images"):
        calibrate_cascade(stages_of(0), stages_of(1), COSTS[:3], max_changed, 0.95)
