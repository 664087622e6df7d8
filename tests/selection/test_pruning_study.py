"""The pruning study: which models each fraction keeps, what is chosen from them, and under which budget."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.config import n_kept
from ensembleflow.errors import SelectionError
from ensembleflow.io import create_hdf5
from ensembleflow.library import open_predictions
from ensembleflow.library.predictions import SCHEMA, SCHEMA_VERSION
from ensembleflow.models.metrics import METRICS
from ensembleflow.selection import smobf
from ensembleflow.selection.rivals.pruning_study import KEEP_FRACTIONS, pruning_study
from support.selection_problems import naive_loss


def library(n_models, seed=0, n_samples=60, n_classes=3):
    """Validation and test probabilities with labels, and costs; models get better with their number."""
    rng = np.random.default_rng(seed)
    quality = np.linspace(0.2, 1.5, n_models)
    splits = []
    for _ in range(2):
        labels = rng.integers(0, n_classes, n_samples)
        scores = rng.normal(0, 1, (n_models, n_samples, n_classes))
        scores += quality[:, None, None] * 2 * np.eye(n_classes)[labels]
        probabilities = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
        splits.append((probabilities, labels))
    return splits, rng.uniform(0.5, 2.0, n_models)


def study(splits, costs, budget, **arguments):
    (valid, labels), (test, test_labels) = splits
    return pruning_study(
        valid, costs, budget, labels=labels, test_probabilities=test, test_labels=test_labels, **arguments
    )


def write_cache(path, names, splits, every_class=True, **storage):
    """A library's `predictions.h5`."""
    with create_hdf5(path, SCHEMA, SCHEMA_VERSION) as file:
        file.attrs["study"], file.attrs["dataset_checksum"], file.attrs["dtype"] = "digits", "sha", "float32"
        file.attrs["class_names"], file.attrs["weights_sha256"] = ["a", "b", "c"], ["0"] * len(names)
        file.create_dataset("models", data=names)
        for split, (probabilities, labels) in zip(("valid", "test"), splits, strict=True):
            group = file.create_group(split)
            if every_class:
                group.create_dataset("probabilities", data=probabilities, **storage)
            true_class = probabilities[:, np.arange(len(labels)), labels]
            group.create_dataset("true_class_probability", data=true_class)
            group.create_dataset("labels", data=labels)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_models=st.integers(2, 14),
    loss=st.sampled_from(list(METRICS)),
    fractions=st.lists(st.floats(0.25, 1.0), min_size=1, max_size=4),
    budget=st.sampled_from([None, "2x", 2.5]),
)
def test_each_row_is_what_smobf_chooses_from_the_best_models_under_the_librarys_budget(
    seed, n_models, loss, fractions, budget
):
    splits, costs = library(n_models, seed, n_samples=20)
    (valid, labels), (test, test_labels) = splits
    table = study(splits, costs, budget, keep_fractions=fractions, loss=loss)
    assert table.keep_fraction.tolist() == fractions
    limit = {None: None, "2x": 2 * float(np.median(costs)), 2.5: 2.5}[budget]
    ranked = sorted(
        range(n_models),
        key=lambda m: (naive_loss(valid, labels, [m], "error"), naive_loss(valid, labels, [m], "cross_entropy"), m),
    )
    for row in table.itertuples():
        kept = sorted(ranked[: n_kept(n_models, row.keep_fraction)])
        assert row.n_models == len(kept)
        if limit is not None and costs[kept].min() > limit:
            assert (row.n_members, row.members) == (0, "") and math.isnan(row.valid_loss)
            continue
        expected = smobf(valid[kept], labels, costs[kept], budget=limit, loss=loss)
        members = [int(name) for name in row.members.split()]
        assert members == [kept[member] for member in expected.members]
        assert row.n_members == len(members)
        assert (row.loss, row.valid_loss, row.cost_seconds) == (loss, expected.loss, expected.cost)
        assert row.valid_error == pytest.approx(naive_loss(valid, labels, members, "error"))
        assert row.test_error == pytest.approx(naive_loss(test, test_labels, members, "error"))
        assert row.selection_seconds > 0


def test_the_fractions_are_the_papers_unless_told_otherwise():
    splits, costs = library(20)
    table = study(splits, costs, "4x")
    assert table.keep_fraction.tolist() == list(KEEP_FRACTIONS)
    assert table.n_models.tolist() == [1, 2, 3, 4, 6, 10, 20]


def test_another_metric_may_rank_the_models():
    (valid, labels), (test, test_labels) = library(10)[0]
    # The best model by far, made so unsure that its cross-entropy is the highest.
    unsure = np.full_like(valid[-1], 0.33) + 0.01 * np.eye(3)[labels]
    valid[0] = unsure
    for rank_by, chosen in (("error", "0"), ("cross_entropy", "9")):
        table = study([(valid, labels), (test, test_labels)], np.ones(10), None, keep_fractions=[0.1], rank_by=rank_by)
        assert table.members.tolist() == [chosen]


def test_a_diverged_model_is_never_kept():
    splits, costs = library(6)
    splits[0][0][5] = np.nan
    table = study(splits, costs, None, keep_fractions=[0.2, 1.0])
    assert table.n_models.tolist() == [1, 5]
    assert all("5" not in members.split() for members in table.members)


def test_a_model_that_has_diverged_on_the_test_split_is_kept_but_not_chosen(tmp_path):
    splits, costs = library(6)
    splits = [(probabilities.astype(np.float32), labels) for probabilities, labels in splits]
    splits[1][0][5, 3] = np.nan
    expected = study([(array[:5], labels) for array, labels in splits], costs[:5], 9.0, keep_fractions=[1.0])
    write_cache(tmp_path / "predictions.h5", list("012345"), splits)
    with open_predictions(tmp_path / "predictions.h5") as predictions:
        cached = pruning_study(predictions, costs, 9.0, keep_fractions=[0.2, 1.0])
    for table in (study(splits, costs, 9.0, keep_fractions=[0.2, 1.0]), cached):
        assert table.n_models.tolist() == [1, 6]
        assert table.n_members.tolist() == [0, expected.n_members[0]]
        assert table.members.tolist() == ["", expected.members[0]]
        assert table.test_error[1] == expected.test_error[0]


def test_a_chunked_cache_gives_what_a_contiguous_one_does(tmp_path):
    splits, costs = library(5)
    names = list("edcba")
    for path, storage in ((tmp_path / "one.h5", {}), (tmp_path / "other.h5", {"chunks": True, "compression": "gzip"})):
        write_cache(path, names, splits, **storage)
    tables = []
    for path in (tmp_path / "one.h5", tmp_path / "other.h5"):
        with open_predictions(path) as predictions:
            tables.append(pruning_study(predictions, costs, "2x", keep_fractions=[0.4, 1.0]))
    assert tables[0].drop(columns="selection_seconds").equals(tables[1].drop(columns="selection_seconds"))


def test_a_cache_gives_what_its_arrays_give_with_the_models_ids(tmp_path):
    splits, costs = library(8)
    splits = [(probabilities.astype(np.float32), labels) for probabilities, labels in splits]
    names = [f"digits-s0-{8 - index}" for index in range(8)]
    path = tmp_path / "predictions.h5"
    write_cache(path, names, splits)
    expected = study(splits, costs, "2x", keep_fractions=[0.5, 1.0])
    with open_predictions(path) as predictions:
        table = pruning_study(predictions, costs, "2x", keep_fractions=[0.5, 1.0])
    assert table.members.tolist() == [
        " ".join(names[int(index)] for index in members.split()) for members in expected.members
    ]
    same = ["n_models", "n_members", "cost_seconds", "valid_loss", "valid_error", "test_error"]
    assert table[same].equals(expected[same])


def test_a_cache_of_true_classes_only_is_refused(tmp_path):
    splits, costs = library(3)
    write_cache(tmp_path / "predictions.h5", ["a", "b", "c"], splits, every_class=False)
    with (
        open_predictions(tmp_path / "predictions.h5") as predictions,
        pytest.raises(SelectionError, match="every class"),
    ):
        pruning_study(predictions, costs, None)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ([], "no fraction"),
        ([0.5, 0.0], "out of range"),
        ([1.1], "out of range"),
        ([math.nan], "out of range"),
        ([0.5, 0.04], "keeps no model"),
    ],
)
def test_fractions_that_make_no_sense_are_refused(fractions, message):
    splits, costs = library(10)
    with pytest.raises(SelectionError, match=message):
        study(splits, costs, None, keep_fractions=fractions)


@pytest.mark.parametrize("n_models", [2, 7, 13])
def test_the_fraction_that_is_hinted_at_keeps_a_model(n_models):
    splits, costs = library(n_models)
    with pytest.raises(SelectionError) as error:
        study(splits, costs, None, keep_fractions=[0.4 / n_models])
    fraction = float(error.value.hint.split()[0])
    assert study(splits, costs, None, keep_fractions=[fraction]).n_models.tolist() == [1]


def test_test_arrays_that_do_not_match_are_refused():
    splits, costs = library(5)
    (valid, labels), (test, test_labels) = splits
    with pytest.raises(SelectionError, match="do not match those of validation"):
        study([(valid, labels), (test[:4], test_labels)], costs, None)
    with pytest.raises(SelectionError, match="labels do not match"):
        study([(valid, labels), (test, test_labels[:-1])], costs, None)
    with pytest.raises(SelectionError, match="unknown metric to rank by"):
        study(splits, costs, None, rank_by="accuracy")
