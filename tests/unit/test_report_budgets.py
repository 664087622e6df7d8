"""The table of budgets and the `summary` command that prints it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import spearmanr

from ensembleflow.cli import main
from ensembleflow.errors import ArtefactError
from ensembleflow.report import tabulate_budgets
from ensembleflow.report.budgets import speed_against_cost
from ensembleflow.report.command import print_summary
from report_artefacts import Artefacts, write_artefacts


def tabulate(made: Artefacts, results: Path) -> pd.DataFrame:
    table = results / "tables" / "budgets.csv"
    tabulate_budgets(
        made.ensembles_csv,
        made.selection_jsons,
        made.allocation_jsons,
        made.costs_csv,
        table,
        table.with_suffix(".html"),
    )
    return pd.read_csv(table, dtype={"budget": str})


def summary(results: Path, width: int = 80) -> str:
    stream = io.StringIO()
    print_summary(results, Console(file=stream, width=width, highlight=False))
    return stream.getvalue()


def test_the_first_row_is_the_best_single_model(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path)
    row = tabulate(made, tmp_path).iloc[0]
    ensembles = pd.read_csv(made.ensembles_csv)
    best = ensembles[(ensembles.method == "best_single") & ensembles.budget.isna()].iloc[0]
    costs = pd.read_csv(made.costs_csv).set_index("model")
    assert (row.budget, row.n_members, row.members) == ("best single", 1, best.members)
    assert row.valid_error == best.valid_error
    assert row.test_cross_entropy == best.test_cross_entropy
    assert row.cost_seconds == best.cost_seconds
    assert row.images_per_second == costs.images_per_second[best.members]
    assert row.images_per_second_source == "single model on one device"


def test_each_budget_has_the_numbers_of_its_selection_and_largest_allocation(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, budgets=("1x", "320", "4x"), device_counts=(3, 1))
    table = tabulate(made, tmp_path)
    assert table.budget.tolist() == ["best single", "1x", "320", "4x"]
    for row, path in zip(table.iloc[1:].itertuples(), made.selection_jsons, strict=True):
        selection = json.loads(path.read_text(encoding="utf-8"))
        assert row.members.split() == selection["members"]
        assert row.n_members == len(selection["members"])
        assert row.cost_seconds == selection["cost_seconds"]
        assert row.valid_error == selection["valid"]["error"]
        assert row.test_error == selection["test"]["error"]
        assert row.valid_cross_entropy == selection["valid"]["cross_entropy"]
        assert row.test_cross_entropy == selection["test"]["cross_entropy"]
        largest = next(
            p for p in made.allocation_jsons if p.parent.name == f"budget-{row.budget}" and "devices-3" in p.name
        )
        assert row.images_per_second == json.loads(largest.read_text(encoding="utf-8"))["images_per_second"]
        assert row.images_per_second_source == "allocation"


def test_the_page_stands_alone_and_tabulating_again_gives_the_same_bytes(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path)
    table = tabulate(made, tmp_path / "first")
    tabulate(made, tmp_path / "second")
    for name in ("budgets.csv", "budgets.html"):
        first, second = ((tmp_path / run / "tables" / name).read_bytes() for run in ("first", "second"))
        assert first == second
    page = (tmp_path / "first" / "tables" / "budgets.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|src=|href=", page)
    assert page.count("<tr>") == 1 + len(table)
    for error in table.test_error:
        assert f"<td>{error * 100:.2f}</td>" in page


def test_a_budget_without_an_allocation_is_named(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, budgets=("1x", "4x"))
    made.allocation_jsons.pop()
    with pytest.raises(ArtefactError, match="budget 4x has no allocation"):
        tabulate(made, tmp_path)


def test_the_summary_fits_80_columns_and_has_every_number(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, n_trials=80, budgets=("0.5x", "1x", "4x", "16x"))
    table = tabulate(made, tmp_path)
    text = summary(tmp_path)
    assert max(len(line.rstrip()) for line in text.splitlines()[:-1]) <= 80
    assert "…" not in text
    for row in table.itertuples():
        line = next(line for line in text.splitlines() if line.split()[:1] == row.budget.split()[:1])
        assert f"{row.cost_seconds:,.2f}" in line
        assert f"{row.valid_error * 100:.2f}" in line
        assert f"{row.test_error * 100:.2f}" in line
        assert f"{row.images_per_second:,.0f}" in line
        assert all(member in text for member in row.members.split())
    assert "* alone on one device" in text


def test_budgets_of_several_limits_fit_the_summary_with_every_number(tmp_path: Path) -> None:
    table = tabulate(write_artefacts(tmp_path, budgets=("1x", "4x")), tmp_path)
    long = "4x,parameter_bytes=2x,peak_memory_bytes=1500000000"
    table.loc[table.budget == "4x", "budget"] = long
    table.to_csv(tmp_path / "tables" / "budgets.csv", index=False)
    text = summary(tmp_path)
    assert max(len(line.rstrip()) for line in text.splitlines()[:-1]) <= 80
    assert "…" not in text
    assert all(limit in text for limit in long.split(","))
    for row in table.itertuples():
        assert f"{row.valid_error * 100:.2f}" in text and f"{row.images_per_second:,.0f}" in text


def test_a_metric_that_is_not_cached_is_a_dash(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, budgets=("1x",))
    ensembles = pd.read_csv(made.ensembles_csv)
    ensembles.assign(valid_error=None, test_error=None).to_csv(made.ensembles_csv, index=False)
    (path,) = made.selection_jsons
    selection = json.loads(path.read_text(encoding="utf-8"))
    selection["valid"]["error"] = selection["test"]["error"] = None
    path.write_text(json.dumps(selection), encoding="utf-8")
    table = tabulate(made, tmp_path)
    assert table[["valid_error", "test_error"]].isna().all(axis=None)
    assert table[["valid_cross_entropy", "test_cross_entropy"]].notna().all(axis=None)
    page = (tmp_path / "tables" / "budgets.html").read_text(encoding="utf-8")
    assert page.count("<td>–</td>") == 2 * len(table)
    assert "nan" not in page and "nan" not in summary(tmp_path)


def test_cost_and_speed_are_compared_by_rank_over_the_budgets(tmp_path: Path) -> None:
    table = tabulate(write_artefacts(tmp_path, budgets=("1x", "2x", "4x", "8x")), tmp_path)
    budgets = table[table.budget != "best single"].copy()
    expected = spearmanr(budgets.cost_seconds, budgets.images_per_second).statistic
    line = f"rank correlation (Spearman) of images/s with cost over the budgets: {expected:.2f}"
    assert line in speed_against_cost(table) and line in summary(tmp_path)
    assert line in (tmp_path / "tables" / "budgets.html").read_text(encoding="utf-8")
    table["images_per_second"] = 1 / table.cost_seconds
    assert speed_against_cost(table).endswith(": -1.00")
    assert "not defined" in speed_against_cost(table.head(2))


def test_a_simulated_speed_says_so_in_the_table_the_page_and_the_summary(tmp_path: Path) -> None:
    table = tabulate(write_artefacts(tmp_path, budgets=("1x", "2x", "4x"), bench_kind="simulated"), tmp_path)
    assert table.images_per_second_source[1:].eq("simulated allocation").all()
    page = (tmp_path / "tables" / "budgets.html").read_text(encoding="utf-8")
    assert page.count(" (simulated)</td>") == 3
    assert summary(tmp_path, width=120).count("(simulated)") == 4  # the correlation's too


def test_costs_below_a_second_are_in_milliseconds(tmp_path: Path) -> None:
    table = tabulate(write_artefacts(tmp_path), tmp_path)
    table["cost_seconds"] /= 100
    table.to_csv(tmp_path / "tables" / "budgets.csv", index=False)
    text = summary(tmp_path)
    assert "(ms)" in text
    assert "(s)" not in text
    assert f" {table.cost_seconds[0] * 1000:.0f} " in text


def test_the_summary_says_where_the_report_is_or_how_to_make_it(tmp_path: Path) -> None:
    tabulate(write_artefacts(tmp_path, budgets=("1x",)), tmp_path)
    report = tmp_path / "report.html"
    assert f"ensembleflow report --results {tmp_path}" in summary(tmp_path)
    report.write_text("<html></html>", encoding="utf-8")
    assert summary(tmp_path).rstrip().endswith(f"report: {report}")


def test_the_command_prints_plain_text_into_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tabulate(write_artefacts(tmp_path, budgets=("1x",)), tmp_path)
    assert main(["summary", "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "best single" in printed
    assert "\x1b[" not in printed


def test_without_a_table_the_command_ends_with_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "--results", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "there is no table of budgets yet" in captured.err
    assert "budgets.csv" in captured.err
    assert "--results" in captured.err
