"""A table of images: its columns become files, classes, parts and groups, or it is refused with the row."""

from __future__ import annotations

import builtins
import logging
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import SPLITS, open_dataset, prepare_dataset
from ensembleflow.datasets.source_state import find_source_files, source_inputs, source_state
from ensembleflow.datasets.table import read_table
from ensembleflow.errors import DatasetError

N_IMAGES = 40


@pytest.fixture
def rows(tmp_path) -> pd.DataFrame:
    """Forty images beside the table, every second of each class, ten groups, in their parts."""
    (tmp_path / "images").mkdir()
    for number in range(N_IMAGES):
        Image.fromarray(np.full((9, 12, 3), 5 * number, np.uint8)).save(tmp_path / f"images/{number}.png")
    numbers = np.arange(N_IMAGES)
    return pd.DataFrame(
        {
            "path": [f"images/{number}.png" for number in numbers],
            "label": np.where(numbers % 2, "oak", "beech"),
            "split": np.select([numbers < 20, numbers < 28], ["train", "val"], "Test"),
            "group": [f"slide {number // 4}" for number in numbers],
        }
    )


def config_of(table, **changes):
    values = {"name": "own", "source": "table", "path": str(table), "image_size": 8}
    return DatasetConfig(**values | {"valid_fraction": 0.3, "test_fraction": 0.3} | changes)


def written(folder, rows: pd.DataFrame, name: str = "images.csv"):
    if name.endswith(".csv"):
        rows.to_csv(folder / name, index=False)
    else:
        rows.to_parquet(folder / name)
    return folder / name


def numbers_of(path, part: str) -> list[int]:
    with open_dataset(path) as dataset:
        numbers = dataset.images(part)[:, 0, 0, 0] // 5
        assert dataset.labels(part).tolist() == (numbers % 2).tolist()
        assert dataset.class_names == ["beech", "oak"]
        return numbers.tolist()


@pytest.mark.parametrize("name", ["images.csv", "images.parquet"])
def test_rows_become_images_in_their_parts(rows, tmp_path, name):
    prepare_dataset(config_of(written(tmp_path, rows, name)), tmp_path / "own.h5")
    found = {part: sorted(numbers_of(tmp_path / "own.h5", part)) for part in SPLITS}
    assert found == {"train": list(range(20)), "valid": list(range(20, 28)), "test": list(range(28, 40))}


def test_without_parts_groups_are_split_whole(rows, tmp_path):
    prepare_dataset(config_of(written(tmp_path, rows.drop(columns="split"))), tmp_path / "own.h5")
    groups = [{number // 4 for number in numbers_of(tmp_path / "own.h5", part)} for part in SPLITS]
    assert sorted(map(len, groups)) == [3, 3, 4]
    assert set.union(*groups) == set(range(10))


def test_without_groups_each_image_is_split_by_itself(rows, tmp_path):
    prepare_dataset(config_of(written(tmp_path, rows[["path", "label"]])), tmp_path / "own.h5")
    assert [len(numbers_of(tmp_path / "own.h5", part)) for part in SPLITS] == [16, 12, 12]


def test_a_row_without_a_group_is_one_of_its_own(rows, tmp_path):
    rows.loc[rows.index % 4 > 0, "group"] = None
    groups = read_table(written(tmp_path, rows.drop(columns="split")), 8).groups
    assert len(set(groups.tolist())) == N_IMAGES


def test_a_group_in_two_parts_is_refused(rows, tmp_path):
    rows.loc[0, "split"] = "test"
    with pytest.raises(DatasetError, match="groups stand in two parts") as error:
        prepare_dataset(config_of(written(tmp_path, rows)), tmp_path / "own.h5")
    assert "slide 0 (in train and test)" in str(error.value)


def test_absolute_paths_and_those_of_other_folders_are_read(rows, tmp_path):
    rows.loc[0, "path"] = str(tmp_path / "images/0.png")
    (tmp_path / "tables").mkdir()
    rows.loc[1:, "path"] = "../" + rows["path"][1:]
    prepare_dataset(config_of(written(tmp_path / "tables", rows)), tmp_path / "own.h5")
    assert sorted(numbers_of(tmp_path / "own.h5", "train")) == list(range(20))


def test_whole_numbers_are_classes_in_their_order(rows, tmp_path):
    rows["label"] = np.where(np.arange(N_IMAGES) % 2, 10, 9)
    assert read_table(written(tmp_path, rows), 8).class_names == ("9", "10")


def test_numbers_with_leading_zeros_and_words_like_na_are_texts(rows, tmp_path):
    rows["label"] = np.where(np.arange(N_IMAGES) % 2, "007", "NA")
    assert read_table(written(tmp_path, rows), 8).class_names == ("007", "NA")


def test_columns_that_are_not_used_are_told(rows, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        read_table(written(tmp_path, rows.assign(taken="May", camera="left")), 8)
    assert "columns that are not used: taken, camera" in caplog.text


@pytest.mark.parametrize("name", ["images.csv", "images.parquet"])
def test_weights_of_training_images_have_mean_one_and_follow_them(rows, tmp_path, name):
    table = written(tmp_path, rows.assign(weight=np.arange(N_IMAGES) + 0.5), name)
    prepare_dataset(config_of(table), tmp_path / "own.h5")
    prepare_dataset(config_of(written(tmp_path, rows, "plain.csv")), tmp_path / "plain.h5")
    with open_dataset(tmp_path / "own.h5") as dataset, open_dataset(tmp_path / "plain.h5") as plain:
        numbers = dataset.images("train")[:, 0, 0, 0] // 5
        np.testing.assert_allclose(dataset.training_weights(), (numbers + 0.5) / np.mean(numbers + 0.5), rtol=1e-6)
        assert plain.training_weights() is None
        assert dataset.checksum != plain.checksum, "other trials"


def test_all_missing_images_are_told_at_once(rows, tmp_path):
    for number in (3, 30):
        (tmp_path / f"images/{number}.png").unlink()
    with pytest.raises(DatasetError, match="2 images cannot be read") as error:
        prepare_dataset(config_of(written(tmp_path, rows)), tmp_path / "own.h5")
    assert "images/3.png" in str(error.value)
    assert "images/30.png" in str(error.value)
    assert not (tmp_path / "own.h5").exists()


FAULTS = {
    "no label": ({"label": [""] * 3 + ["oak"] * 37}, "rows of the table have no label", "3 rows: row 1, row 2, row 3"),
    "no path": ({"path": ["x.png", " "] * 20}, "rows of the table have no path", "20 rows: row 2, row 4"),
    "another split": ({"split": ["train", "holdout"] * 20}, "unknown split", "20 rows: row 2: 'holdout'"),
    "an empty split": ({"split": ["train"] * 39 + [""]}, "unknown split", "1 rows: row 40: ''"),
    "nothing to train with": ({"split": ["test", "valid"] * 20}, "none to train with", "0 train, 20 valid, 20 test"),
    "a weight of none": ({"weight": ["1", "", "0", "-1", "nan", "inf", "x", "2"] * 5}, "weight", "30 rows: row 2: ''"),
    "weights far apart": ({"weight": [1e30, 1] * 20}, "too far apart", "1 to 1e+30"),
    "a negative label": ({"label": ["-1", "1"] * 20}, "a label is negative", "-1"),
    "one class": ({"label": ["oak"] * 40}, "fewer than two classes", "classes: oak"),
    "an empty validation": ({"split": ["train"] * 20 + ["valid"] + ["test"] * 19, "group": range(40)}, "absent", "oak"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_table_is_told_with_its_rows(rows, tmp_path, fault):
    changes, message, found = FAULTS[fault]
    with pytest.raises(DatasetError) as error:
        prepare_dataset(config_of(written(tmp_path, rows.assign(**changes))), tmp_path / "own.h5")
    assert message in str(error.value)
    assert found in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "No columns"),
        (b"path,class\na.png,oak\n", "lacks a column"),
        (b"path;label\na.png;oak\n", "lacks a column"),
        ("path,label\nblätter.png,eiche\n".encode("latin-1"), "utf-8"),
        (b'path,label\n"a.png,oak\n', "cannot be read"),
        (b"path;label\na.png;oak\n", "separated by ';'"),
        (b"path\tlabel\na.png\toak\n", "separated by"),
        (b"path,label\na.png,oak,\nb.png,ash,\n", "more fields than its header"),
        (b"path,label,label \na.png,oak,oak\n", "columns of the table have one name"),
    ],
)
def test_what_is_no_table_is_told(tmp_path, content, message):
    if content is not None:
        (tmp_path / "images.csv").write_bytes(content)
    with pytest.raises(DatasetError) as error:
        prepare_dataset(config_of(tmp_path / "images.csv"), tmp_path / "own.h5")
    assert message in str(error.value)
    assert "images.csv" in str(error.value)


def test_what_is_no_parquet_file_is_told(tmp_path):
    (tmp_path / "images.parquet").write_bytes(b"path,label\n")
    with pytest.raises(DatasetError, match="the table of images cannot be read"):
        prepare_dataset(config_of(tmp_path / "images.parquet"), tmp_path / "own.h5")


def test_parquet_without_its_package_is_told(rows, tmp_path, monkeypatch):
    table = written(tmp_path, rows, "images.parquet")
    found = builtins.__import__

    def without_pyarrow(name, *arguments, **options):
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return found(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(DatasetError, match="Parquet files cannot be read") as error:
        read_table(table, 8)
    assert error.value.hint == "pip install pyarrow"


def test_blanks_around_paths_and_labels_are_no_part_of_them(rows, tmp_path):
    table = written(tmp_path, rows.assign(label=rows["label"] + " ", path=rows["path"] + " "))
    prepare_dataset(config_of(table), tmp_path / "own.h5")
    assert sorted(numbers_of(tmp_path / "own.h5", "train")) == list(range(20))


@pytest.mark.parametrize(
    ("values", "class_names"),
    [
        ([2.0, 10.0], ("2", "10")),
        ([np.nan, 1.0, 2.0], None),
        ([True, False], ("0", "1")),
        ([b"oak", b"ash"], ("ash", "oak")),
        ([1.5, 2.0], ("1.5", "2")),
    ],
)
def test_parquets_values_are_labels_as_a_person_writes_them(rows, tmp_path, values, class_names):
    labels = pd.Series((values * N_IMAGES)[:N_IMAGES])
    table = written(tmp_path, rows.drop(columns=["split", "group"]).assign(label=labels), "images.parquet")
    if class_names is None:
        with pytest.raises(DatasetError, match="rows of the table have no label"):
            read_table(table, 8)
    else:
        assert read_table(table, 8).class_names == class_names


def test_the_index_of_a_parquet_table_does_not_count(rows, tmp_path):
    rows.loc[3, "group"] = None
    expected = read_table(written(tmp_path, rows), 8).groups.tolist()
    for index in (range(1000, 1000 + N_IMAGES), [0] * N_IMAGES):
        table = written(tmp_path, rows.set_index(pd.Index(index)), "images.parquet")
        assert read_table(table, 8).groups.tolist() == expected


def test_what_is_no_file_is_told_and_not_waited_for(rows, tmp_path):
    for number in (0, 1):
        (tmp_path / f"images/{number}.png").unlink()
    os.mkfifo(tmp_path / "images/0.png")
    (tmp_path / "images/1.png").mkdir()
    rows.loc[2, "path"] = "images/\0.png"
    rows.loc[3, "path"] = "images/" + "x" * 300
    with pytest.raises(DatasetError, match="4 images cannot be read"):
        prepare_dataset(config_of(written(tmp_path, rows)), tmp_path / "own.h5")


SPOILT = {
    "an empty label": lambda rows: rows.assign(label=[""] + ["oak"] * (N_IMAGES - 1)).to_csv(index=False),
    "a column renamed": lambda rows: rows.rename(columns={"label": "class"}).to_csv(index=False),
    "semicolons": lambda rows: rows.to_csv(index=False, sep=";"),
    "nothing": lambda rows: "",
    "a name too long": lambda rows: rows.assign(path=["x" * 300, *rows["path"][1:]]).to_csv(index=False),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_table_that_was_spoilt_since_is_noticed(rows, tmp_path, fault):
    table = written(tmp_path, rows)
    config = config_of(table)
    prepare_dataset(config, tmp_path / "own.h5")
    recorded = find_source_files(config).state
    table.write_text(SPOILT[fault](rows))
    assert source_state(config, tmp_path / "own.h5", recorded) != recorded


@pytest.mark.parametrize("how", ["moved", "linked"])
def test_images_in_another_folder_of_the_same_name_are_noticed(rows, tmp_path, how):
    (tmp_path / "other").mkdir()
    for number in range(N_IMAGES):
        Image.fromarray(np.full((9, 12, 3), 200, np.uint8)).save(tmp_path / f"other/{number}.bmp")
        Image.fromarray(np.full((9, 12, 3), number, np.uint8)).save(tmp_path / f"images/{number}.bmp")
    config = config_of(written(tmp_path, rows.assign(path=rows["path"].str.replace("png", "bmp"))))
    prepare_dataset(config, tmp_path / "own.h5")
    recorded = find_source_files(config).state
    assert source_state(config, tmp_path / "own.h5", recorded) == recorded
    (tmp_path / "images").rename(tmp_path / "images_old")
    if how == "moved":
        (tmp_path / "other").rename(tmp_path / "images")
    else:
        (tmp_path / "images").symlink_to("other")
    assert source_state(config, tmp_path / "own.h5", recorded) != recorded


def test_an_edited_table_or_image_is_noticed(rows, tmp_path):
    table = written(tmp_path, rows)
    config = config_of(table)
    assert source_inputs(config, tmp_path / "own.h5") == [table]
    prepare_dataset(config, tmp_path / "own.h5")
    recorded = find_source_files(config).state
    assert source_state(config, tmp_path / "own.h5", recorded) == recorded
    content = (tmp_path / "images/5.png").read_bytes()
    (tmp_path / "images/5.png").write_bytes((tmp_path / "images/7.png").read_bytes())
    assert source_state(config, tmp_path / "own.h5", recorded) != recorded
    (tmp_path / "images/5.png").write_bytes(content)
    written(tmp_path, rows.assign(label=rows["label"].str.upper()))
    assert source_state(config, tmp_path / "own.h5", recorded) != recorded
