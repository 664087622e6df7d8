"""Public functions called with what they cannot take: one message, never a traceback of what lies within."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensembleflow.config import Config, DatasetConfig, load_config
from ensembleflow.datasets import open_dataset, prepare_dataset, read_image
from ensembleflow.errors import EnsembleflowError
from ensembleflow.library import create_predictions, open_predictions
from ensembleflow.selection import (
    best_single,
    certify,
    forward_greedy,
    forward_greedy_path,
    greedy_with_replacement,
    local_search,
    pareto_front,
    read_candidates,
    smobf,
    smobf_budgets,
    top_k,
    weight_sweep,
)

PROBABILITIES = np.random.default_rng(0).dirichlet(np.ones(3), (4, 20)).astype(np.float32)
LABELS = np.arange(20) % 3
COSTS = np.ones(4)
FOUR = np.zeros(4, int)
GIVEN = {
    "study": "s",
    "dataset_checksum": "",
    "class_names": ["a", "b", "c"],
    "models": ["m", "n"],
    "weights_sha256": ["", ""],
    "labels": {"valid": FOUR, "test": FOUR},
}
EVEN = np.full((4, 3), 1 / 3)
NO_TEXTS = [range(3), 3, "abc", None, [None], {"a": 1}, np.arange(3)]
RAGGED = [[1], [1, 2]]


def refused(function, *args, **keywords) -> EnsembleflowError:
    with pytest.raises(EnsembleflowError) as caught:
        function(*args, **keywords)
    assert caught.value.expected or caught.value.found
    return caught.value


def created(path: Path, changed, write=()) -> None:
    with create_predictions(path, **{**GIVEN, **changed}) as writer:
        if write:
            writer.write(*write)


@pytest.mark.parametrize(
    "changed",
    [
        *({key: value} for key in ("class_names", "models", "weights_sha256") for value in NO_TEXTS),
        {"weights_sha256": ["one"]},
        *({key: value} for key in ("study", "dataset_checksum") for value in (None, 3, ["s"])),
        *({"dtype": value} for value in (None, "nope", "int8", np.float16, 4)),
        *({"labels": value} for value in (None, 4, [FOUR, FOUR], {}, {"valid": FOUR}, {"test": FOUR})),
        *({"labels": {"valid": value, "test": FOUR}} for value in (None, 4, "abcd", ["a"] * 4, RAGGED, [[0]], [0.5])),
    ],
    ids=str,
)
def test_a_cache_of_what_is_no_cache_is_refused_and_not_made(tmp_path, changed):
    refused(created, tmp_path / "predictions.h5", changed)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_split_is_named(tmp_path):
    error = refused(created, tmp_path / "predictions.h5", {"labels": {"valid": FOUR}})
    assert error.where == "labels"
    assert error.found == "no test; there is valid"


@pytest.mark.parametrize(
    "write",
    [
        *((split, 0, 0, EVEN) for split in ("train", None, 3, ["valid"])),
        *(("valid", model, 0, EVEN) for model in (2, -1, "m", None, 0.0, True)),
        *(("valid", 0, first, EVEN) for first in ("0", None, 0.0, -1, 1)),
        *(("valid", 0, 0, batch) for batch in (None, 3, "abc", RAGGED, EVEN.astype(str), EVEN[0], {"a": 1})),
    ],
    ids=str,
)
def test_a_batch_that_is_none_is_refused(tmp_path, write):
    refused(created, tmp_path / "predictions.h5", {}, write)


def test_lists_and_whole_numbers_are_as_good_as_arrays(tmp_path):
    lists = {"labels": {"valid": [0, 1, 2, 0], "test": [0, 0, 0, 0]}, "class_names": ("a", "b", "c")}
    one_hot = np.eye(3, dtype=int)[[0, 1, 2, 0]]
    with create_predictions(str(tmp_path / "predictions.h5"), **{**GIVEN, **lists}) as writer:
        for model in np.arange(2):
            for split in ("valid", "test"):
                writer.write(split, model, 0, one_hot.tolist())
    with open_predictions(tmp_path / "predictions.h5") as predictions:
        np.testing.assert_array_equal(predictions.probabilities("valid")[0], one_hot)
        for method in ("labels", "mapped_labels", "check_labels", "first_not_finite", "probabilities"):
            for split in ("train", None, 3):
                assert refused(getattr(predictions, method), split).where == "split"


NO_PATHS = [None, 3, ["a"], b"a", "a\0b"]


@pytest.mark.parametrize("path", NO_PATHS)
@pytest.mark.parametrize(
    "function",
    [
        lambda path: open_predictions(path).__enter__(),
        lambda path: open_dataset(path).__enter__(),
        lambda path: read_image(path, (4, 4, 3)),
        lambda path: prepare_dataset(DatasetConfig(), path),
        lambda path: load_config([path]),
        lambda path: created(path, {}),
    ],
    ids=["open_predictions", "open_dataset", "read_image", "prepare_dataset", "load_config", "create_predictions"],
)
def test_what_is_no_path_is_refused(function, path):
    refused(function, path)


@pytest.mark.parametrize(
    "shape", [None, 4, "443", (4, 4), (4, 4, 3, 1), (0, 4, 3), (-1, 4, 3), (4.5, 4, 3), ("4", 4, 3)]
)
def test_an_image_shape_that_is_none_is_refused(tmp_path, shape):
    assert refused(read_image, tmp_path / "a.png", shape).where.startswith("image_shape")


@pytest.mark.parametrize("config", [None, {}, "digits", Config()])
def test_a_dataset_block_that_is_none_is_refused(tmp_path, config):
    assert refused(prepare_dataset, config, tmp_path / "own.h5").where == "config"


@pytest.mark.parametrize("threads", [0, -1, "2", 1.5, None])
def test_threads_are_a_whole_number(tmp_path, threads):
    assert refused(prepare_dataset, DatasetConfig(), tmp_path / "own.h5", threads).where == "threads"


def test_a_split_of_a_dataset_that_is_none_is_refused(tmp_path):
    prepare_dataset(DatasetConfig(), tmp_path / "digits.h5")
    with open_dataset(tmp_path / "digits.h5") as dataset:
        for method in (dataset.images, dataset.labels, dataset.image_array):
            for split in ("nope", None, 3, ["train"]):
                assert refused(method, split).where == "split"


def test_one_config_file_may_stand_alone(tmp_path):
    (tmp_path / "own.yaml").write_text("seed: 7\n")
    assert load_config(tmp_path / "own.yaml").seed == load_config(str(tmp_path / "own.yaml")).seed == 7
    refused(load_config, None)
    refused(load_config, 3)


@pytest.mark.parametrize(
    "changed",
    [
        *({"probabilities": value} for value in (None, "x", Path("a.h5"), RAGGED, PROBABILITIES.astype(str), {"a": 1})),
        *({"labels": value} for value in (None, RAGGED, {}, ["a"] * 20, LABELS[:5])),
        *({"costs": value} for value in (3, RAGGED, ["a"] * 4, {"a": 1}, COSTS[:1])),
        *({"budget": value} for value in ([1, 2], 1j, "abc", {"cost_seconds": None}, {"cost_seconds": [1]}, True)),
        *({"weights": value} for value in (0.1, None, "abc", ["a"], [None], [True], [2], ())),
        *({"loss": value} for value in (None, 3, "nope", ["error"])),
    ],
    ids=str,
)
def test_a_selection_of_what_it_cannot_take_is_refused(changed):
    given = {"probabilities": PROBABILITIES, "labels": LABELS, "costs": COSTS, "budget": 3.0}
    refused(smobf, **{**given, **changed})


@pytest.mark.parametrize("budgets", [3, None, "4x", {"4x": 1}])
def test_budgets_are_a_list(budgets):
    refused(smobf_budgets, read_candidates(PROBABILITIES, LABELS, COSTS, "error"), budgets)


@pytest.mark.parametrize("max_members", ["2", 2.5, 0, [1], True])
def test_a_number_of_members_is_a_whole_number(max_members):
    refused(forward_greedy, PROBABILITIES, LABELS, COSTS, max_members=max_members)


@pytest.mark.parametrize("candidates", [PROBABILITIES, None, "x"], ids=["array", "none", "text"])
@pytest.mark.parametrize(
    "function", [smobf_budgets, forward_greedy_path, best_single, top_k, greedy_with_replacement, weight_sweep]
)
def test_candidates_are_those_that_were_read(function, candidates):
    error = refused(function, candidates)
    assert error.where == "candidates"
    assert "read_candidates" in error.expected


def test_other_arguments_of_the_methods_are_checked():
    candidates = read_candidates(PROBABILITIES, LABELS, COSTS, "error")
    for steps in ("3", 2.5, None, 0):
        refused(greedy_with_replacement, candidates, n_steps=steps)
        refused(weight_sweep, candidates, n_steps=steps)
    for among in (3, ["a"], [99], [0.5], []):
        refused(greedy_with_replacement, candidates, among=among)
    for weights in (3, ["a"], [2], None):
        refused(weight_sweep, candidates, weights=weights)
    for members in (0, None, ["a"], [99], [-1], [0.5], []):
        refused(certify, candidates, 3.0, members, 10)
    for nodes in ("x", -1, 2.5, None):
        refused(certify, candidates, 3.0, [0], nodes)
    for start in (None, [0], PROBABILITIES):
        assert refused(local_search, candidates, start, 3.0).where == "start"
    refused(certify, PROBABILITIES, 3.0, [0], 10)
    refused(local_search, None, [0], 3.0)


@pytest.mark.parametrize(
    ("costs", "losses"), [([1, 2], [1]), ("ab", [1, 2]), (["a"], [1]), (None, None), ([[1]], [[1]]), (RAGGED, [1])]
)
def test_a_front_is_one_of_two_lists_of_numbers(costs, losses):
    refused(pareto_front, costs, losses)
