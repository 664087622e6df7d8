"""What of the paper holds in our runs, and the numbers that pages quote."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.report.paper import make_item
from ensembleflow.report.paper.interval import mean_interval, verdict_of
from ensembleflow.report.paper.numbers import collect_numbers, wrong_quotes
from support.paper_artefacts import paper_run, write_study

ITEMS_OF_CLAIMS = ("figure_3", "pruning", "smobf", "combiners", "table_3", "claims")


@pytest.fixture(scope="module")
def claims(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    results = tmp_path_factory.mktemp("results")
    for algorithm in ("random", "hyperband"):
        for seed in (0, 1):
            write_study(results, algorithm, seed)
    run = paper_run(results)
    for item in ITEMS_OF_CLAIMS:
        make_item(item, run)
    return results, pd.read_csv(run.output("claims", "csv")).set_index("name")


def test_an_interval_is_the_textbooks() -> None:
    # t of 2 degrees of freedom: 4.303; standard deviation 1.
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == pytest.approx((2.0, 2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)), abs=1e-3)


@given(st.floats(-1e6, 1e6))
def test_one_seed_tells_nothing(value: float) -> None:
    _, low, high = mean_interval([value])
    assert verdict_of(low, high) == "cannot be told"


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [
        (0.1, 0.4, 0.0, "holds"),
        (-0.1, 0.4, 0.0, "cannot be told"),
        (-0.4, -0.1, 0.0, "does not hold"),
        (0.0, 0.0, 0.0, "cannot be told"),
        (-0.4, 0.4, 0.5, "holds"),
        (-0.6, 0.4, 0.5, "cannot be told"),
        (-0.9, -0.6, 0.5, "does not hold"),
    ],
)
def test_a_claim_is_decided_only_where_the_whole_interval_says_so(
    low: float, high: float, margin: float, verdict: str
) -> None:
    assert verdict_of(low, high, margin) == verdict


def test_a_difference_is_taken_within_each_seed(claims: tuple[Path, pd.DataFrame]) -> None:
    results, table = claims
    minutes = {
        (algorithm, seed): json.loads((results / f"digits-{algorithm}-s{seed}/search/accounting.json").read_text())
        for algorithm in ("random", "hyperband")
        for seed in (0, 1)
    }
    shorter = [
        100 * (1 - minutes["hyperband", seed]["duration_seconds"] / minutes["random", seed]["duration_seconds"])
        for seed in (0, 1)
    ]
    row = table.loc["hyperband_is_shorter"]
    assert row.n == 2
    assert (row.difference, row.low, row.high) == pytest.approx(mean_interval(shorter))
    assert row.verdict == verdict_of(row.low, row.high)


def test_what_no_study_is_about_cannot_be_told(claims: tuple[Path, pd.DataFrame]) -> None:
    row = claims[1].loc["generations_idle"]
    assert (row.verdict, row.n) == ("cannot be told", 0)


def test_a_claim_of_each_time_fails_with_one_case_against_it(claims: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    results, table = claims
    assert table.verdict["smobf_dominates"] == "holds"
    run = paper_run(results)
    path = Path(run.output("smobf", "csv"))
    before = path.read_text()
    try:
        smobf = pd.read_csv(path)
        smobf.loc[0, "verdict"] = "is dominated"
        smobf.to_csv(path, index=False)
        make_item("claims", run)
    finally:
        path.write_text(before)
    row = pd.read_csv(run.output("claims", "csv")).set_index("name").loc["smobf_dominates"]
    assert row.verdict == "does not hold"
    assert row.detail.startswith("1 of 6 against it")


TABLE_2 = pd.DataFrame(
    {"data": ["digits"] * 2, "source": ["ours"] * 2, "budget": ["1x", "4x"], "algorithm": ["tpe"] * 2}
).assign(seeds=3, error=[2.226, 1234.5], error_std=[0.25, None])
NUMBERS = collect_numbers("table_2", TABLE_2)


def test_every_number_of_a_table_has_a_name() -> None:
    assert NUMBERS == {
        "table_2/digits/ours/1x/tpe/seeds": 3,
        "table_2/digits/ours/1x/tpe/error": 2.226,
        "table_2/digits/ours/1x/tpe/error_std": 0.25,
        "table_2/digits/ours/4x/tpe/seeds": 3,
        "table_2/digits/ours/4x/tpe/error": 1234.5,
    }


def test_two_rows_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two rows"):
        collect_numbers("table_2", pd.concat([TABLE_2, TABLE_2]))


@pytest.mark.parametrize(
    ("page", "n_wrong"),
    [
        ("an error of 2.23 %<!-- =table_2/digits/ours/1x/tpe/error -->", 0),
        ("2.2<!-- =table_2/digits/ours/1x/tpe/error --> or 2<!-- =table_2/digits/ours/1x/tpe/error -->", 0),
        ("of 1,234.5<!-- =table_2/digits/ours/4x/tpe/error --> and of 3<!--=table_2/digits/ours/1x/tpe/seeds-->", 0),
        ("2.22 %<!-- =table_2/digits/ours/1x/tpe/error -->", 1),
        ("2.23 %<!-- =table_2/digits/ours/2x/tpe/error -->", 1),
        ("two<!-- =table_2/digits/ours/1x/tpe/error -->", 1),
        ("-2.23<!-- =table_2/digits/ours/1x/tpe/error -->", 1),
        ("a comment <!-- of another kind -->", 0),
    ],
)
def test_a_quote_must_be_the_number_rounded(page: str, n_wrong: int) -> None:
    assert len(wrong_quotes(page, NUMBERS)) == n_wrong
