"""The fused kernels compute what Keras's own layers and optimizer do."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.models import kernels
from ensembleflow.models.kernels import FusedAdam, FusedBatchNormalization, GroupedConv2D


def like(layer: keras.Layer, other: keras.Layer, shape: tuple[int, ...]) -> None:
    for each in (layer, other):
        each.build(shape)
    rng = np.random.default_rng(0)
    weights = [np.abs(rng.normal(1, 0.3, weight.shape)).astype(np.float32) for weight in other.get_weights()]
    layer.set_weights(weights)
    other.set_weights(weights)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 6)),
    seed=st.integers(0, 2**31),
)
def test_batch_normalisation_is_keras_own_with_its_moving_averages(shape: tuple[int, ...], seed: int) -> None:
    fused, plain = FusedBatchNormalization(momentum=0.9), keras.layers.BatchNormalization(momentum=0.9)
    like(fused, plain, shape)
    images = np.random.default_rng(seed).normal(2, 3, shape).astype(np.float32)
    for training in (False, True, False):
        with tf.GradientTape(persistent=True) as tape:
            inputs = tf.constant(images)
            tape.watch(inputs)
            results = [layer(inputs, training=training) for layer in (fused, plain)]
            sums = [tf.reduce_sum(result * tf.cos(result)) for result in results]
        np.testing.assert_allclose(results[0], results[1], atol=2e-5)
        np.testing.assert_allclose(tape.gradient(sums[0], inputs), tape.gradient(sums[1], inputs), atol=1e-3)
    for ours, theirs in zip(fused.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize(
    ("groups", "channels", "strides", "padding"),
    [
        (1, (3, 4), 1, "same"),
        (4, (8, 8), 1, "same"),
        (2, (6, 10), 2, "same"),
        (3, (3, 6), 1, "valid"),
        (8, (8, 8), 2, "valid"),
    ],
)
def test_a_grouped_convolution_and_its_gradient_are_those_of_its_groups(
    groups: int,
    channels: tuple[int, int],
    strides: int,
    padding: str,
    depthwise: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n_inputs, n_outputs = channels
    if depthwise:
        monkeypatch.setattr(kernels, "_has_grouped_gradient", lambda: False)
    layer = GroupedConv2D(n_outputs, 3, groups=groups, strides=strides, padding=padding)
    inputs = tf.constant(np.random.default_rng(0).normal(size=(2, 7, 5, n_inputs)).astype(np.float32))
    layer.build(inputs.shape)

    def by_group() -> tf.Tensor:
        parts = zip(tf.split(inputs, groups, -1), tf.split(layer.kernel.value, groups, -1), strict=True)
        return tf.concat([tf.nn.conv2d(part, own, strides, padding.upper()) for part, own in parts], -1) + layer.bias

    results = []
    for function in (tf.function(lambda: layer(inputs)), by_group):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = function()
            total = tf.reduce_sum(outputs * tf.cos(outputs))
        results.append([outputs, *tape.gradient(total, [inputs, layer.kernel.value])])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_steps", [1, 30])
def test_adam_is_keras_own(n_steps: int) -> None:
    optimizers = FusedAdam(0.01), keras.optimizers.Adam(0.01)
    variables = [keras.Variable(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)) for _ in optimizers]
    rng = np.random.default_rng(0)
    for _ in range(n_steps):
        gradient = tf.constant(rng.normal(size=(3, 4)).astype(np.float32))
        for optimizer, variable in zip(optimizers, variables, strict=True):
            optimizer.apply([gradient], [variable])
    np.testing.assert_allclose(variables[0].numpy(), variables[1].numpy(), rtol=1e-4, atol=1e-6)
    assert int(optimizers[0].iterations.numpy()) == n_steps


def test_a_saved_network_is_loaded_with_its_fused_layers(tmp_path: Path) -> None:
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, FusedBatchNormalization()(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert isinstance(loaded.layers[1], FusedBatchNormalization)


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
@pytest.mark.parametrize("training", [False, True])
def test_the_graph_optimiser_makes_no_kernel_that_does_not_exist(activation: str, training: bool) -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    model = keras.Model(inputs, keras.layers.Activation(activation)(FusedBatchNormalization()(x)))
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
    images = tf.constant(np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32))
    compiled = tf.function(lambda batch: model(batch, training=training), autograph=False)(images)
    np.testing.assert_allclose(compiled, model(images, training=training), atol=1e-4)
