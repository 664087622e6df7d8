"""The split is disjoint, complete, stratified, repeatable, and leaves no class out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets.labelled_images import LabelledImages
from ensembleflow.datasets.prepare import split_of
from ensembleflow.datasets.split import (
    check_every_class_in_every_split,
    grouped_split,
    stratified_part,
    stratified_split,
)
from ensembleflow.errors import DatasetError

LABELS = arrays(np.int64, st.integers(0, 200), elements=st.integers(0, 5))
FRACTIONS = st.tuples(st.floats(0.01, 0.6), st.floats(0.01, 0.39)).map(lambda pair: {"valid": pair[0], "test": pair[1]})
SEEDS = st.integers(0, 2**40)


@given(LABELS, FRACTIONS, SEEDS)
def test_each_image_is_in_exactly_one_split(labels, fractions, seed):
    splits = stratified_split(labels, fractions, seed)
    assert set(splits) == {"train", "valid", "test"}
    assert sorted(np.concatenate(list(splits.values()))) == list(range(len(labels)))


@given(LABELS, FRACTIONS, SEEDS)
def test_each_class_has_its_share_of_each_split(labels, fractions, seed):
    splits = stratified_split(labels, fractions, seed)
    for label in np.unique(labels):
        n_images = np.sum(labels == label)
        for name, fraction in fractions.items():
            assert abs(np.sum(labels[splits[name]] == label) - n_images * fraction) <= 0.5 + 1e-9


@given(LABELS, FRACTIONS, SEEDS)
def test_same_seed_gives_the_same_split(labels, fractions, seed):
    one, again = (stratified_split(labels, fractions, seed) for _ in range(2))
    for name in one:
        np.testing.assert_array_equal(one[name], again[name])


def test_another_seed_gives_another_split():
    labels = np.repeat([0, 1], 50)
    valid = [frozenset(stratified_split(labels, {"valid": 0.2}, seed)["valid"].tolist()) for seed in range(20)]
    assert len(set(valid)) == 20


def test_first_images_of_a_split_are_of_many_classes():
    labels = np.repeat(np.arange(10), 100)
    splits = stratified_split(labels, {"valid": 0.2, "test": 0.2}, 0)
    for indices in splits.values():
        assert len(set(labels[indices[:50]])) >= 8


@given(LABELS, FRACTIONS, SEEDS)
def test_refused_exactly_where_a_class_is_absent_from_a_split(labels, fractions, seed):
    names = [f"class-{label}" for label in range(6)]
    splits = stratified_split(labels, fractions, seed)
    absent = {names[label] for each in splits.values() for label in range(6) if label not in labels[each]}
    if not absent:
        check_every_class_in_every_split(labels, names, splits)
        return
    with pytest.raises(DatasetError) as caught:
        check_every_class_in_every_split(labels, names, splits)
    assert {name for name in names if f"{name} (" in caught.value.where} == absent


def test_absent_class_is_named_with_its_splits_and_number_of_images():
    labels = np.array([0] * 20 + [1] * 2)
    splits = stratified_split(labels, {"valid": 0.2, "test": 0.3}, 0)
    with pytest.raises(DatasetError) as caught:
        check_every_class_in_every_split(labels, ["common", "rare", "empty"], splits)
    assert "rare (2 images) is not in valid" in caught.value.where
    assert "empty (0 images) is not in train and valid and test" in caught.value.where
    assert "common" not in caught.value.where
    assert "dataset.valid_fraction" in caught.value.hint


FILLED_LABELS = arrays(np.int64, st.integers(1, 200), elements=st.integers(0, 5))


def shuffled_train(labels, seed):
    return stratified_split(labels, {"valid": 0.0}, seed)["train"]


@given(FILLED_LABELS, st.data(), SEEDS)
def test_each_class_has_its_share_of_a_part_and_one_image_at_least(labels, data, seed):
    n_classes = len(np.unique(labels))
    n = data.draw(st.integers(n_classes, len(labels)))
    part = stratified_part(labels, shuffled_train(labels, seed), n)
    assert len(set(part.tolist())) == len(part) == n
    for label in np.unique(labels):
        n_images, n_kept = np.sum(labels == label), np.sum(labels[part] == label)
        assert n_kept >= 1
        assert abs(n_kept - n_images * n / len(labels)) <= n_classes
    if all(np.sum(labels == label) == np.sum(labels == labels[0]) for label in np.unique(labels)):
        assert np.ptp([np.sum(labels[part] == label) for label in np.unique(labels)]) <= 1


@given(FILLED_LABELS, st.data(), SEEDS)
def test_a_smaller_part_lies_within_a_larger_one_in_the_same_order(labels, data, seed):
    n_classes, shuffled = len(np.unique(labels)), shuffled_train(labels, seed)
    smaller = data.draw(st.integers(n_classes, len(labels)))
    larger = data.draw(st.integers(smaller, len(labels)))
    one, other = stratified_part(labels, shuffled, smaller), stratified_part(labels, shuffled, larger)
    assert [index for index in other.tolist() if index in set(one.tolist())] == one.tolist()
    assert stratified_part(labels, shuffled, len(labels)).tolist() == shuffled.tolist()


@pytest.mark.parametrize("n", [2, 61])
def test_a_part_of_fewer_images_than_classes_or_of_more_than_there_are_is_refused(n):
    labels = np.arange(60) % 3
    with pytest.raises(DatasetError, match="number of training images cannot be had") as caught:
        stratified_part(labels, shuffled_train(labels, 0), n)
    assert (caught.value.where, caught.value.found) == ("dataset.train_images", str(n))
    assert caught.value.expected.startswith("3 (the classes) to 60 (")


@pytest.mark.parametrize("own_test", [False, True])
def test_train_images_leaves_validation_and_test_as_they_are(own_test):
    labels = np.arange(300) % 3
    own = {"test": np.arange(240, 300)} if own_test else {}
    images = LabelledImages(("a", "b", "c"), labels, (1, 1, 1), lambda indices: np.zeros(()), own)
    whole, reduced = split_of(DatasetConfig(), images), split_of(DatasetConfig(train_images=60), images)
    for name in ("valid", "test"):
        np.testing.assert_array_equal(reduced[name], whole[name])
    assert np.bincount(labels[reduced["train"]]).tolist() == [20, 20, 20]
    assert set(reduced["train"]) <= set(whole["train"])


@given(LABELS, FRACTIONS, SEEDS)
def test_without_copies_a_grouped_split_is_the_stratified_one(labels, fractions, seed):
    contents = np.random.default_rng(seed).permutation(len(labels)).astype(np.uint64)
    one, other = stratified_split(labels, fractions, seed), grouped_split(labels, contents, fractions, seed)
    assert {name: each.tolist() for name, each in one.items()} == {name: each.tolist() for name, each in other.items()}


@given(LABELS, st.integers(1, 50), FRACTIONS, SEEDS)
def test_copies_stay_in_one_part_and_no_image_is_lost(labels, n_contents, fractions, seed):
    contents = np.random.default_rng(seed).integers(0, n_contents, len(labels)).astype(np.uint64)
    splits = grouped_split(labels, contents, fractions, seed)
    assert sorted(np.concatenate([*splits.values()]).tolist()) == list(range(len(labels)))
    parts = [set(contents[indices].tolist()) for indices in splits.values()]
    assert sum(map(len, parts)) == len(set(contents.tolist()))
