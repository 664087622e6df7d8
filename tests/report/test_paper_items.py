"""The paper's items, from made-up studies: their numbers, what they say of missing studies, the same bytes again."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ensembleflow.planning.paper_plan import FIGURES, ITEMS, PaperRun
from ensembleflow.report.paper import autokeras_process, make_item
from support.paper_artefacts import BUDGETS, KEEP_FRACTION, paper_run, write_study

Make = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two algorithms, two seeds. Not to be changed."""
    results = tmp_path_factory.mktemp("results")
    for algorithm in ("random", "hyperband"):
        for seed in (0, 1):
            write_study(results, algorithm, seed)
    return results


@pytest.fixture
def results(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "results"))


def make(run: PaperRun, *items: str) -> pd.DataFrame:
    for item in items:
        make_item(item, run)
    return pd.read_csv(run.output(items[-1], "csv"), dtype={"budget": str})


def page(run: PaperRun, item: str) -> str:
    return Path(run.output(item, "md")).read_text(encoding="utf-8")


def test_every_item_is_made_again_with_the_same_bytes(results: Path) -> None:
    run = paper_run(results)

    def everything() -> dict[str, bytes]:
        for item in (*ITEMS, "numbers"):
            make_item(item, run)
        return {path.name: path.read_bytes() for path in (results / "paper").iterdir()}

    first = everything()
    assert set(first) == {"numbers.json"} | {f"{item}.{suffix}" for item in ITEMS for suffix in ("csv", "md")} | {
        f"{figure}.{suffix}" for figure in FIGURES for suffix in ("png", "svg")
    }
    shutil.rmtree(results / "paper")
    assert everything() == first


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figures_metadata_name_what_it_was_drawn_from(results: Path, figure: str) -> None:
    run = paper_run(results)
    make(run, figure)
    with Image.open(run.output(figure, "png")) as image:
        told = image.info["Description"]
    assert "digits-hyperband-s0" in told
    assert f"{figure}.csv" in told
    assert told in Path(run.output(figure, "svg")).read_text(encoding="utf-8")


@pytest.mark.parametrize("item", ITEMS)
def test_an_item_without_any_study_is_made_and_says_what_makes_it(tmp_path: Path, item: str) -> None:
    run = paper_run(tmp_path)
    make(run, *ITEMS[item].items, item)
    first = run.files(item, *run.studies(item)[0])[0]
    assert re.search(rf"`snakemake --cores all [^`]*{re.escape(first)}", page(run, item))


def test_a_study_that_is_still_running_is_left_out_by_name_and_the_others_are_drawn(results: Path) -> None:
    run = paper_run(results)
    whole = make(run, "table_2")
    study = results / "digits-random-s1"
    (study / "search/trials").mkdir()
    (study / "search/trials.csv").unlink()
    table = make(run, "table_2")
    seeds = table[table.source == "ours"].groupby("algorithm").seeds.unique().map(list).to_dict()
    assert seeds == {"random": [1], "hyperband": [2]}
    assert table[table.algorithm == "hyperband"].equals(whole[whole.algorithm == "hyperband"])
    assert re.search(r"digits-random-s1 is still running.*lacks search/trials\.csv\. `snakemake", page(run, "table_2"))


def test_failed_slots_are_told_with_their_numbers(results: Path) -> None:
    run = paper_run(results)
    make(run, "table_2")
    assert "In study digits-random-s0 2 of 12 slots failed (5, 11)" in page(run, "table_2")


def test_table_1_has_what_was_measured_and_what_was_simulated_beside_the_papers(results: Path) -> None:
    table = make(paper_run(results), "table_1")
    ours = table[table.source != "paper"]
    assert [tuple(row) for row in ours[["algorithm", "source", "workers"]].to_numpy()] == [
        (algorithm, source, workers)
        for algorithm in ("random", "hyperband")
        for source, workers in (("measured", 2), ("simulated", 1), ("simulated", 3))
    ]
    measured = ours[(ours.source == "measured") & (ours.algorithm == "random")].iloc[0]
    accounts = [json.loads((results / f"digits-random-s{seed}/search/accounting.json").read_text()) for seed in (0, 1)]
    assert measured.minutes == pytest.approx(np.mean([each["duration_seconds"] for each in accounts]) / 60)
    assert measured.occupancy == pytest.approx(90)
    simulated = ours[ours.source == "simulated"].set_index(["algorithm", "workers"])
    for algorithm in ("random", "hyperband"):
        one, three = simulated.loc[(algorithm, 1)], simulated.loc[(algorithm, 3)]
        assert three.minutes < one.minutes
        assert three.occupancy < one.occupancy
    assert (table.source == "paper").sum() == 8


def test_accuracy_in_table_1_is_that_of_the_best_single_models(results: Path) -> None:
    table = make(paper_run(results), "table_1")
    ensembles = [pd.read_csv(results / f"digits-random-s{seed}/selection/ensembles.csv") for seed in (0, 1)]
    errors = [each[(each.method == "best_single") & each.budget.isna()].test_error.iloc[0] for each in ensembles]
    row = table[(table.algorithm == "random") & (table.source == "measured")].iloc[0]
    assert row.accuracy == pytest.approx(100 * (1 - np.mean(errors)))
    assert row.accuracy_std == pytest.approx(100 * np.std(errors, ddof=1))


def test_table_2_is_the_median_error_of_the_chosen_ensembles(results: Path) -> None:
    table = make(paper_run(results), "table_2")
    for algorithm in ("random", "hyperband"):
        for budget in BUDGETS:
            errors = []
            for seed in (0, 1):
                chosen = json.loads(
                    (results / f"digits-{algorithm}-s{seed}/selection/budget-{budget}.json").read_text()
                )
                errors.append(100 * chosen["test"]["error"])
            own = table[(table.source == "ours") & (table.algorithm == algorithm) & (table.budget == budget)]
            assert own.error.tolist() == pytest.approx([median(errors)])
    papers = table[(table.data == "cifar100") & (table.algorithm == "hyperband") & (table.budget == "320")]
    assert papers.error.tolist() == [20.42]


def test_at_the_end_figure_3_has_the_ensembles_that_the_study_selected(results: Path) -> None:
    table = make(paper_run(results), "figure_3")
    end = table[(table.snapshot == 1) & (table.study == "digits-hyperband-s0")].set_index("budget")
    for budget in BUDGETS:
        chosen = json.loads((results / f"digits-hyperband-s0/selection/budget-{budget}.json").read_text())
        assert end.members[budget].split() == chosen["members"]
        assert end.test_error[budget] == pytest.approx(chosen["test"]["error"])
    assert end.n_kept["1x"] == round(12 * KEEP_FRACTION)


def test_figure_3_knows_only_what_had_ended_by_then(results: Path) -> None:
    table = make(paper_run(results), "figure_3")
    trials = pd.read_csv(results / "digits-hyperband-s0/search/trials.csv").set_index("model")
    accounts = json.loads((results / "digits-hyperband-s0/search/accounting.json").read_text())
    table = table[table.study == "digits-hyperband-s0"]
    for row in table.dropna(subset="members").itertuples():
        ended = trials.ended_at[row.members.split()]
        assert (ended <= accounts["started_at"] + 60 * row.minutes).all()
    counts = table.groupby("snapshot").n_trials.first()
    assert 0 < counts[0.4] < counts[1.0] == 12


def test_pruning_has_every_seed_and_no_fraction_that_keeps_nothing(results: Path) -> None:
    table = make(paper_run(results), "pruning")
    assert sorted(set(table.seed)) == [0, 1]
    assert list(table.keep_fraction[table.seed == 0]) == [0.25, 0.5, 1.0]


def test_a_verdict_on_smobf_follows_from_cost_and_loss(results: Path) -> None:
    table = make(paper_run(results), "smobf")
    assert len(table) == 2 * len(BUDGETS)
    cost, loss = (table[f"forward_{name}"] - table[f"smobf_{name}"] for name in ("cost_seconds", "valid_loss"))
    for verdict, by_cost, by_loss in zip(table.verdict, cost.round(9), loss.round(9), strict=True):
        assert (verdict == "dominates") == (by_cost >= 0 and by_loss >= 0 and by_cost + by_loss > 0)
        assert (verdict == "equal") == (by_cost == 0 and by_loss == 0)
        assert (verdict == "trade") == (by_cost * by_loss < 0)


def test_combiners_are_compared_on_ensembles_of_several_members(results: Path) -> None:
    table = make(paper_run(results), "combiners")
    comparison = pd.read_csv(results / "digits-hyperband-s1/selection/comparison.csv", dtype={"budget": str})
    own = comparison[(comparison.method == "smobf") & (comparison.combiner == "majority_vote")]
    expected = own[own.n_members > 1].set_index("budget").test_error * 100
    found = table[table.seed == 1].set_index("budget").majority_vote
    assert len(found) > 0
    assert found.to_dict() == pytest.approx(expected.to_dict())


def test_table_3_has_both_ensembles_on_each_number_of_devices(results: Path) -> None:
    table = make(paper_run(results), "table_3")
    measured = table[table.source == "measured"]
    assert measured.devices.tolist() == [1, 2, 1, 2]
    assert table[table.source == "simulated"].devices.tolist() == [0, 1, 0, 1]
    allocation = json.loads((results / "digits-hyperband-s0/allocation/budget-2x/devices-2.json").read_text())
    assert measured.refined.iloc[-1] == pytest.approx(allocation["images_per_second"])
    assert measured.worst_fit.iloc[-1] == pytest.approx(allocation["worst_fit_images_per_second"])
    assert table[(table.source == "paper") & (table.members == 7)].refined.tolist() == [13, 79, 411, 788, 789, 791, 791]


def test_table_4_has_each_search_alone_ours_over_time_and_auto_keras_once_it_has_run(results: Path) -> None:
    run = paper_run(results)
    table = make(run, "figure_3", "table_4")
    assert table.method[table.source == "ours"].tolist() == [
        "single network by random",
        "single network by hyperband",
        *["ours with B=4x"] * 2,
    ]
    assert "has not been run" in page(run, "table_4")
    found = {"version": "2.0.0", "max_trials": 3, "epochs": 9, "seconds": 120, "test_error": 0.25, "devices": 2}
    Path(run.output("autokeras", "json")).write_text(json.dumps(found))
    row = make(run, "table_4").set_index("method").loc["Auto-Keras 2.0.0"]
    assert (row.minutes, row.device_minutes, row.accuracy) == (2, 4, 75)


def test_the_caption_says_what_differs_from_the_paper(results: Path, tmp_path: Path) -> None:
    run = paper_run(results)
    make(run, "table_2")
    told = page(run, "table_2")
    assert "the data (digits instead of CIFAR100 and microfossils)" in told
    assert "12 trials of at most 9 epochs" in told
    assert "2 workers of this machine instead of 6 Tesla V100" in told
    as_in_the_paper = run.model_copy(update={"dataset": "cifar100", "results_dir": str(tmp_path / "other")})
    make(as_in_the_paper, "table_2")
    assert "instead of CIFAR100" not in page(as_in_the_paper, "table_2")


def test_a_python_without_auto_keras_is_told_how_to_make_one_that_has_it(tmp_path: Path) -> None:
    options = json.dumps({"max_trials": 1, "epochs": 1, "seed": 0, "threads": 1})
    command = [sys.executable, "-P", autokeras_process.__file__, "no.h5", str(tmp_path / "result.json"), options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "envs/autokeras.txt" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_errors_are_those_of_macro_f1_where_the_search_minimises_it(results: Path) -> None:
    run = paper_run(results)
    run = run.model_copy(update={"search": run.search.model_copy(update={"metric": "macro_f1_error"})})
    table = make(run, "table_2")
    errors = []
    for seed in (0, 1):
        chosen = json.loads((results / f"digits-hyperband-s{seed}/selection/budget-4x.json").read_text())
        errors.append(100 * chosen["test"]["macro_f1_error"])
    own = table[(table.source == "ours") & (table.algorithm == "hyperband") & (table.budget == "4x")]
    assert own.error.tolist() == pytest.approx([median(errors)])
    assert "Errors are 1 - macro F1" in page(run, "table_2")
    replayed = make(run, "figure_3")
    end = replayed[(replayed.snapshot == 1) & (replayed.study == "digits-hyperband-s1") & (replayed.budget == "4x")]
    assert end.test_error.iloc[0] == pytest.approx(errors[1] / 100)
