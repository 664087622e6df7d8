"""A table of images: a row an image, with its file, its class and, if wished, its part and its group."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensembleflow.datasets.class_folders import PART_NAMES
from ensembleflow.datasets.class_labels import classes_of_labels
from ensembleflow.datasets.dataset_file import SPLITS
from ensembleflow.datasets.image_list import image_reader
from ensembleflow.datasets.labelled_images import LabelledImages
from ensembleflow.datasets.some import some
from ensembleflow.errors import DatasetError

__all__ = ["image_paths", "read_table", "read_table_rows"]

_LOG = logging.getLogger(__name__)
_NEEDED, _OPTIONAL = ("path", "label"), ("split", "group", "weight")
_MAX_RATIO = 1_000_000
_EXPECTED = "a CSV or Parquet file with the columns path and label, and, if wished, split, group and weight"


def read_table(path: str | Path, image_size: int, threads: int = 1) -> LabelledImages:
    """Open the images that a table names; each is read as RGB and resized when asked for.

    | column | holds |
    | --- | --- |
    | `path` | the image's file, absolute or relative to the table's folder |
    | `label` | its class, a text or a whole number |
    | `split` | its part: train, valid (val, validation) or test, in any case; without the column all are split |
    | `group` | what may not be torn apart, such as a slide or a specimen; a row without one is a group of its own |
    | `weight` | how much the image counts in training, a number above 0; errors count all images alike |

    Other columns are told and left out.

    Args:
        path: the table, a CSV file in UTF-8 or a Parquet file.
        image_size: height and width of the images in pixels.
        threads: images decoded side by side.

    Raises:
        DatasetError: the table cannot be read, a column is missing, a row has no path or label, another part, or a
            weight that is no number above 0; there
            are fewer than two classes.
    """
    path = Path(path)
    rows = read_table_rows(path)
    others = [column for column in rows.columns if column not in (*_NEEDED, *_OPTIONAL)]
    if others:
        _LOG.warning("%s: columns that are not used: %s", path, some(others))
    image_shape = (image_size, image_size, 3)
    files = image_paths(path, rows)
    labels, class_names = classes_of_labels([(f"{path}: label", _labels(rows["label"]))], None)
    read, checksums = image_reader(files, image_shape, threads)
    return LabelledImages(
        class_names=class_names,
        labels=labels,
        image_shape=image_shape,
        read=read,
        name_of=lambda index: str(rows["path"].iat[index]),
        file_checksums=checksums,
        own_split=_own_split(path, rows),
        groups=_groups(rows),
        weights=_weights(path, rows),
    )


def read_table_rows(path: Path) -> pd.DataFrame:
    """The table's rows, all values as texts, "" where there is none.

    Raises:
        DatasetError: the table cannot be read, a column is missing, or a row has no path or label.
    """
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            rows = _read_parquet(path)
        else:
            rows = pd.read_csv(
                path,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                skipinitialspace=True,
                compression=None,
            )
    except (OSError, ValueError, csv.Error) as error:  # pandas' own are ValueErrors, pyarrow's too
        found = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip().splitlines()[0]
        hint = None if path.is_absolute() or path.exists() else f"the path is relative to {Path.cwd()}"
        raise DatasetError(
            "the table of images cannot be read",
            where=f"dataset.path: {path}",
            found=found,
            expected=_EXPECTED,
            hint=hint,
        ) from None
    if not isinstance(rows.index, pd.RangeIndex):
        raise DatasetError(
            "rows of the table have more fields than its header",
            where=f"dataset.path: {path}",
            found=f"columns: {', '.join(map(str, rows.columns))}",
            expected="as many fields in each row as there are columns",
            hint="remove commas at the ends of the rows, or put texts with commas into quotes",
        )
    rows.columns = [str(column).strip() for column in rows.columns]
    twice = sorted(set(rows.columns[rows.columns.duplicated()]))
    if twice:
        raise DatasetError(
            "columns of the table have one name",
            where=f"dataset.path: {path}",
            found=", ".join(twice),
            expected="distinct names, blanks around them aside",
        )
    missing = [column for column in _NEEDED if column not in rows.columns]
    if missing:
        separator = next((mark for mark in (";", "\t") if any(mark in column for column in rows.columns)), None)
        raise DatasetError(
            "the table of images lacks a column",
            where=f"dataset.path: {path}",
            found=f"columns: {', '.join(rows.columns) or 'none'}",
            expected=_EXPECTED,
            hint=f"name the column {missing[0]}"
            if separator is None
            else f"the columns are separated by {separator!r}; write the table with commas",
        )
    for column in _NEEDED:
        rows[column] = rows[column].str.strip()
        empty = np.flatnonzero(rows[column] == "")
        if len(empty):
            raise DatasetError(
                f"rows of the table have no {column}",
                where=f"dataset.path: {path}",
                found=f"{len(empty)} rows: {some([f'row {row + 1}' for row in empty.tolist()])}",
                expected=f"a {column} in each row (the first below the header is row 1)",
            )
    return rows


def _read_parquet(path: Path) -> pd.DataFrame:
    path.stat()  # a missing file is told as such
    try:
        rows = pd.read_parquet(path).reset_index(drop=True)
    except ImportError:
        raise DatasetError(
            "Parquet files cannot be read", where=path, found="pyarrow is not installed", hint="pip install pyarrow"
        ) from None
    return pd.DataFrame({column: [_text(value) for value in rows[column]] for column in dict.fromkeys(rows.columns)})


def _text(value: Any) -> str:
    """A cell as a CSV file has it; whole numbers that a missing value beside them made floats are whole again."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def image_paths(path: Path, rows: pd.DataFrame) -> list[str]:
    """Where each row's image lies."""
    return [str(path.parent / name) for name in rows["path"]]


def _labels(values: pd.Series) -> np.ndarray:
    """Whole numbers where all are, so that classes stand in their order."""
    if values.str.fullmatch(r"-?[0-9]{1,18}(\.0+)?").all() and not values.str.fullmatch(r"-?0[0-9]+(\.0+)?").any():
        return values.str.partition(".")[0].astype(np.int64).to_numpy()
    return values.to_numpy(dtype=np.str_)


def _own_split(path: Path, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    if "split" not in rows.columns:
        return {}
    parts = rows["split"].str.strip().str.lower().map(PART_NAMES)
    unknown = np.flatnonzero(parts.isna())
    if len(unknown):
        raise DatasetError(
            "rows of the table have an unknown split",
            where=f"dataset.path: {path}",
            found=_named_rows(rows["split"], unknown),
            expected="train, valid or test in each row",
            hint="without the column split all images are split by dataset.valid_fraction and dataset.test_fraction",
        )
    found = {part: np.flatnonzero(parts.to_numpy() == part) for part in SPLITS}
    if not len(found["train"]):
        raise DatasetError(
            "the table of images has none to train with",
            where=f"dataset.path: {path}",
            found=", ".join(f"{len(indices)} {part}" for part, indices in found.items()),
            expected="rows whose split is train",
        )
    return {part: indices for part, indices in found.items() if len(indices)}


def _groups(rows: pd.DataFrame) -> np.ndarray | None:
    if "group" not in rows.columns:
        return None
    groups = rows["group"].str.strip().tolist()
    # No group can have such a name.
    return np.array([group or f"\0row {row + 1}" for row, group in enumerate(groups)], dtype=np.str_)


def _weights(path: Path, rows: pd.DataFrame) -> np.ndarray | None:
    if "weight" not in rows.columns:
        return None
    weights = pd.to_numeric(rows["weight"], errors="coerce").to_numpy(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
    if len(wrong):
        raise DatasetError(
            "rows of the table have no weight that can be used",
            where=f"dataset.path: {path}",
            found=_named_rows(rows["weight"], wrong),
            expected="a number above 0 in each row",
            hint="leave rows out that are not to count, or the column, and all images count alike",
        )
    if weights.max() > _MAX_RATIO * weights.min():
        raise DatasetError(
            "weights of the table are too far apart",
            where=f"dataset.path: {path}",
            found=f"{weights.min():g} to {weights.max():g}",
            expected=f"the largest at most {_MAX_RATIO:,} times the smallest",
        )
    return weights


def _named_rows(values: pd.Series, places: np.ndarray) -> str:
    """Rows with what they hold in one column, the first of many."""
    return f"{len(places)} rows: {some([f'row {row + 1}: {values.iat[row]!r}' for row in places.tolist()])}"
