"""Wrong files given to the selection: each is told in one message that names it."""

import h5py
import numpy as np
import pandas as pd
import pytest

from ensembleflow.cli import main
from ensembleflow.errors import ArtefactError, SelectionError
from ensembleflow.io import read_csv, read_json, write_csv, write_json
from library_files import MODELS, N_CLASSES, N_MODELS, collect, select, write_library


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_library(tmp_path_factory.mktemp("library"))


def negative(split, cached):
    cached[2, 7] = [-0.2, 0.6, 0.3, 0.3]
    return cached


def scaled(split, cached):
    cached[3, 5] *= 0.9
    return cached


@pytest.mark.parametrize(
    ("spoil", "message", "where"),
    [
        (negative, "a probability is outside 0 … 1", f"{MODELS[2]}, sample 7"),
        (scaled, "the probabilities of a sample do not add up to 1", f"{MODELS[3]}, sample 5"),
        (lambda split, cached: cached * np.inf, "no model has usable predictions", f"{MODELS[0]}: probabilities that"),
        (lambda split, cached: cached[:0], "no model has usable predictions", "an empty library"),
    ],
)
def test_the_command_names_what_is_wrong_with_the_predictions(tmp_path, capsys, spoil, message, where):
    models = [] if where == "an empty library" else MODELS
    files = write_library(tmp_path / "library", models, probabilities=spoil)
    arguments = ["select", str(files[0]), "--costs", str(files[1]), "--budget", "3x", "--loss", "brier"]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert message in printed.err and where in printed.err and not printed.out


def test_the_command_names_a_label_that_is_no_class(tmp_path, capsys):
    files = write_library(tmp_path)
    with h5py.File(files[0], "a") as file:
        file["valid"]["labels"][3] = N_CLASSES
    assert main(["select", str(files[0]), "--costs", str(files[1]), "--budget", "3x"]) == 1
    printed = capsys.readouterr().err
    assert "a label is not a class" in printed and "sample 3" in printed and str(files[0]) in printed


def test_a_budget_below_the_cheapest_model_names_both(tmp_path, files):
    with pytest.raises(SelectionError) as caught:
        select(tmp_path, "0.5", files)
    message = str(caught.value)
    assert "no usable model fits the budget 0.5" in message
    assert "the cheapest, trial-00000, costs 1 s" in message
    assert "hint:" in message
    assert not list(tmp_path.iterdir())


def test_costs_of_other_models_are_refused_by_name(tmp_path):
    files = write_library(tmp_path)
    table = read_csv(files[1])
    write_csv(files[1], pd.concat([table[1:], table[1:2], table[1:2].assign(model="trial-00099")]))
    with pytest.raises(ArtefactError) as caught:
        select(tmp_path, "2x", files)
    message = str(caught.value)
    assert f"twice: {MODELS[1]}; without a cost: {MODELS[0]}; not predicted: trial-00099" in message
    assert "predictions.h5" in message and "costs.csv" in message


@pytest.mark.parametrize("cost", ["", "-1", "0", "fast", "inf"])
def test_a_cost_that_is_no_time_is_refused_by_name(tmp_path, cost):
    files = write_library(tmp_path, costs=[cost, "1", "1", "1", "1", "1"])
    with pytest.raises(ArtefactError, match="a cost is not a time") as caught:
        select(tmp_path, "2x", files)
    assert MODELS[0] in str(caught.value)


def test_budgets_of_different_libraries_are_not_merged(tmp_path, files):
    one = select(tmp_path, "1x", files)
    other = select(tmp_path, "4x", write_library(tmp_path / "library", MODELS[:3]))
    with pytest.raises(ArtefactError, match="two budgets' ensembles were not selected from the same library"):
        collect(tmp_path, [one, other])
    write_json(other, {"study": "digits-hyperband-s0"})
    with pytest.raises(ArtefactError, match="lacks keys"):
        collect(tmp_path, [one, other])
    assert not (tmp_path / "ensembles.csv").exists()


def test_a_needed_cost_that_is_missing_for_a_model_is_refused_by_name(tmp_path):
    files = write_library(tmp_path)
    table = read_csv(files[1])
    table["parameter_bytes"] = [400.0, None, 200.0, 300.0, 100.0, 200.0]
    write_csv(files[1], table)
    with pytest.raises(ArtefactError, match="a cost that the budget names is not a cost") as caught:
        select(tmp_path, "parameter_bytes=2x", files)
    assert MODELS[1] in str(caught.value) and "parameter_bytes" in str(caught.value)
    assert read_json(select(tmp_path, "2x", files))["members"]


def test_diverged_models_are_left_out_by_name(tmp_path, caplog):
    def spoil(split, cached):
        cached[0, 0] = np.nan
        cached[1] = cached[1, 0]
        return cached

    chosen = read_json(select(tmp_path, "2x", write_library(tmp_path, probabilities=spoil)))
    assert chosen["dropped"] == [
        {"model": MODELS[0], "reason": "probabilities that are not finite, first at sample 0"},
        {"model": MODELS[1], "reason": "the same probabilities for every sample"},
    ]
    assert not {MODELS[0], MODELS[1]} & set(chosen["members"])
    assert f"2 of {N_MODELS} models left out: {MODELS[0]}: probabilities that are not finite" in caplog.text


def test_the_command_tells_a_mistake_in_one_message(files, capsys):
    assert main(["select", str(files[0]), "--costs", str(files[1]), "--budget", "a lot"]) == 1
    printed = capsys.readouterr()
    assert "the budget is not a cost" in printed.err and not printed.out


@pytest.mark.parametrize("cores", ["0", "-3", "many"])
def test_the_command_wants_a_number_of_cores(files, capsys, cores):
    with pytest.raises(SystemExit):
        main(["select", str(files[0]), "--costs", str(files[1]), "--budget", "3x", f"--threads={cores}"])
    assert f"{cores} is no number of cores; expected 1 or more" in capsys.readouterr().err
