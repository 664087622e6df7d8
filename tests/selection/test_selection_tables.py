"""The selection stage's files and its command."""

import json
import re

import h5py
import numpy as np
import pandas as pd
import pytest

from ensembleflow.cli import main
from ensembleflow.config import SelectionConfig
from ensembleflow.errors import SelectionError
from ensembleflow.io import read_csv, read_json, write_csv
from ensembleflow.library import open_predictions
from ensembleflow.models.metrics import METRICS, classification_metrics
from ensembleflow.selection import smobf
from support.library_files import CONFIG, MODELS, N_CLASSES, N_MODELS, collect, select, write_library


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_library(tmp_path_factory.mktemp("library"))


def test_the_json_describes_the_chosen_ensemble_with_the_metrics_of_both_splits(tmp_path, files):
    chosen = read_json(select(tmp_path, "3x", files))
    with open_predictions(files[0]) as predictions:
        members = [predictions.models.index(model) for model in chosen["members"]]
        for split in ("valid", "test"):
            average = predictions.probabilities(split)[members].mean(axis=0, dtype=np.float64)
            expected = classification_metrics(average, predictions.labels(split))
            assert chosen[split] == pytest.approx(expected)
            assert list(chosen[split]) == list(METRICS)
    costs = read_csv(files[1]).set_index("model").cost_seconds
    assert chosen["budget_seconds"] == 3 * costs.median()
    assert chosen["cost_seconds"] == pytest.approx(costs[chosen["members"]].sum())
    assert chosen["cost_seconds"] <= chosen["budget_seconds"]
    assert (chosen["study"], chosen["budget"], chosen["loss"]) == ("digits-hyperband-s0", "3x", "cross_entropy")
    assert chosen["method"] == "smobf" and chosen["weight"] in CONFIG.cost_weights
    assert "python" in chosen["provenance"]


def test_the_rows_are_the_rivals_within_the_budget_and_one_is_chosen(tmp_path, files):
    chosen = read_json(select(tmp_path, "3x", files))
    rows = pd.DataFrame(chosen["ensembles"])
    assert (rows.cost_seconds <= chosen["budget_seconds"]).all()
    assert list(rows.method[:4]) == ["best_single", "smobf", "smobf", "smobf"]
    assert list(rows.weight[1:4]) == [0.1, 0.01, 0.001]
    forward = rows[rows.method == "forward_greedy"]
    assert list(forward.n_members) == list(range(1, len(forward) + 1))
    assert all(a in b for a, b in zip(forward.members, forward.members[1:], strict=False))
    picked = rows[rows.chosen].iloc[0]
    assert rows.chosen.sum() == 1
    assert picked.members == " ".join(chosen["members"])
    assert [picked[f"test_{name}"] for name in METRICS] == list(chosen["test"].values())
    assert picked.valid_cross_entropy == pytest.approx(rows[rows.method == "smobf"].valid_cross_entropy.min())
    run = [step for step in chosen["trace"] if (step["method"], step["weight"]) == ("smobf", chosen["weight"])]
    assert [step["model"] for step in run[:-1]] == chosen["members"]
    last = run[-1]
    assert last["stop_reason"] and last["model"] is None
    assert last["loss"] == pytest.approx(picked.valid_cross_entropy)


@pytest.mark.parametrize("loss", METRICS)
def test_an_opened_cache_selects_what_its_array_does(files, loss):
    with open_predictions(files[0]) as predictions:
        costs = read_csv(files[1]).cost_seconds
        labels, probabilities = predictions.labels("valid"), predictions.probabilities("valid")
        cached = smobf(predictions, None, costs, budget="3x", loss=loss)
        with_labels = smobf(predictions, labels, costs, budget="3x", loss=loss)
        assert (cached.members, cached.loss) == (with_labels.members, with_labels.loss)
        array = smobf(probabilities, labels, costs, budget="3x", loss=loss)
        assert (cached.members, cached.loss, cached.cost) == (array.members, array.loss, array.cost)
        with pytest.raises(SelectionError, match="the labels are not those of the cached validation split"):
            smobf(predictions, labels[::-1], costs)


def test_the_order_of_the_file_does_not_matter_even_for_equal_models(tmp_path):
    found = []
    for name, models in (("one", MODELS), ("other", MODELS[::-1])):
        files = write_library(tmp_path / name, models, costs=[2.0] * N_MODELS)
        with h5py.File(files[0], "a") as file:
            for split in ("valid", "test"):
                for key in ("probabilities", "true_class_probability"):
                    file[split][key][models.index(MODELS[0])] = file[split][key][models.index(MODELS[1])]
        found.append(read_json(select(tmp_path / name, "3x", files)))
    assert found[0] == found[1]


def test_a_metric_that_needs_more_than_is_cached_is_null_and_an_empty_field(tmp_path):
    files = write_library(tmp_path)
    with h5py.File(files[0], "r+") as file:
        for split in ("valid", "test"):
            del file[split]["probabilities"]
    path = select(tmp_path, "2x", files)
    for split in ("valid", "test"):
        metrics = read_json(path)[split]
        assert metrics.pop("cross_entropy") > 0
        assert set(metrics.values()) == {None}
    table = read_csv(collect(tmp_path, [path])[0])
    assert table.test_error.isna().all() and (table.test_cross_entropy > 0).all()


def test_the_best_single_model_is_smobf_s_row_where_no_weight_beats_it(tmp_path):
    def two(split, cached):
        cached = np.full_like(cached, 0.25)
        labels = np.random.default_rng(0).integers(0, N_CLASSES, 50)
        if split == "valid":
            for each, right in zip(cached, (0.7, 0.695), strict=True):
                each[:] = (1 - right) / (N_CLASSES - 1)
                each[np.arange(50), labels] = right
        return cached

    files = write_library(tmp_path, MODELS[:2], probabilities=two, costs=[9.0, 4.0])
    path = select(tmp_path, "10", files, SelectionConfig(cost_weights=[0.1]))
    chosen = read_json(path)
    assert (chosen["method"], chosen["weight"], chosen["members"]) == ("smobf", None, [MODELS[0]])
    rows = pd.DataFrame(chosen["ensembles"])
    assert list(rows.method) == ["best_single", "smobf", "smobf", "forward_greedy"]
    assert list(rows.chosen) == [False, False, True, False]
    assert list(rows.members[:3]) == [MODELS[0], MODELS[1], MODELS[0]]
    reasons = [step["stop_reason"] for step in chosen["trace"] if step["weight"] is None and step["method"] == "smobf"]
    assert reasons == ["", "picked: this single model has a lower loss than the ensemble of every weight"]


def test_made_again_the_files_are_the_same(tmp_path, files):
    paths = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        jsons = [select(tmp_path / name, budget, files) for budget in ("1x", "4x")]
        paths.append([*jsons, *collect(tmp_path / name, jsons[:: 1 if name == "one" else -1])])
    for one, other in zip(*paths, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_the_tables_merge_the_budgets_by_ascending_seconds(tmp_path, files):
    budgets = ("4x", "1x", "2.5")
    jsons = [select(tmp_path, budget, files) for budget in budgets]
    ensembles_csv, pareto_csv, trace_csv = collect(tmp_path, jsons)
    ensembles, pareto, trace = read_csv(ensembles_csv), read_csv(pareto_csv), read_csv(trace_csv)
    assert ensembles.iloc[0].method == "best_single" and pd.isna(ensembles.iloc[0].budget)
    assert list(ensembles.budget[1:].unique()) == list(trace.budget.unique()) == ["1x", "2.5", "4x"]
    assert ensembles.groupby("budget").chosen.sum().to_dict() == {"1x": 1, "2.5": 1, "4x": 1}
    single = ensembles.iloc[0]
    kept = read_csv(files[1])
    with open_predictions(files[0]) as predictions:
        losses = [-np.log(row.astype(float)).mean() for row in predictions.true_class_probability("valid")]
    assert single.members == kept.model[int(np.argmin(losses))]
    assert single.valid_cross_entropy == pytest.approx(min(losses))
    rest = ("runners_up", "n_over_budget", "over_budget", "no_gain", "dropped", "stop_reason")
    assert list(trace.columns) == (
        [*("budget", "method", "weight", "step", "model", "removed", "loss", "cost_seconds", "score"), *rest]
    )
    last = trace.groupby(["budget", "method", "weight"], dropna=False).tail(1)
    assert list(trace.index[trace.stop_reason.notna()]) == list(last.index) == list(trace.index[trace.model.isna()])
    first = trace[(trace.budget == "4x") & (trace.weight == 0.1)].iloc[0]
    assert re.fullmatch(r"(trial-\d{5}:[\d.]+ ?){3}", first.runners_up)
    assert list(pareto.columns) == list(ensembles.columns)


def test_the_pareto_table_holds_the_distinct_ensembles_that_none_beats_in_cost_and_loss(tmp_path, files):
    ensembles_csv, pareto_csv, _ = collect(tmp_path, [select(tmp_path, budget, files) for budget in ("1x", "3x", "6x")])
    ensembles, pareto = read_csv(ensembles_csv), read_csv(pareto_csv)
    points = ensembles[["cost_seconds", "valid_cross_entropy"]].to_numpy()
    beaten = [((points <= point).all(axis=1) & (points < point).any(axis=1)).any() for point in points]
    sets = {frozenset(members.split()) for members in ensembles.members[~np.array(beaten)]}
    assert {frozenset(members.split()) for members in pareto.members} == sets
    assert len(pareto) == len(sets)
    assert pareto.cost_seconds.is_monotonic_increasing
    assert pareto.valid_cross_entropy.is_monotonic_decreasing
    chosen = {frozenset(members.split()) for members in ensembles.members[ensembles.chosen]}
    assert all(row.chosen == (frozenset(row.members.split()) in chosen) for row in pareto.itertuples())


def test_the_command_prints_members_metrics_and_the_weights_runs(files, capsys):
    assert main(["select", str(files[0]), "--costs", str(files[1]), "--budget", "3x"]) == 0
    printed = capsys.readouterr().out
    for expected in (
        "digits-hyperband-s0",
        "3x",
        "cross entropy",
        "macro f1 error",
        "forward_greedy",
        "chosen",
        "0.001",
    ):
        assert expected in printed
    with open_predictions(files[0]) as predictions:
        members = smobf(predictions, None, read_csv(files[1]).cost_seconds, budget="3x").members
    assert all(MODELS[member] in printed for member in members)


def test_the_command_prints_what_the_workflow_writes(tmp_path, files, capsys):
    arguments = ["--budget", "2x", "--weights", "0.1", "0.5", "--loss", "brier", "--json"]
    assert main(["select", str(files[0]), "--costs", str(files[1]), *arguments]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = read_json(select(tmp_path, "2x", files, SelectionConfig(cost_weights=[0.1, 0.5], loss="brier")))
    del written["provenance"]
    assert printed == written


def test_a_budget_of_other_columns_is_kept_and_told(tmp_path, capsys):
    files = write_library(tmp_path)
    table = read_csv(files[1])
    table["parameter_bytes"] = [400.0, 100.0, 200.0, 300.0, 100.0, 200.0]
    table["GPU_ms"] = 2.0
    write_csv(files[1], table)
    name = "2x,GPU_ms=3x,parameter_bytes=500"
    chosen = read_json(select(tmp_path, name, files))
    assert chosen["budget"] == name
    assert list(chosen["limits"]) == ["cost_seconds", "GPU_ms", "parameter_bytes"]
    for column, limit in chosen["limits"].items():
        spent = table.set_index("model")[column][chosen["members"]].sum()
        assert chosen["costs"][column] == pytest.approx(spent) and spent <= limit
    only_bytes = read_json(select(tmp_path, "parameter_bytes=500", files))
    assert only_bytes["budget_seconds"] is None
    ensembles = read_csv(collect(tmp_path, [tmp_path / f"budget-{name}.json"])[0])
    assert list(ensembles.budget[1:].unique()) == [name]
    assert main(["select", str(files[0]), "--costs", str(files[1]), "--budget", "energy_joules=3x"]) == 1
    printed = capsys.readouterr().err
    assert "energy_joules" in printed and "parameter_bytes" in printed


def test_local_search_goes_on_from_smobf_within_the_budget_and_is_traced(tmp_path, files):
    plain = read_json(select(tmp_path, "4x", files))
    searched = read_json(select(tmp_path, "4x", files, SelectionConfig(local_search=True)))
    assert searched["method"] == "local_search" and searched["weight"] is None
    assert searched["valid"]["cross_entropy"] <= plain["valid"]["cross_entropy"] + 1e-12
    assert searched["cost_seconds"] <= searched["budget_seconds"]
    rows = pd.DataFrame(searched["ensembles"])
    assert list(rows.method[rows.chosen]) == ["local_search"]
    moves = [step for step in searched["trace"] if step["method"] == "local_search"]
    assert moves[-1]["stop_reason"] == "no move within the budget lowers the loss, or the cost at the same loss"


@pytest.mark.parametrize("local_search", [False, True])
@pytest.mark.parametrize(("budget", "weights"), [("3x", CONFIG.cost_weights), ("2.4", [1.0]), ("1.45x", [0.9])])
def test_the_trace_says_why_each_model_is_no_member(tmp_path, budget, weights, local_search):
    def spoil(split, cached):
        cached[0, 0] = np.nan
        return cached

    files = write_library(tmp_path / "library", probabilities=spoil)
    config = SelectionConfig(cost_weights=weights, local_search=local_search)
    chosen = read_json(select(tmp_path, budget, files, config))
    runs = {}
    for step in chosen["trace"]:
        runs.setdefault((step["method"], step["weight"]), []).append(step)
    assert (("local_search", None) in runs) == local_search
    assert (("smobf", None) in runs) == (weights != CONFIG.cost_weights)
    for steps in runs.values():
        local = steps[0]["method"] == "local_search"
        members = chosen["members"] if local else [step["model"] for step in steps if step["model"]]
        last = steps[-1]
        told = [last[reason].split() for reason in ("over_budget", "no_gain", "dropped")]
        assert sorted([*members, *(model for models in told for model in models)]) == sorted(MODELS)
        assert told[2] == [MODELS[0]]
        runners_up = [model.split(":")[0] for model in last["runners_up"].split()]
        assert set(runners_up) <= set(told[1]) and len(runners_up) == min(3, len(told[1]))


def test_a_model_is_over_budget_after_a_local_search_where_every_move_that_brings_it_in_is(tmp_path, files):
    costs = read_csv(files[1]).set_index("model").cost_seconds
    for budget in ("1.2x", "2x", "3x"):
        path = select(tmp_path, budget, files, SelectionConfig(local_search=True))
        chosen = read_json(path)
        told = [step for step in chosen["trace"] if step["method"] == "local_search"][-1]
        left = [set(chosen["members"]) - {removed} for removed in (None, *chosen["members"])]
        fits = {
            model: any(costs[[*rest, model]].sum() <= chosen["budget_seconds"] for rest in left)
            for model in set(MODELS) - set(chosen["members"])
        }
        assert sorted(model for model in fits if not fits[model]) == told["over_budget"].split()
        assert sorted(model for model in fits if fits[model]) == told["no_gain"].split()
        losses = [float(each.split(":")[1]) for each in told["runners_up"].split()]
        assert losses == sorted(losses) and min(losses) >= chosen["valid"]["cross_entropy"] - 1e-9


def test_the_front_has_the_ensembles_on_smobf_s_way(tmp_path, files):
    path = select(tmp_path, "6x", files)
    steps = [(step["cost_seconds"], step["loss"]) for step in read_json(path)["trace"] if step["model"]]
    pareto = read_csv(collect(tmp_path, [path])[1])
    for cost, loss in steps:
        assert ((pareto.cost_seconds <= cost + 1e-9) & (pareto.valid_cross_entropy <= loss + 1e-9)).any()
