"""One epoch of training, and the five augmentations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from ensembleflow.datasets.standardisation import Standardisation
from ensembleflow.errors import ArtefactError, ConfigError
from ensembleflow.models import (
    Trainer,
    build_resnet,
    class_weights,
    model_function,
    restore_checkpoint,
    save_checkpoint,
    training_batches,
    weights_sha256,
)
from ensembleflow.models.augmentation import augment, augmentation_of, mix_up, random_affines
from support.example_hyperparameters import hyperparameters

DIGITS = load_digits()
IMAGES = np.rint(DIGITS.images[:300, :, :, None] * 255 / 16).astype(np.uint8)
LABELS = DIGITS.target[:300].astype(np.int64)


def small_trainer(precision: str = "float32", **changes: Any) -> Trainer:
    hp = hyperparameters(**changes)
    return Trainer(build_resnet(hp, (8, 8, 1), 10, precision=precision), hp, n_steps=40)


STILL = {"max_zoom": 0, "max_translation": 0, "max_shear": 0, "max_channel_shift": 0, "max_rotation_degrees": 0}


@settings(max_examples=25, deadline=None)
@given(n_images=st.integers(1, 70), batch_size=st.integers(1, 50), epoch=st.integers(0, 5))
def test_an_epochs_batches_hold_every_image_once_with_its_label(n_images: int, batch_size: int, epoch: int) -> None:
    hp = hyperparameters(batch_size=batch_size, **STILL)
    images = np.arange(n_images, dtype=np.uint8).reshape(-1, 1, 1, 1)
    labels = np.arange(n_images, dtype=np.int64)
    batches = list(training_batches(images, labels, hp, (0, 0, epoch)))
    assert [len(batch[0]) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    seen = np.concatenate([batch[1] for batch in batches])
    np.testing.assert_array_equal(np.sort(seen), labels)
    for batch in batches:
        np.testing.assert_array_equal(batch.images.ravel(), batch.labels)
        np.testing.assert_array_equal(batch.indices, batch.labels)
        assert batch.partners is None


def test_batches_depend_on_the_seed_alone() -> None:
    def epoch(*seed: int) -> list[np.ndarray]:
        return [images for images, *_ in training_batches(IMAGES, LABELS, hyperparameters(), seed)]

    for first, second in zip(epoch(0, 1, 2), epoch(0, 1, 2), strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(epoch(0, 1, 2)[0], epoch(0, 1, 3)[0])
    assert not np.array_equal(epoch(0, 1, 2)[0], epoch(0, 2, 2)[0])


def test_without_ranges_augmentation_changes_nothing() -> None:
    np.testing.assert_array_equal(augment(IMAGES, hyperparameters(**STILL), np.random.default_rng(0)), IMAGES)


@pytest.mark.parametrize(("name", "axis"), [("horizontal_flips", 2), ("vertical_flips", 1)])
def test_flips_mirror_that_share_of_the_images(name: str, axis: int) -> None:
    changed = augment(IMAGES, hyperparameters(**STILL, **{name: 0.3}), np.random.default_rng(0))
    kept = (changed == IMAGES).all(axis=(1, 2, 3))
    mirrored = (changed == np.flip(IMAGES, axis)).all(axis=(1, 2, 3))
    assert (kept | mirrored).all()
    assert 0.2 < mirrored.mean() < 0.4
    every = augment(IMAGES, hyperparameters(**STILL, **{name: 1.0}), np.random.default_rng(0))
    np.testing.assert_array_equal(every, np.flip(IMAGES, axis))


def test_cutout_blanks_a_square_of_each_image_wherever_it_falls() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (200, 10, 8, 3), dtype=np.uint8)
    changed = augment(noise, hyperparameters(**STILL, cutout=0.5), np.random.default_rng(0))
    sides = set()
    for before, after in zip(noise, changed, strict=True):
        rows, columns = np.nonzero((before != after).any(axis=-1))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        sides.add((height, width))
        assert max(height, width) <= 4
        blank = after[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (blank == np.rint(before.mean(axis=(0, 1)))).all()
    assert (4, 4) in sides
    assert len(sides) > 4, "some are cut off by the image's edge"


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_images_are_moved_as_keras_moves_them_to_within_rounding(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 20, 16, channels), dtype=np.uint8)
    hp = hyperparameters(max_channel_shift=0.0)
    matrices = random_affines(12, (20, 16, channels), hp, np.random.default_rng(3))
    moved = keras.ops.image.affine_transform(
        images.astype(np.float32), matrices, interpolation="bilinear", fill_mode="nearest"
    )
    found = augment(images, hp, np.random.default_rng(3)).astype(float)
    assert np.abs(found - np.asarray(moved)).max() < 1.01


def test_a_shift_of_the_channels_is_the_same_everywhere_and_saturates() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 6, 6, 5), dtype=np.uint8)
    changed = augment(images, hyperparameters(**{**STILL, "max_channel_shift": 0.5}), np.random.default_rng(1))
    for before, after in zip(images.reshape(30, 36, 5), changed.reshape(30, 36, 5), strict=True):
        for channel in range(5):
            inside = (after[:, channel] > 0) & (after[:, channel] < 255)
            shift = {*(after[inside, channel].astype(int) - before[inside, channel])}
            assert len(shift) == 1
            expected = np.clip(before[:, channel].astype(int) + shift.pop(), 0, 255)
            np.testing.assert_array_equal(after[:, channel], expected)


def test_what_is_off_changes_nothing_of_what_is_on() -> None:
    before = augment(IMAGES, hyperparameters(), np.random.default_rng(0))
    flipped = augment(IMAGES, hyperparameters(horizontal_flips=1.0), np.random.default_rng(0))
    np.testing.assert_array_equal(flipped, before[:, :, ::-1])


@settings(max_examples=25, deadline=None)
@given(alpha=st.floats(0.05, 2), n_images=st.integers(1, 40), seed=st.integers(0, 5))
def test_mixup_mixes_each_image_with_one_of_its_batch_and_keeps_the_larger_share(
    alpha: float, n_images: int, seed: int
) -> None:
    mixed, partners, shares = mix_up(IMAGES[:n_images], alpha, np.random.default_rng(seed))
    assert sorted(partners) == list(range(n_images))
    assert ((shares >= 0.5) & (shares <= 1)).all()
    own = shares[:, None, None, None]
    expected = own * IMAGES[:n_images] + (1 - own) * IMAGES[:n_images][partners]
    assert np.abs(mixed - expected).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_on_mixed_images_learns_from_both_labels(weighted: bool) -> None:
    """Its loss is that of both labels by their shares, computed here from the network's own answers."""
    hp = hyperparameters(**STILL, mixup=0.4, batch_size=20, l2=0.0, learning_rate=1e-9)
    images, labels = IMAGES[:20], LABELS[:20]
    weights = np.linspace(0.5, 2, 20, dtype=np.float32) if weighted else None
    by_class = list(np.linspace(1, 3, 10)) if weighted else None
    trainer = Trainer(
        build_resnet(hp, (8, 8, 1), 10), hp, n_steps=1, class_weights=by_class, image_weights=weights, averaged=False
    )
    (batch,) = training_batches(images, labels, hp, (0, 0, 1))
    assert batch.partners is not None
    assert batch.shares is not None
    probabilities = np.asarray(trainer.model(batch.images, training=True))
    place = np.arange(20)

    def loss(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cross_entropy = -np.log(probabilities[place, labels[indices]])
        factor = 1.0 if weights is None else np.asarray(by_class)[labels[indices]] * weights[indices]
        return cross_entropy, cross_entropy * factor

    own, others = loss(batch.indices), loss(batch.partners)
    found = trainer.train_epoch(images, labels, (0, 0, 1))
    shares = batch.shares
    assert found.cross_entropy == pytest.approx(float(np.mean(shares * own[0] + (1 - shares) * others[0])), rel=1e-4)
    assert found.loss == pytest.approx(float(np.mean(shares * own[1] + (1 - shares) * others[1])), rel=1e-4)
    assert found.error == pytest.approx(float(np.mean(probabilities.argmax(axis=1) != batch.labels)))


@pytest.mark.parametrize("name", STILL)
def test_each_augmentation_changes_images_by_itself(name: str) -> None:
    values = {**STILL, name: 45 if name == "max_rotation_degrees" else 0.3}
    changed = augment(IMAGES, hyperparameters(**values), np.random.default_rng(0))
    assert changed.shape == IMAGES.shape
    assert changed.dtype == np.uint8
    assert (changed != IMAGES).any(axis=(1, 2, 3)).mean() > 0.9


def test_a_rotation_turns_about_the_images_centre() -> None:
    hp = hyperparameters(**{**STILL, "max_rotation_degrees": 90})
    matrices = random_affines(500, (9, 9, 1), hp, np.random.default_rng(0))
    centre = np.array([4, 4, 1])
    np.testing.assert_allclose(matrices[:, 0:3] @ centre, 4, atol=1e-4)
    np.testing.assert_allclose(matrices[:, 3:6] @ centre, 4, atol=1e-4)
    determinants = matrices[:, 0] * matrices[:, 4] - matrices[:, 1] * matrices[:, 3]
    np.testing.assert_allclose(determinants, 1, atol=1e-5)


def test_a_translation_moves_by_at_most_its_share_of_the_side() -> None:
    hp = hyperparameters(**{**STILL, "max_translation": 0.25})
    matrices = random_affines(500, (8, 16, 1), hp, np.random.default_rng(0))
    assert 3.5 < np.abs(matrices[:, 2]).max() <= 4
    assert 1.7 < np.abs(matrices[:, 5]).max() <= 2


def test_training_lowers_the_loss() -> None:
    trainer = small_trainer()
    epochs = [trainer.train_epoch(IMAGES, LABELS, (0, 0, epoch)) for epoch in range(4)]
    assert epochs[-1].cross_entropy < 0.7 * epochs[0].cross_entropy
    assert epochs[-1].error < epochs[0].error
    assert all(epoch.loss > epoch.cross_entropy for epoch in epochs), "the L2 term is part of the loss"


# On CPUs TensorFlow has no grouped convolution in half precision.
@pytest.mark.parametrize(
    ("block", "precision", "schedule"),
    [("v1", "float32", "constant"), ("next", "float32", "warmup_cosine"), ("v2", "mixed_float16", "cosine")],
)
def test_training_resumed_from_a_checkpoint_goes_on_to_the_last_bit(
    block: str, precision: str, schedule: str, tmp_path: Path
) -> None:
    def fresh_trainer() -> Trainer:
        return small_trainer(precision, block=block, schedule=schedule, weight_decay=0.01)

    trainer = fresh_trainer()
    trainer.train_epoch(IMAGES, LABELS, (0, 0, 1))
    save_checkpoint(trainer, tmp_path / "checkpoint.npz")
    expected = trainer.train_epoch(IMAGES, LABELS, (0, 0, 2))

    resumed = fresh_trainer()
    restore_checkpoint(resumed, tmp_path / "checkpoint.npz")
    result = resumed.train_epoch(IMAGES, LABELS, (0, 0, 2))
    assert (result.loss, result.cross_entropy, result.error) == (expected.loss, expected.cross_entropy, expected.error)
    assert weights_sha256(resumed.model) == weights_sha256(trainer.model)
    with trainer.evaluated_weights(), resumed.evaluated_weights():
        assert weights_sha256(resumed.model) == weights_sha256(trainer.model)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    save_checkpoint(small_trainer(), tmp_path / "c.npz")
    with pytest.raises(ArtefactError, match="of another network"):
        restore_checkpoint(small_trainer(stage_filters=16), tmp_path / "c.npz")


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    trainer = small_trainer()
    save_checkpoint(trainer, tmp_path / "c.npz")
    content = (tmp_path / "c.npz").read_bytes()
    (tmp_path / "c.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtefactError, match="cannot be read"):
        restore_checkpoint(trainer, tmp_path / "c.npz")


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_in_half_precision_and_keeps_weights_and_answers_in_single(precision: str) -> None:
    trainer = small_trainer(precision)
    model = trainer.model
    epochs = [trainer.train_epoch(IMAGES, LABELS, (0, 0, epoch)) for epoch in range(4)]
    assert epochs[-1].cross_entropy < 0.7 * epochs[0].cross_entropy
    assert {layer.compute_dtype for layer in model.layers if "conv" in layer.name} == {precision.removeprefix("mixed_")}
    assert {str(weight.dtype) for weight in model.weights} == {"float32"}
    assert model_function(model).predict(IMAGES, 64).dtype == np.float32


@pytest.mark.parametrize("threads", [2, 5])
def test_batches_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    one = list(training_batches(IMAGES, LABELS, hyperparameters(), (0, 1, 2)))
    several = list(training_batches(IMAGES, LABELS, hyperparameters(), (0, 1, 2), threads))
    assert len(one) == len(several)
    for batch, other in zip(one, several, strict=True):
        for values, other_values in zip(batch, other, strict=True):
            np.testing.assert_array_equal(values, other_values)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("cosine", [1, 0.8536, 0.5, 0.1464, 0]),
        ("warmup_cosine", [0, 0.8946, 0.5413, 0.1614, 0]),
    ],
)
def test_the_learning_rate_follows_its_schedule_from_the_first_update_to_the_last(
    schedule: str, expected: list[float]
) -> None:
    trainer = small_trainer(schedule=schedule, learning_rate=0.002)
    rates = [trainer.learning_rate]
    for epoch in range(4):  # of ten batches each
        trainer.train_epoch(IMAGES, LABELS, (0, 0, epoch))
        rates.append(trainer.learning_rate)
    np.testing.assert_allclose(np.array(rates) / 0.002, expected, atol=1e-3)


def test_weight_decay_shrinks_kernels_and_nothing_else() -> None:
    trainer = small_trainer(weight_decay=0.5, learning_rate=0.1)
    network = trainer.model
    before = {variable.path: variable.numpy() for variable in network.trainable_variables}
    zeros = [np.zeros(variable.shape, np.float32) for variable in network.trainable_variables]
    network.optimizer.apply_gradients(zip(zeros, network.trainable_variables, strict=True))
    for variable in network.trainable_variables:
        factor = 0.95 if variable.path.endswith("kernel") else 1
        np.testing.assert_allclose(variable.numpy(), factor * before[variable.path], rtol=1e-5, err_msg=variable.path)


def test_class_weights_scale_what_an_image_adds_to_the_loss() -> None:
    def loss(class_weights: list[float] | None) -> tuple[float, float]:
        hp = hyperparameters(l2=0.0, **STILL)
        keras.utils.set_random_seed(0)
        trainer = Trainer(build_resnet(hp, (8, 8, 1), 10), hp, n_steps=40, class_weights=class_weights)
        result = trainer.train_epoch(IMAGES[:32], LABELS[:32], (0, 0, 1))
        return result.loss, result.cross_entropy

    plain = loss(None)
    assert plain[0] == pytest.approx(plain[1], rel=1e-5)
    twice = loss([2.0] * 10)
    assert twice == pytest.approx((2 * plain[0], plain[1]), rel=1e-5)


def test_image_weights_scale_what_each_image_adds_to_the_loss() -> None:
    def loss(image_weights: np.ndarray | None, n_images: int = 32) -> float:
        hp = hyperparameters(l2=0.0, batch_size=32, **STILL)
        keras.utils.set_random_seed(0)
        trainer = Trainer(build_resnet(hp, (8, 8, 1), 10), hp, n_steps=40, image_weights=image_weights)
        return trainer.train_epoch(IMAGES[:n_images], LABELS[:n_images], (0, 0, 1)).loss

    assert loss(np.full(32, 3, np.float32)) == pytest.approx(3 * loss(None), rel=1e-5)
    # The batch's own statistics are those of all images, so the parts add up.
    halves = [np.where(np.arange(32) % 2 == half, 1.0, 1e-9).astype(np.float32) for half in (0, 1)]
    assert sum(loss(half) for half in halves) == pytest.approx(loss(None), rel=1e-5)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_balanced_class_weights_give_each_class_that_has_images_the_same_weight_in_all(labels: list[int]) -> None:
    weights = class_weights("balanced", np.array(labels), [f"class {c}" for c in range(6)])
    assert weights is not None
    totals = np.bincount(labels, weights=np.array(weights)[labels], minlength=6)
    present = np.bincount(labels, minlength=6) > 0
    np.testing.assert_allclose(totals[present], len(labels) / present.sum())


def test_class_weights_by_name_are_in_the_classes_order_and_a_class_that_is_absent_is_refused() -> None:
    labels = np.array([0, 1, 2])
    assert class_weights({"dog": 3, "ant": 0.5}, labels, ["ant", "cat", "dog"]) == [0.5, 1.0, 3.0]
    assert class_weights(None, labels, ["ant", "cat", "dog"]) is None
    with pytest.raises(ConfigError, match="classes that the dataset does not have") as refused:
        class_weights({"dgo": 3}, labels, ["ant", "cat", "dog"])
    assert refused.value.found == "dgo"


def test_float_images_are_augmented_as_pixels_are_without_rounding_and_bounds() -> None:
    """Pixels on another scale give the pixels' result on that scale, to within their rounding."""
    moved = {**STILL, "max_zoom": 0.3, "max_translation": 0.2, "max_rotation_degrees": 40}
    strong = hyperparameters(**moved, horizontal_flips=0.5, cutout=0.3)
    images = np.random.default_rng(1).integers(60, 190, (6, 17, 23, 5), dtype=np.uint8)
    floats = images.astype(np.float32) * 1000 - 5
    expected = augment(images, strong, np.random.default_rng(0))
    found = augment(floats, strong, np.random.default_rng(0))
    assert found.dtype == np.float32
    np.testing.assert_allclose((found + 5) / 1000, expected, atol=1.51)


def test_a_shift_of_float_channels_is_a_share_of_four_standard_deviations() -> None:
    deviation = np.array([1.0, 100.0, 0.01, 5.0, 2.0])
    images = np.zeros((64, 4, 4, 5), np.float32)
    shifting = augmentation_of((4, 4, 5), Standardisation(np.zeros(5), deviation))
    shifted = shifting(images, hyperparameters(max_channel_shift=0.25), np.random.default_rng(0))
    assert (np.abs(shifted).max(axis=(0, 1, 2)) <= deviation).all()
    assert (np.abs(shifted).max(axis=(0, 1, 2)) > 0.9 * deviation).all()


def test_samples_of_other_ranks_are_not_augmented_and_are_mixed() -> None:
    series = np.random.default_rng(0).normal(size=(8, 20, 2)).astype(np.float32)
    standardisation = Standardisation(np.zeros(2), np.ones(2))
    changed = augmentation_of((20, 2), standardisation)(series, hyperparameters(max_zoom=0.5), np.random.default_rng(0))
    assert changed is series
    mixed, partners, shares = mix_up(series, 0.4, np.random.default_rng(0))
    own = shares[:, np.newaxis, np.newaxis]
    np.testing.assert_allclose(mixed, own * series + (1 - own) * series[partners], rtol=1e-6)
