"""The comparison of methods and combiners, and the methods' fronts."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from ensembleflow.config import SelectionConfig
from ensembleflow.errors import ArtefactError, SelectionError
from ensembleflow.io import read_csv, read_json, write_csv, write_json
from ensembleflow.library import create_predictions
from ensembleflow.models.metrics import METRICS, calibration_error, classification_metrics
from ensembleflow.selection import select_ensemble, selection_workers
from ensembleflow.selection.rivals.comparison import compare_methods

N_CLASSES = 5
MODELS = [f"trial-{slot:05d}" for slot in (7, 3, 11, 0, 25, 4, 9, 14)]
COSTS = dict(zip(MODELS, (1.7, 0.6, 2.2, 1.0, 3.1, 0.9, 1.4, 2.6), strict=True))
BYTES = [500, 3000, 1000, 2500, 800, 900, 4000, 700]
BUDGETS = ("2x", "1x", "6")
METHODS = ["best_single", "top_k", "forward_greedy", "greedy_with_replacement", "weight_sweep", "smobf", "exact"]
COMBINERS = ["average", "weighted_average", "majority_vote"]
CONFIG = SelectionConfig()
SPLITS = {"valid": 300, "test": 200}


def labels_and_probabilities(seed=0):
    labels, probabilities = {}, {}
    for split, n_samples in SPLITS.items():
        rng = np.random.default_rng([seed, n_samples])
        labels[split] = rng.integers(0, N_CLASSES, n_samples)
        logits = rng.normal(0, 1.5, (len(MODELS), n_samples, N_CLASSES)) + rng.normal(0, 1, (n_samples, N_CLASSES))
        logits[:, np.arange(n_samples), labels[split]] += np.linspace(0.8, 2.0, len(MODELS))[:, None]
        shares = np.exp(logits)
        probabilities[split] = (shares / shares.sum(axis=2, keepdims=True)).astype(np.float32)
    return labels, probabilities


LABELS, PROBABILITIES = labels_and_probabilities()


def write_library(folder, probabilities=PROBABILITIES, every_class=True, study="digits-hyperband-s0"):
    folder.mkdir(exist_ok=True)
    path = folder / "predictions.h5"
    with create_predictions(
        path,
        study=study,
        dataset_checksum="0" * 64,
        class_names=list("abcde"),
        models=MODELS,
        weights_sha256=["0"] * len(MODELS),
        labels=LABELS,
        every_class=every_class,
    ) as writer:
        for split in SPLITS:
            for model in range(len(MODELS)):
                writer.write(split, model, 0, probabilities[split][model])
    costs = {"model": list(COSTS), "cost_seconds": list(COSTS.values()), "parameter_bytes": BYTES}
    write_csv(folder / "costs.csv", pd.DataFrame(costs))
    return path, folder / "costs.csv"


def select(folder, files, config=CONFIG, budgets=BUDGETS):
    paths = [folder / f"budget-{budget}.json" for budget in budgets]
    for budget, path in zip(budgets, paths, strict=True):
        select_ensemble(*files, config, budget, path)
    return paths


def compare(folder, files, jsons, config=CONFIG):
    tables = folder / "comparison.csv", folder / "fronts.csv"
    compare_methods(*files, jsons, config, *tables)
    return tuple(read_csv(path, dtype={"budget": str}) for path in tables)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The library's files, the budgets' JSONs, and both tables."""
    folder = tmp_path_factory.mktemp("results")
    files = write_library(folder)
    jsons = select(folder, files)
    return files, jsons, *compare(folder, files, jsons)


def counted(members):
    """`a*3 b` as {a: 3, b: 1}, by place in the library."""
    terms = [term.split("*") for term in members.split()]
    return {MODELS.index(model): int(times[0]) if times else 1 for model, *times in terms}


def combined(combiner, weights, split):
    probabilities = PROBABILITIES[split][list(weights)].astype(np.float64)
    if combiner == "majority_vote":
        return np.eye(N_CLASSES)[probabilities.argmax(axis=2)].mean(axis=0)
    return np.average(probabilities, axis=0, weights=list(weights.values()))


def test_there_is_a_row_a_budget_method_and_combiner_by_ascending_budget(made):
    _, _, table, _ = made
    rows = [(row.budget, row.method, row.combiner) for row in table.itertuples()]
    assert rows == [(budget, m, c) for budget in ("1x", "2x", "6") for m in METHODS for c in COMBINERS]
    assert table.budget_seconds.is_monotonic_increasing
    assert set(table.budget_seconds) == {6.0, *(factor * np.median(list(COSTS.values())) for factor in (1, 2))}


def test_every_row_adds_up(made):
    _, _, table, fronts = made
    for row in pd.concat([table, fronts]).itertuples():
        weights = counted(row.members)
        assert row.n_members == len(weights)
        assert row.cost_seconds == math.fsum(COSTS[MODELS[member]] for member in weights)
        if row.combiner != "weighted_average":
            assert set(weights.values()) == {1}
        for split in SPLITS:
            found = {name: getattr(row, f"{split}_{name}") for name in METRICS}
            probabilities = combined(row.combiner, weights, split)
            expected = classification_metrics(probabilities, LABELS[split])
            if row.combiner == "majority_vote":  # ties are settled by probability there
                ties = (probabilities == probabilities.max(axis=1, keepdims=True)).sum(axis=1) > 1
                assert abs(found["error"] - expected["error"]) <= ties.mean()
                found, expected = ({name: these[name] for name in ("brier",)} for these in (found, expected))
            else:
                calibration = calibration_error(probabilities, LABELS[split])
                assert getattr(row, f"{split}_calibration_error") == pytest.approx(calibration, abs=1e-9)
            assert found == pytest.approx(expected, abs=1e-9)


def test_no_row_exceeds_its_budget(made):
    _, _, table, _ = made
    assert (table.cost_seconds <= table.budget_seconds).all()


def test_smobf_s_row_is_the_ensemble_that_the_stage_chose(made):
    _, jsons, table, _ = made
    for path in jsons:
        chosen = read_json(path)
        (row,) = table[
            (table.budget == chosen["budget"]) & (table.method == "smobf") & (table.combiner == "average")
        ].itertuples()
        assert row.members.split() == chosen["members"]
        assert row.weight == chosen["weight"]
        assert row.cost_seconds == chosen["cost_seconds"]
        for split in SPLITS:
            assert {name: getattr(row, f"{split}_{name}") for name in METRICS} == chosen[split]


def test_a_method_s_own_combiner_is_no_worse_on_validation_than_the_best_single_model(made):
    _, _, table, _ = made
    for _, rows in table.groupby("budget"):
        loss = rows.set_index(["method", "combiner"]).valid_cross_entropy
        for method in METHODS:
            own = "weighted_average" if method in ("greedy_with_replacement", "weight_sweep") else "average"
            if method != "weight_sweep":  # it may not have tried the best model that fits
                assert loss[method, own] <= loss["best_single", "average"] + 1e-9


def test_smobf_s_gap_to_the_optimum_is_that_of_full_enumeration(made):
    _, _, table, _ = made
    true_class = PROBABILITIES["valid"][:, np.arange(SPLITS["valid"]), LABELS["valid"]].astype(np.float64)
    subsets = [
        list(subset)
        for size in range(1, len(MODELS) + 1)
        for subset in itertools.combinations(range(len(MODELS)), size)
    ]
    losses = [-np.log(true_class[subset].mean(axis=0)).mean() for subset in subsets]
    costs = [math.fsum(COSTS[MODELS[member]] for member in subset) for subset in subsets]
    rows = table[table.combiner == "average"].set_index(["method", "budget"])
    for budget in BUDGETS:
        smobf, exact = rows.loc[("smobf", budget)], rows.loc[("exact", budget)]
        optimum = min(loss for loss, cost in zip(losses, costs, strict=True) if cost <= smobf.budget_seconds)
        assert smobf.certified
        assert smobf.optimum_loss == pytest.approx(optimum, abs=1e-9)
        assert smobf.loss_gap == pytest.approx(smobf.valid_cross_entropy - optimum, abs=1e-9)
        assert exact.valid_cross_entropy == pytest.approx(optimum, abs=1e-9)
    others = (table.method != "smobf") | (table.combiner != "average")
    assert table.loc[others, ["optimum_loss", "loss_gap", "certified"]].isna().all(axis=None)


def test_without_nodes_there_is_no_certificate(made, tmp_path):
    files, jsons, table, fronts = made
    found, found_fronts = compare(tmp_path, files, jsons, SelectionConfig(branch_and_bound_nodes=0))
    assert found[["optimum_loss", "loss_gap", "certified"]].isna().all(axis=None)
    kept = [column for column in table if column not in ("optimum_loss", "loss_gap", "certified")]
    pd.testing.assert_frame_equal(found[kept], table[table.method != "exact"][kept].reset_index(drop=True))
    pd.testing.assert_frame_equal(found_fronts, fronts[fronts.method != "exact"].reset_index(drop=True))


def test_an_optimum_out_of_reach_is_bounded_and_not_claimed(made, tmp_path):
    files, jsons, _, _ = made
    rows = compare(tmp_path, files, jsons, SelectionConfig(branch_and_bound_nodes=1))[0]
    rows = rows[(rows.method == "smobf") & (rows.combiner == "average")]
    assert rows.loss_gap.notna().all() and (rows.optimum_loss.notna() == rows.certified).all()
    assert not rows.certified.all()


def test_a_front_holds_the_ensembles_of_a_method_that_none_of_it_beats(made):
    _, _, table, fronts = made
    assert list(fronts.method.unique()) == [*METHODS[:4], "smobf", "exact", "weight_sweep"]
    for method, front in fronts.groupby("method"):
        assert front.cost_seconds.is_monotonic_increasing
        assert front.valid_cross_entropy.is_monotonic_decreasing
        assert not front.members.duplicated().any()
        own = front.combiner.iloc[0]
        assert (front.combiner == own).all()
        for row in table[(table.method == method) & (table.combiner == own)].itertuples():
            no_dearer = front[front.cost_seconds <= row.cost_seconds]
            assert no_dearer.valid_cross_entropy.min() <= row.valid_cross_entropy + 1e-12


def test_the_sweep_s_front_starts_at_the_cheapest_model(made):
    front = made[3][made[3].method == "weight_sweep"]
    assert front.members.iloc[0] == min(COSTS, key=COSTS.get)


def test_made_again_in_another_order_the_tables_are_the_same(made, tmp_path):
    files, jsons, table, fronts = made
    again, fronts_again = compare(tmp_path, files, jsons[::-1])
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    pd.testing.assert_frame_equal(fronts_again, fronts, check_exact=True)


@pytest.mark.parametrize("loss", ["error", "macro_f1_error"])
def test_networks_that_are_wholly_sure_are_compared_though_rounding_parts_their_classes(tmp_path, loss):
    # Of sums such as 1 + 1e-16 the order in which they are taken makes one class's or the other's the higher.
    probabilities = {}
    for split, n_samples in SPLITS.items():
        rng = np.random.default_rng([6, n_samples])
        logits = 80 * (rng.normal(0, 1, (len(MODELS), n_samples, N_CLASSES)) + 0.8 * np.eye(N_CLASSES)[LABELS[split]])
        shares = np.exp(logits - logits.max(axis=2, keepdims=True))
        probabilities[split] = (shares / shares.sum(axis=2, keepdims=True)).astype(np.float32)
    files, config = write_library(tmp_path, probabilities), SelectionConfig(loss=loss, branch_and_bound_nodes=0)
    jsons = select(tmp_path, files, config, budgets=("8x",))
    table, _ = compare(tmp_path, files, jsons, config)
    (row,) = table[(table.method == "smobf") & (table.combiner == "average")].itertuples()
    chosen = read_json(jsons[0])
    assert row.members.split() == chosen["members"] and getattr(row, f"valid_{loss}") == chosen["valid"][loss]


def test_another_loss_compares_by_that_loss(tmp_path):
    files = write_library(tmp_path)
    config = SelectionConfig(loss="brier")
    table, fronts = compare(tmp_path, files, select(tmp_path, files, config), config)
    for _, front in fronts.groupby("method"):
        assert front.valid_brier.is_monotonic_decreasing
    best = table[(table.method == "best_single") & (table.budget == "6") & (table.combiner == "average")].iloc[0]
    singles = [classification_metrics(rows, LABELS["valid"])["brier"] for rows in PROBABILITIES["valid"]]
    assert best.valid_brier == pytest.approx(min(singles))


def test_a_local_search_s_ensemble_is_smobf_s_row(made, tmp_path):
    files = made[0]
    jsons = select(tmp_path, files, SelectionConfig(local_search=True))
    rows, before = (
        table[(table.method == "smobf") & (table.combiner == "average")].set_index("budget")
        for table in (compare(tmp_path, files, jsons)[0], made[2])
    )
    for path in jsons:
        chosen = read_json(path)
        assert rows.members[chosen["budget"]].split() == chosen["members"]
    assert (rows.loss_gap <= before.loss_gap + 1e-12).all()


def test_a_budget_of_another_column_binds_every_method(made, tmp_path):
    files = made[0]
    budgets = ("parameter_bytes=2x", "2x,parameter_bytes=1.5x")
    table, _ = compare(tmp_path, files, select(tmp_path, files, budgets=budgets))
    assert list(table.budget.unique()) == [budgets[1], budgets[0]]
    assert table.budget_seconds[table.budget == budgets[0]].isna().all()
    for row in table.itertuples():
        limit = np.median(BYTES) * (2 if row.budget == budgets[0] else 1.5)
        assert sum(BYTES[member] for member in counted(row.members)) <= limit


def test_threads_change_nothing(made, tmp_path):
    files, jsons, table, fronts = made
    with selection_workers(n_workers=2) as make_workers:
        tables = [tmp_path / name for name in ("comparison.csv", "fronts.csv")]
        compare_methods(*files, jsons, CONFIG, *tables, make_workers)
    for path, expected in zip(tables, (table, fronts), strict=True):
        pd.testing.assert_frame_equal(read_csv(path, dtype={"budget": str}), expected, check_exact=True)


def test_of_true_classes_alone_only_cross_entropies_are_known(made, tmp_path):
    _, jsons, table, fronts = made
    found, found_fronts = compare(tmp_path, write_library(tmp_path, every_class=False), jsons)
    assert list(found.combiner.unique()) == COMBINERS[:2]
    expected = table[table.combiner != "majority_vote"].reset_index(drop=True)
    known = ["valid_cross_entropy", "test_cross_entropy"]
    for part, whole in ((found, expected), (found_fronts, fronts)):
        assert list(part.members) == list(whole.members)
        pd.testing.assert_frame_equal(part[known], whole[known], rtol=1e-12)
        unknown = [column for column in part if column.startswith(("valid_", "test_")) and column not in known]
        assert len(unknown) == 8 and part[unknown].isna().all(axis=None)


def test_jsons_of_other_predictions_are_refused(made, tmp_path):
    files, jsons, _, _ = made
    others = write_library(tmp_path / "others", labels_and_probabilities(seed=1)[1])
    with pytest.raises(ArtefactError, match=r"(?s)not selected from these predictions.*other predictions"):
        compare(tmp_path, others, jsons)
    with pytest.raises(ArtefactError, match="study digits-hyperband-s0"):
        compare(tmp_path, write_library(tmp_path / "study", study="digits-random-s0"), jsons)
    with pytest.raises(ArtefactError, match="selected by cross_entropy"):
        compare(tmp_path, files, jsons, SelectionConfig(loss="error"))
    document = read_json(jsons[0])
    document["candidates"][0]["cost_seconds"] += 1
    write_json(tmp_path / "budget-2x.json", document)
    with pytest.raises(ArtefactError, match=r"(?s)budget-2x\.json.*other models or costs.*forcerun select_ensemble"):
        compare(tmp_path, files, [tmp_path / "budget-2x.json"])
    write_json(tmp_path / "budget-2x.json", {"study": "digits-hyperband-s0"})
    with pytest.raises(ArtefactError, match="lacks keys"):
        compare(tmp_path, files, [tmp_path / "budget-2x.json"])
    with pytest.raises(SelectionError, match="no budget is given"):
        compare(tmp_path, files, [])
    assert not (tmp_path / "comparison.csv").exists()
