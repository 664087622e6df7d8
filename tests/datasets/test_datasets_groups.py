"""Images of one group stay in one part, and each class still has about its share of each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import open_dataset, prepare_dataset
from ensembleflow.datasets.group_split import check_groups_are_whole, joined, split_whole_groups, with_groups
from ensembleflow.datasets.labelled_images import LabelledImages
from ensembleflow.errors import DatasetError

FRACTIONS = {"valid": 0.2, "test": 0.2}
IMAGES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=120).map(
    lambda pairs: (np.array([pair[0] for pair in pairs], np.int64), np.array([pair[1] for pair in pairs], np.int64))
)


@given(IMAGES, st.integers(0, 2**40))
def test_each_image_is_in_one_part_and_no_group_in_two(images, seed):
    labels, groups = images
    splits = split_whole_groups(labels, groups, FRACTIONS, seed)
    assert list(splits) == ["train", "valid", "test"]
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(labels)))
    parts = [set(groups[indices].tolist()) for indices in splits.values()]
    assert sum(map(len, parts)) == len(set(groups.tolist()))


@given(IMAGES, st.integers(0, 2**40))
def test_the_same_seed_gives_the_same_split(images, seed):
    one, again = (split_whole_groups(*images, FRACTIONS, seed) for _ in range(2))
    for part in one:
        np.testing.assert_array_equal(one[part], again[part])


@given(
    st.lists(st.lists(st.integers(1, 30), min_size=3, max_size=8), min_size=2, max_size=5),
    st.floats(0.05, 0.45),
    st.floats(0.05, 0.45),
    st.integers(0, 2**40),
)
def test_a_class_of_three_groups_or_more_is_in_every_part(sizes, valid, test, seed):
    """Groups of one class each, as of specimens."""
    groups = [(label, size) for label, class_sizes in enumerate(sizes) for size in class_sizes]
    labels = np.concatenate([np.full(size, label) for label, size in groups])
    group_of = np.repeat(np.arange(len(groups)), [size for _, size in groups])
    splits = split_whole_groups(labels, group_of, {"valid": valid, "test": test}, seed)
    for indices in splits.values():
        assert set(labels[indices].tolist()) == set(range(len(sizes)))


def test_many_small_groups_give_each_class_its_share():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), 5)
    labels = random.choice(4, len(groups), p=[0.6, 0.2, 0.15, 0.05])
    splits = split_whole_groups(labels, groups, FRACTIONS, 0)
    for part, share in {"train": 0.6, "valid": 0.2, "test": 0.2}.items():
        counts = np.bincount(labels[splits[part]]) / np.bincount(labels)
        np.testing.assert_allclose(counts, share, atol=0.02)


def test_the_first_images_of_a_part_are_a_fair_sample_of_it():
    labels = np.repeat(np.arange(10), 100)
    splits = split_whole_groups(labels, np.arange(1000) // 5, FRACTIONS, 0)
    for indices in splits.values():
        assert len(set(labels[indices[:50]].tolist())) >= 8


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=30))
def test_joined_groups_are_those_that_share_images_by_way_of_others(pairs):
    one, other = (np.array(values) for values in zip(*pairs, strict=True))
    found = joined(one, other)
    # A plain flood: repeated until nothing changes.
    expected = np.arange(len(pairs))
    for _ in pairs:
        for grouping in (one, other):
            for value in set(grouping.tolist()):
                expected[grouping == value] = expected[grouping == value].min()
    same = found[:, None] == found
    np.testing.assert_array_equal(same, expected[:, None] == expected)


def test_a_group_in_two_parts_is_refused_by_name():
    splits = {"train": np.array([0, 1]), "test": np.array([2, 3])}
    check_groups_are_whole(np.array(["a", "a", "b", "c"]), splits, "here")
    with pytest.raises(DatasetError, match="groups stand in two parts") as error:
        check_groups_are_whole(np.array(["a", "b", "b", "c"]), splits, "here")
    assert error.value.found == "1 groups: b (in train and test)"


def named(*names: str) -> LabelledImages:
    labels = np.zeros(len(names), np.int64)
    return LabelledImages(("a",), labels, (1, 1, 1), lambda indices: np.zeros(()), name_of=names.__getitem__)


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"slide\d+", ["slide1", "slide1", "\0b/other.png"]),
        (r"(slide)(\d+)", ["slide", "slide", "\0b/other.png"]),
        (r"slide(\d+)", ["1", "1", "\0b/other.png"]),
        (r"^[^/]+", ["a", "b", "b"]),
    ],
)
def test_a_pattern_finds_groups_in_names(pattern, groups):
    images = with_groups(named("a/slide1_1.png", "b/slide1_2.png", "b/other.png"), pattern)
    assert images.groups.tolist() == groups


@pytest.mark.parametrize("pattern", ["slide", r"\d*$", "()a", ".*"])
def test_a_pattern_that_groups_nothing_is_refused(pattern):
    with pytest.raises(DatasetError, match="no two images are of one group"):
        with_groups(named("a/1.png", "a/2.png"), pattern)


def test_the_first_parentheses_that_take_part_are_the_group():
    images = with_groups(named("a_1", "a_2", "b_1", "b_2"), "(a)_|(b)_")
    assert images.groups.tolist() == ["a", "a", "b", "b"]


def test_images_that_a_pattern_does_not_find_are_told(caplog):
    with_groups(named("s1_1", "s1_2", "other"), r"s\d")
    assert "1 of 3 images are groups of their own, as no group is found: other" in caplog.text


def test_one_large_group_among_small_uneven_ones_is_trained_with():
    counts = [(300, 300, 300), (40, 5, 5), (5, 40, 5)]
    labels = np.concatenate([np.repeat(np.arange(3), each) for each in counts])
    groups = np.repeat(np.arange(3), [sum(each) for each in counts])
    splits = split_whole_groups(labels, groups, {"valid": 0.1, "test": 0.2}, 0)
    assert {part: len(indices) for part, indices in splits.items()} == {"train": 900, "valid": 50, "test": 50}


def test_shares_that_whole_groups_make_impossible_are_told(slides, tmp_path, caplog):
    for number in range(100, 200):
        for name in ("oak", "beech"):
            Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(slides / name / f"s00_{number}.png")
    prepare_dataset(config_of(slides, group_pattern=r"s\d+_", test_fraction=0.4), tmp_path / "own.h5")
    assert "groups stay whole, so parts are of other sizes" in caplog.text
    assert "the largest, s00_, has 204 of 248 images" in caplog.text


@pytest.fixture
def slides(tmp_path):
    """Twelve slides of four crops each, of two classes, as `oak/s03_2.png`."""
    for slide in range(12):
        folder = tmp_path / "images" / ("oak" if slide % 2 else "beech")
        folder.mkdir(parents=True, exist_ok=True)
        for crop in range(4):
            pixels = np.full((8, 8, 3), 20 * slide + crop, np.uint8)
            Image.fromarray(pixels).save(folder / f"s{slide:02}_{crop}.png")
    return tmp_path / "images"


def config_of(folder, **changes):
    values = {"name": "own", "source": "image_folder", "path": str(folder), "image_size": 8}
    return DatasetConfig(**values | {"valid_fraction": 0.25, "test_fraction": 0.25} | changes)


def test_a_folders_slides_stay_whole(slides, tmp_path):
    prepare_dataset(config_of(slides, group_pattern=r"s\d+_"), tmp_path / "own.h5")
    with open_dataset(tmp_path / "own.h5") as dataset:
        parts = [set((dataset.images(part)[:, 0, 0, 0] // 20).tolist()) for part in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [6, 3, 3] or [len(part) for part in parts] == [8, 2, 2]
    assert set.union(*parts) == set(range(12))


def test_copies_and_groups_are_kept_together(slides, tmp_path):
    for crop in range(4):  # slide 2 shows what slide 0 shows
        (slides / f"beech/s02_{crop}.png").write_bytes((slides / f"beech/s00_{crop}.png").read_bytes())
    config = config_of(slides, group_pattern=r"s\d+_", duplicates="together")
    prepare_dataset(config, tmp_path / "own.h5")
    with open_dataset(tmp_path / "own.h5") as dataset:
        parts = [dataset.images(part)[:, 0, 0, 0] for part in ("train", "valid", "test")]
    assert sorted(int(np.sum(part < 20)) for part in parts) == [0, 0, 8]


def test_a_class_of_too_few_groups_is_told_with_their_number(slides, tmp_path):
    with pytest.raises(DatasetError, match="classes are absent") as error:
        prepare_dataset(config_of(slides, group_pattern="oak|beech"), tmp_path / "own.h5")
    assert "24 images of 1 group" in str(error.value)
    assert "three groups" in error.value.hint


def test_a_pattern_that_is_no_regular_expression_or_has_no_use_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no regular expression"):
        config_of(tmp_path, group_pattern="(")
    with pytest.raises(ValueError, match="column `group`"):
        config_of(tmp_path, source="table", group_pattern="s")
