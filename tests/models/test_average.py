"""The average of a network's weights: what it is, when it moves, and what it survives."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from ensembleflow.errors import ArtefactError
from ensembleflow.models import Trainer, build_resnet, restore_checkpoint, save_checkpoint, weights_sha256
from ensembleflow.models.average import AVERAGE_POWER, WeightAverage
from support.example_hyperparameters import hyperparameters

DIGITS = load_digits()
IMAGES = np.rint(DIGITS.images[:200, :, :, None] * 255 / 16).astype(np.uint8)
LABELS = DIGITS.target[:200].astype(np.int64)
N_WEIGHTS = 2 * 3 + 3 + 4 * 3  # of the dense layer, and batch normalisation with its moving statistics


def small_network() -> keras.Model:
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.BatchNormalization()(keras.layers.Dense(3)(inputs)))


def flat(model: keras.Model) -> np.ndarray:
    return np.concatenate([np.ravel(weights) for weights in model.get_weights()])


def set_flat(model: keras.Model, values: np.ndarray) -> None:
    shapes = [weights.shape for weights in model.get_weights()]
    parts = np.split(values.astype(np.float32), np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1])
    model.set_weights([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])


def trainer(**options: object) -> Trainer:
    hp = hyperparameters()
    return Trainer(build_resnet(hp, (8, 8, 1), 10), hp, n_steps=100, **options)  # type: ignore[arg-type]


@settings(max_examples=30)
@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_the_average_weighs_updates_by_the_power_of_their_number(levels: list[int], seed: int) -> None:
    model = small_network()
    average = WeightAverage(model)
    noise = np.random.default_rng(seed).normal(size=(len(levels), N_WEIGHTS))
    trained = [level + row for level, row in zip(levels, noise, strict=True)]
    for update, weights in enumerate(trained, start=1):
        set_flat(model, weights)
        average.update(tf.constant(update), done=tf.constant(True))
    ends = (np.arange(len(levels) + 1) / len(levels)) ** (AVERAGE_POWER + 1)  # its distribution function
    expected = np.diff(ends) @ np.array(trained)
    np.testing.assert_allclose(average.values(), expected, rtol=1e-4, atol=1e-2)


@given(n_updates=st.integers(0, 10**9))
def test_the_average_of_constant_weights_is_these_weights(n_updates: int) -> None:
    model = small_network()
    average = WeightAverage(model)
    set_flat(model, np.linspace(-3, 3, N_WEIGHTS))
    for update in (1, n_updates):
        average.update(tf.constant(update), done=tf.constant(True))
        np.testing.assert_allclose(average.values(), flat(model), atol=1e-6)


def test_an_update_that_was_skipped_does_not_count() -> None:
    model = small_network()
    average = WeightAverage(model)
    average.update(tf.constant(1), done=tf.constant(True))
    before = average.values()
    set_flat(model, np.full(N_WEIGHTS, 7.0))
    average.update(tf.constant(1), done=tf.constant(False))
    np.testing.assert_array_equal(average.values(), before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_left_out(value: float) -> None:
    model = small_network()
    average = WeightAverage(model)
    for update in (1, 2):
        set_flat(model, np.full(N_WEIGHTS, 2.0))
        average.update(tf.constant(update), done=tf.constant(True))
    spoilt = np.full(N_WEIGHTS, 2.0)
    spoilt[4] = value
    set_flat(model, spoilt)
    average.update(tf.constant(3), done=tf.constant(True))
    np.testing.assert_array_equal(average.values(), np.full(N_WEIGHTS, 2.0))


def test_the_network_has_the_average_in_place_and_its_own_weights_afterwards_to_the_last_bit() -> None:
    ours = trainer()
    ours.train_epoch(IMAGES, LABELS, (0, 0, 1))
    trained = weights_sha256(ours.model)
    assert ours.average is not None
    with pytest.raises(RuntimeError), ours.evaluated_weights():
        np.testing.assert_array_equal(flat(ours.model), ours.average.values())
        assert weights_sha256(ours.model) != trained
        raise RuntimeError
    assert weights_sha256(ours.model) == trained


def test_training_goes_on_as_if_the_average_had_not_been_looked_at() -> None:
    def trained(look: bool) -> str:
        keras.utils.set_random_seed(0)
        ours = trainer()
        for epoch in range(2):
            ours.train_epoch(IMAGES, LABELS, (0, 0, epoch))
            if look:
                with ours.evaluated_weights():
                    ours.model(IMAGES, training=False)
        return weights_sha256(ours.model)

    assert trained(look=True) == trained(look=False)


def test_the_average_takes_in_moving_statistics() -> None:
    ours = trainer()
    before = {v.path: v.numpy() for v in ours.model.non_trainable_variables if "moving" in v.path}
    ours.train_epoch(IMAGES, LABELS, (0, 0, 1))
    assert before
    with ours.evaluated_weights():
        for variable in ours.model.non_trainable_variables:
            if variable.path in before:
                assert not np.array_equal(variable.numpy(), before[variable.path])


def test_without_an_average_the_network_is_evaluated_as_trained() -> None:
    ours = trainer(averaged=False)
    ours.train_epoch(IMAGES, LABELS, (0, 0, 1))
    trained = weights_sha256(ours.model)
    with ours.evaluated_weights():
        assert weights_sha256(ours.model) == trained


def test_a_loss_scale_that_skips_an_update_leaves_the_average_alone() -> None:
    hp = hyperparameters(block="v2")
    ours = Trainer(build_resnet(hp, (8, 8, 1), 10, precision="mixed_float16"), hp, n_steps=100)
    ours.train_epoch(IMAGES, LABELS, (0, 0, 1))
    assert ours.average is not None
    before, updates = ours.average.values(), int(ours.model.optimizer.inner_optimizer.iterations.numpy())
    ours.model.optimizer.dynamic_scale.assign(3e38)  # no gradient is finite
    ours.train_epoch(IMAGES[:32], LABELS[:32], (0, 0, 2))
    assert int(ours.model.optimizer.inner_optimizer.iterations.numpy()) == updates
    np.testing.assert_array_equal(ours.average.values(), before)
    assert before.dtype == np.float32


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda arrays: arrays.pop("average"), "has no average of the weights"),
        (lambda arrays: arrays["average"].__setitem__(3, np.nan), "1 values that are not finite"),
        (lambda arrays: arrays.__setitem__("average", arrays["average"][:-1]), "average of the weights .* is damaged"),
    ],
    ids=["missing", "not finite", "cut"],
)
def test_a_checkpoint_without_a_sound_average_is_refused(edit: object, told: str, tmp_path: Path) -> None:
    ours = trainer()
    ours.train_epoch(IMAGES, LABELS, (0, 0, 1))
    save_checkpoint(ours, tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz") as file:
        arrays = dict(file)
    edit(arrays)  # type: ignore[operator]
    np.savez(tmp_path / "c.npz", **arrays)
    other = trainer()
    before = weights_sha256(other.model)
    with pytest.raises(ArtefactError, match=told):
        restore_checkpoint(other, tmp_path / "c.npz")
    assert weights_sha256(other.model) == before
