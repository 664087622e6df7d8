"""Batch normalisation's statistics, recomputed over images that are not augmented."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from ensembleflow.models import BatchStatistics, Trainer, build_resnet, weights_sha256
from ensembleflow.models.batch_statistics import RECOMPUTED_FROM_IMAGES
from support.example_hyperparameters import hyperparameters

DIGITS = load_digits()
IMAGES = np.rint(DIGITS.images[:, :, :, None] * 255 / 16).astype(np.uint8)
LABELS = DIGITS.target.astype(np.int64)


def network(block: str = "v1") -> keras.Model:
    return build_resnet(hyperparameters(block=block), (8, 8, 1), 10)


def statistics(model: keras.Model) -> list[np.ndarray]:
    layers = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    return [np.asarray(moving) for each in layers for moving in (each.moving_mean, each.moving_variance)]


def first_layer_input(model: keras.Model, images: np.ndarray) -> np.ndarray:
    layer = next(each for each in model.layers if isinstance(each, keras.layers.BatchNormalization))
    return np.asarray(keras.Model(model.inputs, layer.input).predict(images, verbose=0), np.float64)


def test_the_statistics_are_those_of_the_images() -> None:
    model = network()
    values = first_layer_input(model, IMAGES[:200]).reshape(200, -1, 6)
    with BatchStatistics(model, IMAGES[:200], 200).in_place():
        mean, variance = statistics(model)[:2]
    np.testing.assert_allclose(mean, values.mean(axis=(0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variance, values.var(axis=(0, 1)), rtol=1e-4, atol=1e-5)


def test_batches_count_by_their_images() -> None:
    model = network()
    images = IMAGES[:7]
    values = first_layer_input(model, images).reshape(7, -1, 6)
    with BatchStatistics(model, images, 3).in_place():
        np.testing.assert_allclose(statistics(model)[0], values.mean(axis=(0, 1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", ["v1", "v2", "next"])
@pytest.mark.parametrize("averaged", [True, False])
def test_training_goes_on_as_if_nothing_had_been_recomputed(block: str, averaged: bool) -> None:
    weights = []
    for recomputed in (False, True):
        keras.utils.set_random_seed(0)
        model, hp = network(block), hyperparameters(block=block)
        batch_statistics = BatchStatistics(model, IMAGES, 256) if recomputed else None
        trainer = Trainer(model, hp, n_steps=100, averaged=averaged, batch_statistics=batch_statistics)
        for epoch in (1, 2):
            trainer.train_epoch(IMAGES[:200], LABELS[:200], seed=(0, epoch))
            with trainer.evaluated_weights():
                pass
        weights.append(weights_sha256(model))
    assert weights[0] == weights[1]


def test_they_are_those_of_the_averaged_weights() -> None:
    keras.utils.set_random_seed(0)
    model = network()
    trainer = Trainer(model, hyperparameters(), n_steps=100, batch_statistics=BatchStatistics(model, IMAGES, 256))
    trainer.train_epoch(IMAGES[:200], LABELS[:200], seed=(0, 1))
    with trainer.evaluated_weights():
        evaluated = weights_sha256(model)
        mean = statistics(model)[0]
        values = first_layer_input(model, IMAGES)
    chosen = np.random.default_rng(0).permutation(len(IMAGES))[:RECOMPUTED_FROM_IMAGES]
    np.testing.assert_allclose(mean, values[chosen].mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-4)
    with trainer.evaluated_weights():
        assert weights_sha256(model) == evaluated, "the same values each time"
    assert weights_sha256(model) != evaluated


def test_moving_statistics_are_back_after_an_error() -> None:
    model = network()
    before = statistics(model)
    with pytest.raises(ZeroDivisionError), BatchStatistics(model, IMAGES[:50], 50).in_place():
        raise ZeroDivisionError
    for value, expected in zip(statistics(model), before, strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_they_stay_float32_under_mixed_precision(precision: str) -> None:
    model = build_resnet(hyperparameters(), (8, 8, 1), 10, precision=precision)
    with BatchStatistics(model, IMAGES[:50], 50).in_place():
        assert {value.dtype for value in statistics(model)} == {np.dtype(np.float32)}
        assert all(np.isfinite(value).all() for value in statistics(model))
