"""Families of the user's own: what they must have, and what is told where they have it not."""

from __future__ import annotations

import re
import signal
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from ensembleflow.config import FloatRange, IntRange
from ensembleflow.datasets.standardisation import Standardisation
from ensembleflow.errors import FamilyError
from ensembleflow.models import (
    BatchStatistics,
    FamilyHyperparameters,
    Trainer,
    families,
    load_family,
    load_model,
    save_model,
)
from ensembleflow.models.family_check import check_family, points_of
from ensembleflow.models.phases import Phase, freeze, phase_of
from support.family_files import GOOD, IMAGE_SHAPE, N_CLASSES, in_two_phases, of_the_manual, written

TRAINING = FamilyHyperparameters(
    learning_rate=0.01,
    batch_size=4,
    max_zoom=0.0,
    max_translation=0.0,
    max_shear=0.0,
    max_channel_shift=0.0,
    max_rotation_degrees=0,
)
SPACE = '{"units": [4, 8], "activation": ["relu", "tanh"], "bias": [True, False], "dropout": [0.0, 0.5]}'
LAST = 'return keras.Model(images, keras.layers.Dense(n_classes, activation="softmax")(x))'
OWN_LAYER = """
{decorator}
class Scale(keras.layers.Layer):
    def build(self, shape):
        self.factor = {factor}
        super().build(shape)

    def call(self, inputs):
        return inputs * self.factor
"""
REGISTERED = '@keras.saving.register_keras_serializable(package="of_a_test")'
AS_A_WEIGHT = 'self.add_weight(shape=(), initializer="ones")'


def with_layer(decorator: str, factor: str) -> str:
    source = GOOD.replace("import keras\n", "import keras\n" + OWN_LAYER.format(decorator=decorator, factor=factor))
    return source.replace("x = keras.layers.BatchNormalization()(x)", "x = Scale()(x)")


def check(path: Path, precision: str = "float32") -> list[int]:
    """Check a family as the rule does; the sizes of the networks that were tried."""
    family = load_family(path)
    space = family.space(IMAGE_SHAPE, N_CLASSES)
    return [point.parameters for point in check_family(family, space, TRAINING, IMAGE_SHAPE, N_CLASSES, precision)]


@pytest.mark.parametrize(
    "source",
    [GOOD, of_the_manual(), with_layer(REGISTERED, AS_A_WEIGHT), in_two_phases()],
    ids=["small", "manual", "layer of its own", "phases"],
)
def test_a_family_that_does_all_is_taken(source: str, tmp_path: Path) -> None:
    sizes = check(written(tmp_path, source))
    assert len(sizes) == 2
    assert sizes[0] < sizes[1]


def test_half_precision_needs_a_last_layer_in_float32(tmp_path: Path) -> None:
    with pytest.raises(FamilyError, match="are not float32"):
        check(written(tmp_path, GOOD), "mixed_bfloat16")
    ends_in_float32 = GOOD.replace('activation="softmax"', 'activation="softmax", dtype="float32"')
    assert len(check(written(tmp_path, ends_in_float32), "mixed_bfloat16")) == 2


FAULTS = {
    "no Python": (GOOD.replace("def build(", "def build"), "is no Python", "line 7"),
    "null bytes": (GOOD + "\0", "is no Python", "null bytes"),
    "a name with a dot": (GOOD.replace('"units": [4', '"my units": [4'), "no mapping", "'my units'"),
    "nothing but NaN": (GOOD.replace("(1 / 255)", "(float('nan'))"), "does not answer probabilities", "Rescaling"),
    "raises when it is read": ("import numpy\n1 / 0\n" + GOOD, "file raises", "ZeroDivisionError"),
    "exits": (
        GOOD.replace("    images =", "    raise SystemExit(0)\n    images =", 1),
        "build raises",
        "SystemExit: 0",
    ),
    "a package that is missing": ("import nowhere_to_be_found\n" + GOOD, "file raises", "nowhere_to_be_found"),
    "without build": (GOOD.replace("def build", "def make"), "lacks a function", "build"),
    "space raises": (GOOD.replace("return {", "return undefined or {", 1), "space raises", "line 5"),
    "space is a list": (GOOD.replace(SPACE, "['units']"), "no mapping", "units"),
    "a range of three": (GOOD.replace("[4, 8]", "[4, 8, 16]"), "something else than a range", "choices: [8, 16]"),
    "a name of the training": (GOOD.replace('"units": [4', '"batch_size": [4'), "training has already", "batch_size"),
    "build raises": (GOOD.replace('hp["units"]', 'hp["unit"]'), "build raises", "KeyError: 'unit'"),
    "build raises at one point": (
        GOOD.replace("x = keras.layers.Dropout", 'assert hp["units"] < 8, "too wide"\n    x = keras.layers.Dropout'),
        "build raises",
        "AssertionError: too wide (at units 8, activation tanh, bias False, dropout 0.5)",
    ),
    "no network": (
        GOOD.replace("return keras.Model(images, ", "return (images, "),
        "else than a network",
        "KerasTensor",
    ),
    "two outputs": (
        GOOD.replace("(images, keras", "(images, [x, x] and [keras").replace("(x))", "(x), x])"),
        "one input",
        "",
    ),
    "another image": (
        GOOD.replace("keras.Input(image_shape)", "keras.Input((9, 8, 1))"),
        "another shape",
        "(None, 9, 8, 1)",
    ),
    "a class too few": (GOOD.replace("Dense(n_classes", "Dense(n_classes - 1"), "another shape", "(None, 9)"),
    "logits": (GOOD.replace(', activation="softmax"', ""), "does not answer probabilities", "softmax"),
    "looks at the batch": (
        GOOD.replace("(x))\n", "(x - keras.ops.mean(x, axis=0)))\n"),
        "otherwise for an image alone",
        "differ by",
    ),
    "frozen": (
        GOOD.replace(LAST, f"model = {LAST[7:]}\n    model.trainable = False\n    return model"),
        "nothing to train",
        "",
    ),
    "a Lambda layer": (
        GOOD.replace(
            "x = keras.layers.Dropout", "x = keras.layers.Lambda(lambda x: x)(x)\n    x = keras.layers.Dropout"
        ),
        "Lambda",
        "lambda",
    ),
    "a layer that is not registered": (with_layer("", AS_A_WEIGHT), "cannot be saved and loaded", "Scale"),
    "a layer that forgets": (
        with_layer(REGISTERED, "__import__('random').random()"),
        "otherwise once it is saved and loaded",
        "differ by",
    ),
    "a loss that is not finite": (
        GOOD.replace("(1 / 255)", "(1e30)").replace('activation=hp["activation"]', 'activation="exponential"'),
        "does not answer probabilities",
        "nan",
    ),
    "downloads": (
        GOOD.replace(
            "    images =",
            '    keras.utils.get_file("w.h5", "http://192.0.2.1/w.h5", force_download=True)\n    images =',
        ),
        "needs another machine",
        "192.0.2.1",
    ),
    "a phase that is unknown": (in_two_phases(trainable='["head"]'), "does not have", "head"),
    "phases that are none": (GOOD + "\ndef phases(hp, model):\n    pass\n", "phase is none", "None"),
    "a phase without a layer": (in_two_phases(trainable="[]"), "phase is none", "trains nothing"),
    "a phase without epochs": (in_two_phases(epochs="None"), "phase is none", "no epochs"),
    "a phase of half an epoch": (in_two_phases(epochs="0.5"), "phase is none", "whole number"),
    "a learning rate of nothing": (in_two_phases(rate="0"), "phase is none", "above 0"),
    "augments to floats": (
        GOOD + "\ndef augment(images, hp, rng):\n    return images / 2\n",
        "else than images",
        "float64",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_family_that_does_not_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    source, what, told = FAULTS[name]
    with pytest.raises(FamilyError, match=what) as error:
        check(written(tmp_path, source))
    assert told in str(error.value)
    assert "own.py" in str(error.value)


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(FamilyError, match="cannot be read"):
        load_family(tmp_path / "own.py")


def test_a_job_that_is_told_to_stop_while_a_network_is_built_stops(tmp_path: Path) -> None:
    """Its signal's handler ends it by `SystemExit`, which is not the family's doing."""
    source = "import os, signal\n" + GOOD.replace(
        "    images =", "    os.kill(os.getpid(), signal.SIGUSR1)\n    images =", 1
    )
    family = load_family(written(tmp_path, source))
    before = signal.signal(signal.SIGUSR1, lambda *_: sys.exit(3))
    try:
        with pytest.raises(SystemExit):
            family.build(TRAINING, IMAGE_SHAPE, N_CLASSES)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_all_choices_and_both_ends_of_all_ranges_are_tried() -> None:
    space = {"a": IntRange(1, 9), "b": ["x", "y", "z"], "c": FloatRange(0.1, 0.2), "d": [True, False]}
    points = points_of(space)
    assert [each["b"] for each in points] == ["x", "y", "z"]
    assert {each["a"] for each in points} == {1, 9}
    assert {each["c"] for each in points} == {0.1, 0.2}
    assert points_of({}) == [{}, {}]


def test_only_the_family_is_kept_from_the_network(tmp_path: Path) -> None:
    """The process's other threads renew leases, perhaps in a database on another machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        source = f"""
import socket, threading
{GOOD}
def connect():
    socket.create_connection({address!r}).close()

def in_a_thread(done):
    try:
        connect()
        done.append(True)
    except OSError:
        done.append(False)

reached = []
other = threading.Thread(target=in_a_thread, args=(reached,))
other.start()
other.join()
assert reached == [True]
connect()
"""
        with pytest.raises(FamilyError, match="needs another machine"):
            load_family(written(tmp_path, source))
        socket.create_connection(address).close()
    assert threading.active_count() >= 1


def test_a_network_keeps_the_layers_of_its_family_in_its_file(tmp_path: Path) -> None:
    family = load_family(written(tmp_path, with_layer(REGISTERED, AS_A_WEIGHT)))
    point = points_of(family.space(IMAGE_SHAPE, N_CLASSES))[0]
    hyperparameters = FamilyHyperparameters.from_dict({**TRAINING.to_dict(), **point})
    model = family.build(hyperparameters, IMAGE_SHAPE, N_CLASSES, name="trial_3")
    assert model.name == "trial_3"
    save_model(model, tmp_path / "network.keras")
    images = np.random.default_rng(0).integers(0, 256, (2, *IMAGE_SHAPE), dtype=np.uint8)
    again = load_model(tmp_path / "network.keras")
    assert np.array_equal(again(images), model(images))
    assert any(type(layer).__name__ == "Scale" for layer in again.layers)
    assert keras.config.dtype_policy().name == "float32"


def test_a_frozen_layer_keeps_its_weights_and_statistics_and_is_trained_in_its_phase(tmp_path: Path) -> None:
    family = load_family(written(tmp_path, in_two_phases(epochs="2", trainable='["last"]', rate="0.1")))
    point = points_of(family.space(IMAGE_SHAPE, N_CLASSES))[0]
    hyperparameters = FamilyHyperparameters.from_dict({**TRAINING.to_dict(), **point, "weight_decay": 0.1})
    model = family.build(hyperparameters, IMAGE_SHAPE, N_CLASSES)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (16, *IMAGE_SHAPE), dtype=np.uint8), rng.integers(0, N_CLASSES, 16)
    statistics = BatchStatistics(model, images, 8)
    trainer = Trainer(
        model, hyperparameters, 16, batch_statistics=statistics, phases=family.phases(hyperparameters, model)
    )

    def changed(epoch: int) -> set[str]:
        before = {weight.path: weight.numpy() for weight in model.weights}
        trainer.begin_epoch(epoch)
        trainer.train_epoch(images, labels, (0, 0, epoch))
        return {weight.path.split("/")[0] for weight in model.weights if (weight.numpy() != before[weight.path]).any()}

    for epoch in (1, 2):
        assert changed(epoch) == {"last"}
        assert trainer.learning_rate == pytest.approx(0.01)
        moving = [weight.numpy() for weight in model.weights if "moving" in weight.path]
        with trainer.evaluated_weights():
            kept = [weight.numpy() for weight in model.weights if "moving" in weight.path]
        assert all(map(np.array_equal, moving, kept)), "frozen batch normalisation is not recomputed either"
    assert changed(3) == {"first", "last"}
    assert trainer.learning_rate == pytest.approx(0.001)


def test_phases_follow_each_other_by_their_epochs() -> None:
    first, none, last = (Phase(frozenset({name}), epochs=epochs) for name, epochs in (("a", 2), ("b", 0), ("c", None)))
    assert [phase_of([first, none, last], epoch) for epoch in (1, 2, 3, 99)] == [first, first, last, last]


BACKBONE = Path(families.__file__).with_name("backbone.py")


def backbone_point(**values: object) -> FamilyHyperparameters:
    network = {"weights": "random", "side": 32, "width": 1.0, "dropout": 0.1, "frozen_epochs": 1, "unfrozen": 0.2}
    return FamilyHyperparameters.from_dict({**TRAINING.to_dict(), **network, "fine_tuning_rate": 0.1, **values})


def test_every_network_of_keras_has_its_preprocessing() -> None:
    names = [name for name in dir(keras.applications) if name[0].isupper()]
    modules = load_family(BACKBONE).module._MODULES
    for name in names:
        module = next(module for start, (module, _) in modules.items() if name.startswith(start))
        assert module == "mobilenet_v3" or hasattr(getattr(keras.applications, module), name), "it is the module's own"
        assert callable(getattr(keras.applications, module).preprocess_input)
    assert len(names) > 30


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_backbone_is_fine_tuned_from_a_local_file(channels: int, tmp_path: Path) -> None:
    family, shape = load_family(BACKBONE), (12, 16, channels)
    pretrained = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg", alpha=0.35
    )
    pretrained.save_weights(tmp_path / "of.weights.h5")
    point = backbone_point(backbone="MobileNetV2", weights=str(tmp_path / "of.weights.h5"), width=0.35)
    model = family.build(point, shape, N_CLASSES)
    (inner,) = (layer for layer in model.layers if hasattr(layer, "layers"))
    assert all(map(np.array_equal, inner.get_weights(), pretrained.get_weights()))
    first, second = family.phases(point, model)
    names = [layer.name for layer in inner.layers]
    assert not first.trainable & {*names}
    assert "probabilities" in first.trainable
    assert first.trainable < second.trainable
    share = len(second.trainable & {*names}) / len(names)
    assert 0.2 <= share < 0.22
    assert names[-1] in second.trainable

    wrong = backbone_point(backbone="MobileNetV2", weights=str(tmp_path / "of.weights.h5"), width=0.5)
    with pytest.raises(FamilyError, match="build raises"):
        family.build(wrong, shape, N_CLASSES)


def test_a_backbone_that_keras_does_not_have_is_told() -> None:
    with pytest.raises(FamilyError, match="build raises") as error:
        load_family(BACKBONE).build(backbone_point(backbone="MobileNetV9"), IMAGE_SHAPE, N_CLASSES)
    assert "MobileNetV9" in str(error.value)


@pytest.mark.parametrize("name", ["ConvNeXtTiny", "EfficientNetV2B0", "MobileNet"])
def test_backbones_of_other_kinds_have_phases_too(name: str) -> None:
    """One has networks within it, one looks at its own name, one has its scaling outside."""
    family, point = load_family(BACKBONE), backbone_point(backbone=name)
    model = family.build(point, IMAGE_SHAPE, N_CLASSES)
    first, second = family.phases(point, model)
    assert first.trainable < second.trainable
    sizes = []
    for phase in (first, second):
        freeze(model, phase.trainable)
        sizes.append(len(model.trainable_variables))
    assert sizes[0] == 2, "the last layer's kernel and bias"
    assert sizes[1] > 2


SERIES = Standardisation(np.array([1000.0, -2.0]), np.array([5.0, 1e-3]))


def check_series(path: Path) -> list[int]:
    family = load_family(path)
    points = check_family(family, family.space((20, 2), 3), TRAINING, (20, 2), 3, standardisation=SERIES)
    return [each.parameters for each in points]


def test_the_manuals_family_of_series_is_taken(tmp_path: Path) -> None:
    assert check_series(written(tmp_path, of_the_manual(holding="INPUT_RANKS")))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (GOOD, "expected: 3, which own takes \\(images\\)"),
        (f"INPUT_RANKS = {{1, 4}}\n{GOOD}", "expected: 1 or 4, which own takes"),
        (f"INPUT_RANKS = 2\n{GOOD}", "a family says something else than what it takes"),
        (f"INPUT_RANKS = {{2.0}}\n{GOOD}", "a family says something else than what it takes"),
        (f"INPUT_RANKS = {{2}}\nFLOAT_SCALE = 127.5\n{GOOD}", "a family says something else than what it takes"),
        (f"INPUT_RANKS = {{2}}\nFLOAT_SCALE = (0, -1)\n{GOOD}", "a family says something else than what it takes"),
    ],
)
def test_a_family_takes_samples_of_the_ranks_that_its_file_says(source: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(FamilyError) as caught:
        check_series(written(tmp_path, source))
    assert re.search(told, re.sub(" +", " ", str(caught.value)))


@pytest.mark.parametrize(("said", "mean", "deviation"), [("", 0, 1), ("FLOAT_SCALE = (127.5, 63.75)", 127.5, 63.75)])
def test_float_values_come_standardised_into_the_familys_own_layers(
    said: str, mean: float, deviation: float, tmp_path: Path
) -> None:
    source = GOOD.replace("keras.layers.Rescaling(1 / 255)(images)", 'keras.layers.Identity(name="given")(images)')
    source = source.replace('activation="softmax"', 'activation="softmax", dtype="float32"')
    family = load_family(written(tmp_path, f"INPUT_RANKS = {{2}}\n{said}\n{source}"))
    hyperparameters = replace(TRAINING, network=points_of(family.space((20, 2), 3))[0])
    network = family.build(hyperparameters, (20, 2), 3, "name", "mixed_float16", SERIES)
    samples = np.random.default_rng(0).normal(SERIES.mean, SERIES.deviation, (500, 20, 2)).astype(np.float32)
    save_model(network, tmp_path / "network.keras")
    for each in (network, load_model(tmp_path / "network.keras")):
        assert [layer.name for layer in each.layers][:4] == ["images", "float_centre", "float_scale", "given"]
        given = np.asarray(keras.Model(each.inputs[0], each.get_layer("float_scale").output)(samples))
        assert given.dtype == np.float32
        np.testing.assert_allclose(given.mean(axis=(0, 1)), mean, atol=0.03 * deviation)
        np.testing.assert_allclose(given.std(axis=(0, 1)), deviation, rtol=0.03)
