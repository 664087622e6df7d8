"""Ranking the models and keeping the best."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.config import n_kept
from ensembleflow.errors import ArtefactError, LibraryError
from ensembleflow.library import rank_models
from ensembleflow.library.ranking import kept_models
from support.labelled_file import write_labels


def trials(errors: list[float | None], cross_entropies: list[float] | None = None, **columns: list) -> pd.DataFrame:
    n = len(errors)
    return pd.DataFrame(
        {
            "slot": range(n),
            "model": [f"trial-{slot:05d}" for slot in range(n)],
            "state": ["COMPLETE"] * n,
            "reason": [""] * n,
            "bracket": [0] * n,
            "valid_error": errors,
            "valid_macro_f1_error": errors,
            "valid_cross_entropy": cross_entropies or [1.0] * n,
            "n_parameters": [100] * n,
            "weights_sha256": ["0"] * n,
            **columns,
        }
    )


def rank(
    table: pd.DataFrame, folder: Path, keep_fraction: float = 0.5, class_sizes: Sequence[int] = (40,) * 10
) -> pd.DataFrame:
    table.to_csv(folder / "trials.csv", index=False)
    write_labels(folder / "data.h5", class_sizes)
    rank_models(folder / "trials.csv", folder / "data.h5", "error", keep_fraction, folder / "models.csv")
    return pd.read_csv(folder / "models.csv", keep_default_na=False, na_values={"rank": [""]})


def test_the_lowest_error_comes_first_then_the_lowest_cross_entropy_then_the_slot(tmp_path: Path) -> None:
    table = rank(trials([0.3, 0.1, 0.1, 0.1], [0.1, 0.9, 0.2, 0.2]), tmp_path)
    assert list(table["slot"]) == [2, 3, 1, 0]
    assert list(table["rank"]) == [1, 2, 3, 4]
    assert list(table["kept"]) == [True, True, False, False]


def test_early_stopped_models_take_part(tmp_path: Path) -> None:
    table = rank(trials([0.3, 0.1], state=["COMPLETE", "PRUNED"]), tmp_path)
    assert list(kept_models(tmp_path / "models.csv")["slot"]) == [1]
    assert list(table["state"]) == ["PRUNED", "COMPLETE"]


def test_failed_trials_come_last_with_the_reason_and_no_rank(tmp_path: Path) -> None:
    table = rank(
        trials([0.1, 0.3, None], state=["FAIL", "COMPLETE", "FAIL"], reason=["diverged in epoch 4", "", ""]), tmp_path
    )
    assert list(table["slot"]) == [1, 0, 2]
    assert list(table["dropped"]) == ["", "diverged in epoch 4", "failed"]
    assert table["rank"].isna().tolist() == [False, True, True]
    assert list(table["kept"]) == [True, False, False]


def test_no_usable_model_is_an_error_that_says_where_the_reasons_stand(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="no model is left") as error:
        rank(trials([None, None], state=["FAIL", "FAIL"]), tmp_path)
    assert "0 usable of 2 trials" in str(error.value)
    assert not (tmp_path / "models.csv").exists()


def test_a_truncated_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text("slot,mod")
    with pytest.raises(ArtefactError, match="lacks columns"):
        rank_models(tmp_path / "trials.csv", tmp_path / "data.h5", "error", 0.5, tmp_path / "models.csv")


@given(n_models=st.integers(1, 2000), keep_fraction=st.floats(0.001, 1))
def test_the_kept_share_is_within_half_a_model_of_the_fraction(n_models: int, keep_fraction: float) -> None:
    assert abs(n_kept(n_models, keep_fraction) - n_models * keep_fraction) <= 0.5 + 1e-9
    assert n_kept(n_models, 1.0) == n_models


@pytest.mark.parametrize("keep_fraction", [0.25, 1.0])
def test_networks_at_chance_are_told_and_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, keep_fraction: float
) -> None:
    table = rank(trials([0.9, 0.05, 0.91, 0.1], [2.31, 0.2, 2.4, 0.4]), tmp_path, keep_fraction)
    assert list(table["slot"]) == [1, 3, 0, 2]
    assert list(table["dropped"]) == ["", "", "at chance", "at chance"]
    assert table["rank"].tolist()[:2] == [1, 2] and table["rank"].isna().tolist() == [False, False, True, True]
    assert list(table["kept"]) == [True, keep_fraction == 1, False, False]
    assert warnings_of(caplog) == ["2 of 4 networks learned nothing: try a lower learning rate, more epochs"]


def test_where_all_are_at_chance_the_best_alone_is_kept_and_marked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    states = {"state": ["COMPLETE", "COMPLETE", "FAIL", "PRUNED"], "reason": ["", "", "out of memory", ""]}
    table = rank(trials([0.91, 0.89, None, 0.9], [2.4, 2.5, np.nan, 2.31], **states), tmp_path, 1.0)
    kept = "at chance, kept for want of a better one"
    assert list(table["slot"]) == [1, 0, 2, 3]
    assert list(table["dropped"]) == [kept, "at chance", "out of memory", "at chance"]
    assert list(table["kept"]) == [True, False, False, False]
    assert table["valid_error"].tolist()[:2] == ["0.89", "0.91"]
    assert list(kept_models(tmp_path / "models.csv")["slot"]) == [1]
    assert warnings_of(caplog) == [
        "3 of 4 networks learned nothing: try a lower learning rate, more epochs",
        "no network is better than chance: trial-00001 is kept so that the run ends; do not use what it makes",
    ]


def test_without_networks_at_chance_nothing_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert list(rank(trials([0.1, 0.5], [0.3, 1.5]), tmp_path)["dropped"]) == ["", ""]
    assert warnings_of(caplog) == []


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
