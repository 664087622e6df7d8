"""The networks of Table 5."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensembleflow.errors import ArtefactError
from ensembleflow.models import (
    build_resnet,
    export_model,
    load_exported,
    load_model,
    model_function,
    save_model,
    weights_sha256,
)
from example_hyperparameters import hyperparameters

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)


@pytest.mark.parametrize("block", ["v1", "v2", "next"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
def test_every_kind_of_network_gives_probabilities(block: str, activation: str) -> None:
    model = build_resnet(hyperparameters(block=block, activation=activation), (8, 8, 1), 10)
    probabilities = model_function(model).predict(IMAGES, batch_size=2)
    assert probabilities.shape == (5, 10)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("block", ["v1", "v2", "next"])
def test_each_stage_has_its_blocks_and_twice_the_filters_of_the_one_before(block: str) -> None:
    model = build_resnet(hyperparameters(block=block, blocks_stage_1=3, blocks_stage_3=2), (32, 32, 3), 10)
    sums = [layer for layer in model.layers if type(layer).__name__ == "Add"]
    shapes = [tuple(layer.output.shape[1:]) for layer in sums]
    assert shapes == [(32, 32, 8)] * 3 + [(16, 16, 16)] + [(8, 8, 32)] * 2 + [(4, 4, 64)]


def test_large_images_get_the_wide_stem_of_stride_two() -> None:
    stems = {}
    for side in (32, 224):
        model = build_resnet(hyperparameters(), (side, side, 3), 10)
        stems[side] = next(layer for layer in model.layers if type(layer).__name__ == "Conv2D")
    assert (stems[32].kernel_size, stems[32].strides) == ((3, 3), (1, 1))
    assert (stems[224].kernel_size, stems[224].strides) == ((7, 7), (2, 2))


def test_a_grouped_convolution_computes_what_the_plain_layer_with_groups_does() -> None:
    import keras

    from ensembleflow.models.kernels import GroupedConv2D

    x = np.random.default_rng(1).normal(size=(3, 8, 8, 12)).astype(np.float32)
    ours = GroupedConv2D(24, 3, strides=2, padding="same", groups=3)
    plain = keras.layers.Conv2D(24, 3, strides=2, padding="same", groups=3)
    ours.build(x.shape)
    plain.build(x.shape)
    plain.set_weights(ours.get_weights())
    np.testing.assert_allclose(np.asarray(ours(x)), np.asarray(plain(x)), atol=1e-5)


@pytest.mark.parametrize("block", ["v2", "next"])
def test_the_exported_function_is_the_models_own(block: str, tmp_path: Path) -> None:
    model = build_resnet(hyperparameters(block=block), (8, 8, 1), 10)
    export_model(model, tmp_path / "exported")
    exported = load_exported(tmp_path / "exported")
    np.testing.assert_array_equal(exported.predict(IMAGES, 5), model_function(model).predict(IMAGES, 5))
    assert exported.parameter_bytes == 4 * model.count_params()


@pytest.mark.parametrize("block", ["v1", "next"])
def test_a_saved_model_comes_back_with_the_same_weights_in_safe_mode(block: str, tmp_path: Path) -> None:
    model = build_resnet(hyperparameters(block=block), (8, 8, 1), 10)
    save_model(model, tmp_path / "model.keras")
    assert weights_sha256(load_model(tmp_path / "model.keras")) == weights_sha256(model)


def test_a_truncated_model_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    save_model(build_resnet(hyperparameters(), (8, 8, 1), 10), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ArtefactError, match=r"model's file cannot be read") as error:
        load_model(path)
    assert "model.keras" in str(error.value)


def test_a_missing_exported_function_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="exported model cannot be read"):
        load_exported(tmp_path / "nothing")
