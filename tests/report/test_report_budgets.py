"""The table of budgets and the `summary` command that prints it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import spearmanr
from sklearn.metrics import f1_score

from ensembleflow.cli import main
from ensembleflow.commands.summary_command import print_summary
from ensembleflow.errors import ArtefactError
from ensembleflow.io import write_csv
from ensembleflow.report import tabulate_budgets
from ensembleflow.report.answers import answers_on_test, baseline_answers, difference_interval
from ensembleflow.report.budgets import speed_against_cost
from ensembleflow.report.measurement import cost_notes
from support.report_artefacts import Artefacts, write_artefacts


def tabulate(made: Artefacts, results: Path, metric: str = "error") -> pd.DataFrame:
    table = results / "tables" / "budgets.csv"
    tabulate_budgets(
        ensembles_csv=made.ensembles_csv,
        pareto_csv=made.pareto_csv,
        selection_jsons=made.selection_jsons,
        allocation_jsons=made.allocation_jsons,
        models_csv=made.models_csv,
        costs_csv=made.costs_csv,
        predictions_h5=made.predictions_h5,
        baseline_json=made.baseline_json,
        baseline_csv=made.baseline_csv,
        metric=metric,
        table_csv=table,
        table_html=table.with_suffix(".html"),
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


def test_what_is_made_of_a_network_at_chance_is_not_to_be_used(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path)
    assert tabulate(made, tmp_path).notes.isna().all()
    models = pd.read_csv(made.models_csv)
    best = tabulate(made, tmp_path).members.iloc[0]
    write_csv(
        made.models_csv,
        models.assign(dropped=np.where(models.model == best, "at chance, kept for want of a better one", "")),
    )
    table = tabulate(made, tmp_path)
    holds_it = table.members.map(lambda members: best in members.split())
    assert table.notes[holds_it].eq("no network is better than chance: do not use it").all()
    assert table.notes[~holds_it].isna().all()
    page = (tmp_path / "tables/budgets.html").read_text(encoding="utf-8")
    assert "no network is better than chance: do not use it" in page
    assert "no network is better than chance" in " ".join(summary(tmp_path).split())


def test_each_budget_has_the_numbers_of_its_selection_and_largest_allocation(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, budgets=("1x", "320", "4x"), device_counts=(3, 1))
    table = tabulate(made, tmp_path)
    assert table.budget.tolist() == ["best single", "baseline", "1x", "320", "4x"]
    for row, path in zip(table.iloc[2:].itertuples(), made.selection_jsons, strict=True):
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
    assert page.count("<tr>") + page.count('<tr class="fixed">') == 1 + len(table)
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
        assert f"{row.cost_seconds:,.2f}" in line or row.budget == "baseline"
        assert f"{row.valid_error * 100:.2f}" in line
        assert f"{row.test_error * 100:.2f}" in line
        assert f"{row.images_per_second:,.0f}" in line or row.budget == "baseline"
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
        assert f"{row.valid_error * 100:.2f}" in text
        assert row.budget == "baseline" or f"{row.images_per_second:,.0f}" in text


def test_a_metric_that_is_not_cached_is_a_dash(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, budgets=("1x",))
    ensembles = pd.read_csv(made.ensembles_csv)
    ensembles.assign(valid_error=None, test_error=None).to_csv(made.ensembles_csv, index=False)
    (path,) = made.selection_jsons
    selection = json.loads(path.read_text(encoding="utf-8"))
    selection["valid"]["error"] = selection["test"]["error"] = None
    path.write_text(json.dumps(selection), encoding="utf-8")
    table = tabulate(made, tmp_path)
    networks = table[table.budget != "baseline"]
    assert networks[["valid_error", "test_error"]].isna().all(axis=None)
    assert networks[["valid_cross_entropy", "test_cross_entropy"]].notna().all(axis=None)
    page = (tmp_path / "tables" / "budgets.html").read_text(encoding="utf-8")
    for line in page.splitlines():
        if re.match("<tr.*<td>(best single|1x)</td>", line):
            assert re.findall("<td>(.*?)</td>", line)[3:5] == ["–", "–"]
    assert "nan" not in page and "nan" not in summary(tmp_path)


def test_cost_and_speed_are_compared_by_rank_over_the_budgets(tmp_path: Path) -> None:
    table = tabulate(write_artefacts(tmp_path, budgets=("1x", "2x", "4x", "8x")), tmp_path)
    budgets = table[~table.budget.isin(["best single", "baseline"])].copy()
    expected = spearmanr(budgets.cost_seconds, budgets.images_per_second).statistic
    line = f"rank correlation (Spearman) of images/s with cost over the budgets: {expected:.2f}"
    assert line in speed_against_cost(table) and line in summary(tmp_path)
    assert line in (tmp_path / "tables" / "budgets.html").read_text(encoding="utf-8")
    table["images_per_second"] = 1 / table.cost_seconds
    assert speed_against_cost(table).endswith(": -1.00")
    assert "not defined" in speed_against_cost(table.head(3))


def test_a_simulated_speed_says_so_in_the_table_the_page_and_the_summary(tmp_path: Path) -> None:
    table = tabulate(write_artefacts(tmp_path, budgets=("1x", "2x", "4x"), bench_kind="simulated"), tmp_path)
    assert table.images_per_second_source[2:].eq("simulated allocation").all()
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


def rewritten(path: Path, **changes: object) -> None:
    """A JSON artefact with some of its keys changed."""
    found = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**found, **changes}), encoding="utf-8")


def test_the_baseline_has_its_errors_and_no_cost_cross_entropy_or_speed(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, budgets=("1x",))
    row = tabulate(made, tmp_path).set_index("budget").loc["baseline"]
    answers = pd.read_csv(made.baseline_csv)
    for split in ("valid", "test"):
        own = answers[answers.split == split]
        assert row[f"{split}_error"] == pytest.approx((own.label != own.predicted).mean())
        f1 = f1_score(own.label, own.predicted, average="macro")
        assert row[f"{split}_macro_f1_error"] == pytest.approx(1 - f1)
    assert row[["cost_seconds", "test_cross_entropy", "images_per_second"]].isna().all()
    line = next(line for line in summary(tmp_path).splitlines() if line.split()[:1] == ["baseline"])
    assert "nan" not in line


def test_a_baseline_that_saw_a_part_or_nothing_says_so_and_one_turned_off_has_no_row(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, budgets=("1x",))
    rewritten(made.baseline_json, n_fitted_images=300, image_shape=[96, 96, 1], fitted_shape=[32, 32, 1])
    told = "baseline: learned from 300 of 900 training images and saw images of 32×32 instead of 96×96 pixels"
    tabulate(made, tmp_path)
    page = tmp_path / "tables" / "budgets.html"
    assert told in summary(tmp_path) and told in page.read_text(encoding="utf-8")

    answers = pd.read_csv(made.baseline_csv)
    answers.head(0).to_csv(made.baseline_csv, index=False)
    rewritten(made.baseline_json, classifier=None, reason="the data are too large: …")
    table = tabulate(made, tmp_path).set_index("budget")
    assert table.loc["baseline"].test_error != table.loc["baseline"].test_error
    assert table.loc["1x"].test_error_minus_baseline != table.loc["1x"].test_error_minus_baseline
    assert "baseline: left out: the data are too large" in summary(tmp_path)
    assert "nan" not in summary(tmp_path)

    rewritten(made.baseline_json, turned_off=True)
    assert "baseline" not in set(tabulate(made, tmp_path).budget)


def test_each_ensemble_is_held_against_the_best_single_network_and_the_baseline(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, budgets=("1x", "16x"))
    table = tabulate(made, tmp_path).set_index("budget")
    networks = table[table.index != "baseline"]
    answers = answers_on_test(made.predictions_h5, {name: row.members.split() for name, row in networks.iterrows()})
    baseline = baseline_answers(made.baseline_csv)
    for name in ("1x", "16x"):
        for other, held in (("single", answers["best single"]), ("baseline", baseline)):
            columns = [f"test_error_minus_{other}{bound}" for bound in ("", "_low", "_high")]
            same = table.loc[name].members == table.loc["best single"].members and other == "single"
            expected = (0, 0, 0) if same else difference_interval(answers[name], held)
            assert tuple(table.loc[name][columns]) == pytest.approx(expected)
    text = summary(tmp_path)
    assert max(len(line.rstrip()) for line in text.splitlines()[:-1]) <= 80
    shown = f"{table.loc['16x'].test_error_minus_baseline * 100:+.2f} (".replace("-", "−")
    assert shown in text and shown in (tmp_path / "tables" / "budgets.html").read_text(encoding="utf-8")


def test_answers_to_as_many_other_images_are_not_paired(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, budgets=("1x",))
    answers = pd.read_csv(made.baseline_csv)
    first = answers.index[answers.split == "test"][0]
    answers.loc[first, "label"] = (answers.loc[first, "label"] + 1) % 3
    answers.to_csv(made.baseline_csv, index=False)
    row = tabulate(made, tmp_path).set_index("budget").loc["1x"]
    assert np.isnan(row.test_error_minus_baseline) and not np.isnan(row.test_error_minus_single)


def test_the_metric_that_the_study_ranks_by_is_in_the_table_and_the_summary(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, budgets=("1x", "16x"))
    table = tabulate(made, tmp_path, metric="macro_f1_error")
    text = summary(tmp_path)
    page = (tmp_path / "tables" / "budgets.html").read_text(encoding="utf-8")
    assert max(len(line.rstrip()) for line in text.splitlines()[:-1]) <= 80 and "…" not in text
    for value in table.test_macro_f1_error:
        assert f"{value * 100:.2f}" in text and f"<td>{value * 100:.2f}</td>" in page
    for value in table.test_error:
        assert f"{value * 100:.2f}" in text


def test_what_disturbed_a_measurement_stands_beside_the_figures_that_it_touches(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, budgets=("1x", "16x"))
    rewritten(made.allocation_jsons[1], other_work_percent=64.0)
    tabulate(made, tmp_path)
    text = summary(tmp_path)
    assert "† 16x: the speed was disturbed: other processes used 64 % of a core" in text
    marked = [line.split()[0] for line in text.splitlines() if line.rstrip().endswith("†")]
    assert marked == ["16x"]

    costs = pd.read_csv(made.costs_csv).assign(other_work_percent=[90.0] + [0.0] * 9)
    costs.to_csv(made.costs_csv, index=False)
    dear = costs.model[0]
    table = tabulate(made, tmp_path).set_index("budget").drop("baseline")
    for row in table.itertuples():
        assert ("90 % of a core" in str(row.cost_notes)) == (dear in row.members.split())
    assert "best single, 16x: the costs were disturbed" in summary(tmp_path)
    assert "disturbed" in (tmp_path / "tables" / "budgets.html").read_text(encoding="utf-8")


def test_the_same_members_at_other_speeds_are_told(tmp_path: Path) -> None:
    made = write_artefacts(tmp_path, budgets=("1x", "2x", "16x"))
    first = json.loads(made.selection_jsons[0].read_text(encoding="utf-8"))
    rewritten(made.selection_jsons[1], members=first["members"])
    rewritten(made.allocation_jsons[0], images_per_second=212.0)
    rewritten(made.allocation_jsons[1], images_per_second=437.0)
    table = tabulate(made, tmp_path).set_index("budget")
    told = "the same members were measured at 212 and at 437 images/s"
    assert table.speed_notes[["1x", "2x"]].eq(told).all()
    assert told not in str(table.speed_notes["16x"])
    assert f"† 1x, 2x: {told}" in summary(tmp_path)


COSTS = pd.DataFrame({"model": ["a", "b"], "cost_seconds": [1.0, 2.0], "cost_seconds_q25": [0.9, 1.9]}).assign(
    cost_seconds_q75=[1.1, 2.2]
)
TRIED = pd.DataFrame({"members": ["a", "b"], "cost_seconds": [1.0, 2.0], "valid_cross_entropy": [0.5, 0.3]})


@pytest.mark.parametrize(
    ("members", "limit", "told"),
    [
        ("a", 1.05, "fits the budget by less"),
        ("a", 1.2, ""),
        ("a", 1.95, "b has the lower validation loss"),
        ("a", 1.85, ""),
        ("b", 2.1, "fits the budget by less"),
        ("b", 3.0, ""),
        ("a", None, ""),
    ],
)
def test_a_choice_that_hangs_on_less_than_the_costs_spread_is_told(
    members: str, limit: float | None, told: str
) -> None:
    row = TRIED.set_index("members").loc[members]
    selection = {"members": [members], "budget_seconds": limit, "cost_seconds": row.cost_seconds}
    selection |= {"loss": "cross_entropy", "valid": {"cross_entropy": row.valid_cross_entropy}}
    notes = cost_notes(selection, COSTS, TRIED)
    assert (len(notes) == 1 and told in notes[0]) if told else notes == []
