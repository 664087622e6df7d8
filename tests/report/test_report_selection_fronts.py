"""The figure of the methods' fronts: its table, its axes, and awkward fronts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ensembleflow.config import ReportConfig
from ensembleflow.errors import ArtefactError
from ensembleflow.report import plot_selection_fronts

METHODS = ("best_single", "top_k", "forward_greedy", "greedy_with_replacement", "smobf", "weight_sweep", "exact")
METRICS = ("error", "macro_f1_error", "cross_entropy", "brier", "calibration_error")
QUICK = ReportConfig(dpi=60)


def write_tables(
    folder: Path, methods: tuple[str, ...] = METHODS, n_points: int = 6, budgets: tuple[str, ...] = ("1x", "4x")
) -> tuple[Path, Path]:
    """`fronts.csv` and `comparison.csv` as the selection writes them."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for method in methods:
        for size in range(1, n_points + 1):
            error = 0.2 / size + float(rng.uniform(0, 0.01))
            row: dict[str, Any] = {"method": method, "combiner": "average", "weight": None, "n_members": size}
            row |= {"members": " ".join(f"trial-{slot:05d}" for slot in range(size)), "cost_seconds": 0.4 * size}
            row |= {f"{split}_{name}": error * (1 + place) for place, name in enumerate(METRICS) for split in SPLITS}
            rows.append(row)
    fronts = pd.DataFrame(rows)
    comparison = pd.DataFrame({"budget": budgets, "budget_seconds": [float(budget[:-1]) for budget in budgets]})
    paths = folder / "fronts.csv", folder / "comparison.csv"
    fronts.to_csv(paths[0], index=False)
    comparison.to_csv(paths[1], index=False)
    return paths


SPLITS = ("valid", "test")


def draw(tables: tuple[Path, Path], folder: Path, config: ReportConfig = QUICK, loss: str = "cross_entropy") -> Path:
    folder.mkdir(exist_ok=True)
    plot_selection_fronts(*tables, config, loss, 2000, folder / "t.csv", folder / "f.png", folder / "f.svg")
    return folder


def test_drawing_again_gives_the_same_bytes_without_date_or_software(tmp_path: Path) -> None:
    tables = write_tables(tmp_path)
    one, other = draw(tables, tmp_path / "one"), draw(tables, tmp_path / "other")
    for name in ("t.csv", "f.png", "f.svg"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    with Image.open(one / "f.png") as image:
        assert set(image.info) <= {"dpi"}
    assert "<dc:date>" not in (one / "f.svg").read_text(encoding="utf-8")


def test_the_table_has_every_ensemble_of_every_front_with_what_is_drawn(tmp_path: Path) -> None:
    fronts = pd.read_csv(write_tables(tmp_path)[0])
    table = pd.read_csv(draw((tmp_path / "fronts.csv", tmp_path / "comparison.csv"), tmp_path / "out") / "t.csv")
    assert list(table.method) == list(fronts.method) and list(table.members) == list(fronts.members)
    for column in ("cost_seconds", "valid_error", "test_error", "valid_cross_entropy", "test_cross_entropy"):
        assert list(table[column]) == list(fronts[column])


@pytest.mark.parametrize("width", [3.0, 6.5])
def test_width_and_resolution_are_those_of_the_config(tmp_path: Path, width: float) -> None:
    folder = draw(write_tables(tmp_path), tmp_path / "out", ReportConfig(dpi=80, figure_width_inches=width))
    with Image.open(folder / "f.png") as image:
        assert image.width == round(80 * width)


@pytest.mark.parametrize(
    "awkward",
    [
        {"methods": ("smobf",), "n_points": 1},
        {"methods": ("smobf", "best_single"), "budgets": ("2x",)},
        {"n_points": 40},
    ],
)
def test_awkward_fronts_are_drawn(tmp_path: Path, awkward: dict[str, Any]) -> None:
    with Image.open(draw(write_tables(tmp_path, **awkward), tmp_path / "out") / "f.png") as image:
        assert len(image.convert("L").getcolors()) > 2, "the figure is blank"


def test_a_budget_of_another_column_alone_has_no_line(tmp_path: Path) -> None:
    tables = write_tables(tmp_path)
    with_budgets = (draw(tables, tmp_path / "one") / "f.svg").read_bytes()
    budgets = pd.DataFrame({"budget": ["parameter_bytes=2x"], "budget_seconds": [None]})
    budgets.to_csv(tables[1], index=False)
    assert (draw(tables, tmp_path / "other") / "f.svg").read_bytes() != with_budgets


def test_a_budget_of_several_limits_is_the_line_of_its_seconds(tmp_path: Path) -> None:
    tables = write_tables(tmp_path)
    alone = (draw(tables, tmp_path / "one") / "f.svg").read_bytes()
    budgets = ["1x", "4x", "1x,parameter_bytes=2x"]
    pd.DataFrame({"budget": budgets, "budget_seconds": [1.0, 4.0, 1.0]}).to_csv(tables[1], index=False)
    assert (draw(tables, tmp_path / "other") / "f.svg").read_bytes() == alone


def test_without_every_class_the_cross_entropy_is_drawn(tmp_path: Path) -> None:
    tables = write_tables(tmp_path)
    fronts = pd.read_csv(tables[0])
    as_error = (draw(tables, tmp_path / "one") / "f.png").read_bytes()
    fronts[[f"{split}_{name}" for split in SPLITS for name in METRICS if name != "cross_entropy"]] = np.nan
    fronts.to_csv(tables[0], index=False)
    as_loss = (draw(tables, tmp_path / "other") / "f.png").read_bytes()
    assert as_loss != as_error
    fronts.assign(valid_cross_entropy=1.0, test_cross_entropy=1.0).to_csv(tables[0], index=False)
    assert (draw(tables, tmp_path / "flat") / "f.png").read_bytes() != as_loss


def test_a_table_without_the_loss_is_named(tmp_path: Path) -> None:
    tables = write_tables(tmp_path)
    pd.read_csv(tables[0]).drop(columns="test_brier").to_csv(tables[0], index=False)
    with pytest.raises(ArtefactError, match=r"(?s)lacks columns.*fronts\.csv.*test_brier"):
        draw(tables, tmp_path / "out", loss="brier")
    assert not list((tmp_path / "out").iterdir())
