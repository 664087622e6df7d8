"""Wrong files given to the selection: each is told in one message that names it."""

import h5py
import numpy as np
import pandas as pd
import pytest

from ensembleflow.cli import main
from ensembleflow.config import SelectionConfig
from ensembleflow.errors import ArtefactError, SelectionError
from ensembleflow.io import read_csv, read_json, write_csv, write_json
from ensembleflow.models.metrics import METRICS
from ensembleflow.selection import smobf
from support.library_files import MODELS, N_CLASSES, N_MODELS, collect, select, write_library

_RNG = np.random.default_rng(0)
LABELS = {split: _RNG.integers(0, N_CLASSES, n) for split, n in (("valid", 50), ("test", 40))}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_library(tmp_path_factory.mktemp("library"))


def changed(files, change):
    """The same files, after a change to the open cache."""
    with h5py.File(files[0], "r+") as file:
        change(file)
    return files


def replaced(group, name, values, **storage):
    del group[name]
    group.create_dataset(name, data=values, **storage)


def run(files, *options):
    return main(["select", str(files[0]), "--costs", str(files[1]), "--budget", "3x", *options])


def without_every_class(file):
    for split in ("valid", "test"):
        del file[split]["probabilities"]


def in_split(wanted, model, sample, spoil):
    """Spoils one model's sample, or all of its samples, in one split."""

    def change(split, cached):
        if split == wanted:
            cached[model, sample] = spoil(cached[model, sample])
        return cached

    return change


NEGATIVE = [-0.2, 0.6, 0.3, 0.3]


@pytest.mark.parametrize("loss", ["cross_entropy", "brier"])
@pytest.mark.parametrize(
    ("spoil", "message", "where"),
    [
        (in_split("valid", 2, 7, lambda _: NEGATIVE), "is outside 0 … 1", f"{MODELS[2]}, valid, sample 7"),
        (in_split("test", 2, 9, lambda _: NEGATIVE), "is outside 0 … 1", f"{MODELS[2]}, test, sample 9"),
        (in_split("valid", 3, 5, lambda row: 0.9 * row), "do not add up to 1", f"{MODELS[3]}, valid, sample 5"),
        (in_split("test", 3, slice(None), lambda rows: rows / 2), "do not add up to 1", f"{MODELS[3]}, test, sample 0"),
        (lambda split, cached: cached * np.inf, "no model has usable predictions", f"{MODELS[0]}: probabilities that"),
        (lambda split, cached: cached[:0], "no model has usable predictions", "an empty library"),
    ],
)
def test_the_command_names_what_is_wrong_with_the_predictions(tmp_path, capsys, spoil, message, where, loss):
    models = [] if where == "an empty library" else MODELS
    files = write_library(tmp_path / "library", models, probabilities=spoil)
    assert run(files, "--loss", loss) == 1
    printed = capsys.readouterr()
    assert message in printed.err and where in printed.err and not printed.out


@pytest.mark.parametrize("split", ["valid", "test"])
def test_true_class_probabilities_that_are_not_those_of_the_labels_are_told(tmp_path, capsys, split):
    def mix_up(file):
        stored = file[split]["true_class_probability"]
        stored[1, 20:] = stored[1, 20:][::-1]

    assert run(changed(write_library(tmp_path), mix_up)) == 1
    printed = capsys.readouterr()
    assert "a true-class probability is not that of the sample's label" in printed.err and not printed.out
    assert f"{MODELS[1]}, {split}, sample 20" in printed.err


def test_true_class_probabilities_may_be_rounded_to_another_precision(tmp_path):
    def round_off(file):
        for split in ("valid", "test"):
            stored = file[split]["true_class_probability"][...]
            stored[0, :3] = 1e-7
            every = file[split]["probabilities"]
            truth = file[split]["labels"][:3]
            every[0, :3] = np.where(np.arange(N_CLASSES) == truth[:, None], 1e-7, 1 / (N_CLASSES - 1))
            replaced(file[split], "true_class_probability", stored.astype(np.float16))

    assert run(changed(write_library(tmp_path), round_off)) == 0


@pytest.mark.parametrize(
    ("split", "sample", "label"), [("valid", 3, N_CLASSES), ("test", 5, N_CLASSES), ("test", 39, -1)]
)
@pytest.mark.parametrize("loss", ["cross_entropy", "error"])
def test_the_command_names_a_label_that_is_no_class(tmp_path, capsys, split, sample, label, loss):
    def mislabel(file):
        file[split]["labels"][sample] = label

    files = changed(write_library(tmp_path), mislabel)
    assert run(files, "--loss", loss) == 1
    printed = capsys.readouterr().err
    assert "a label is not a class" in printed and f"{files[0]}: {split}, sample {sample}" in printed


@pytest.mark.parametrize(
    ("labels", "sample"), [(lambda truth: [b"abcd"[k : k + 1] for k in truth], 0), (lambda truth: truth + 0.5, 0)]
)
def test_cached_labels_that_are_no_integers_are_told(tmp_path, capsys, labels, sample):
    def relabel(file):
        replaced(file["valid"], "labels", labels(file["valid"]["labels"][...]))

    assert run(changed(write_library(tmp_path), relabel)) == 1
    printed = capsys.readouterr().err
    assert "a label is not a class" in printed and f"valid, sample {sample}" in printed


@pytest.mark.parametrize("labels", [list("abcd"), np.array(["a", 1, None, 2], dtype=object), [0.5, 1, 1, 0]])
def test_labels_that_are_no_integers_are_told(labels):
    probabilities = np.full((2, 4, 2), 0.5)
    with pytest.raises(SelectionError, match="a label is not a class"):
        smobf(probabilities, labels, [1.0, 1.0], budget=2)


@pytest.mark.parametrize(
    ("change", "where", "found"),
    [
        (
            lambda f: replaced(f["valid"], "labels", f["valid"]["labels"][:40]),
            "valid/true_class_probability",
            "(6, 50)",
        ),
        (lambda f: replaced(f["test"], "labels", np.zeros(80, int)), "test/true_class_probability", "(6, 40)"),
        (lambda f: replaced(f["test"], "probabilities", f["test"]["probabilities"][:3]), "test/probabilities", "(3, 4"),
        (lambda f: replaced(f, "models", f["models"][:5]), "valid/true_class_probability", "(6, 50)"),
        (lambda f: f.attrs.__setitem__("class_names", ["a", "b", "c"]), "valid/probabilities", "(6, 50, 4)"),
        (lambda f: f["models"].__setitem__(1, MODELS[0]), "predictions.h5", f"twice: {MODELS[0]}"),
        (lambda f: f["models"].__setitem__(1, "u net"), "predictions.h5", "with blanks: 'u net'"),
        (lambda f: f["models"].__setitem__(1, ""), "predictions.h5", "blank, or with blanks: ''"),
        (lambda f: (f.pop("test"), f.create_dataset("test", data=[1, 2])), "predictions.h5", "compound types"),
        (lambda f: replaced(f["test"], "true_class_probability", np.zeros((6, 40), int)), "test/true_class", "int64"),
        (lambda f: f["test"].pop("true_class_probability"), "predictions.h5", "true_class_probability"),
    ],
)
def test_the_command_names_arrays_that_do_not_belong_together(tmp_path, capsys, change, where, found):
    assert run(changed(write_library(tmp_path), change)) == 1
    printed = capsys.readouterr()
    assert where in printed.err and found in printed.err and "predictions cache" in printed.err and not printed.out


def test_a_validation_split_without_samples_is_told(tmp_path, capsys):
    def empty(file):
        for name in ("probabilities", "true_class_probability", "labels"):
            stored = file["valid"][name][...]
            replaced(file["valid"], name, stored[:0] if name == "labels" else stored[:, :0])

    assert run(changed(write_library(tmp_path), empty)) == 1
    assert "validation split has no samples" in capsys.readouterr().err


@pytest.mark.parametrize("every_class", [True, False])
def test_a_test_split_without_samples_has_no_metrics(tmp_path, every_class):
    def empty(file):
        for name in ("probabilities", "true_class_probability", "labels"):
            stored = file["test"][name][...]
            replaced(file["test"], name, stored[:0] if name == "labels" else stored[:, :0])
        if not every_class:
            without_every_class(file)

    files = write_library(tmp_path)
    whole = read_json(select(tmp_path, "3x", files))
    chosen = read_json(select(tmp_path, "3x", changed(files, empty)))
    assert chosen["members"] == whole["members"] and set(chosen["test"].values()) == {None}


@pytest.mark.parametrize("loss", METRICS)
def test_a_chunked_and_compressed_cache_selects_the_same(tmp_path, capsys, loss):
    def compress(file):
        for split in ("valid", "test"):
            for name in ("probabilities", "true_class_probability", "labels"):
                replaced(file[split], name, file[split][name][...], chunks=True, compression="gzip")

    files = write_library(tmp_path)
    options = ("--loss", loss, "--threads", "2", "--json")
    printed = []
    for change in (lambda file: None, compress):
        assert run(changed(files, change), *options) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


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


def test_costs_without_an_id_are_refused_beside_those_of_other_models(tmp_path):
    files = write_library(tmp_path)
    table = read_csv(files[1])
    write_csv(files[1], pd.concat([table.assign(model=["", *MODELS[1:]]), table[:1].assign(model="trial-00099")]))
    with pytest.raises(ArtefactError, match="not about the same models") as caught:
        select(tmp_path, "2x", files)
    assert f"without a cost: {MODELS[0]}; not predicted: a row without an id, trial-00099" in str(caught.value)


def test_ids_that_look_like_nothing_or_like_numbers_are_ids(tmp_path):
    files = write_library(tmp_path)
    before = read_json(select(tmp_path, "3x", files))["members"]
    names = dict(zip(MODELS, ("NA", "null", "nan", "7", "1e3", "None"), strict=True))
    renamed = changed(files, lambda file: replaced(file, "models", list(names.values()), dtype=h5py.string_dtype()))
    write_csv(files[1], read_csv(files[1]).assign(model=list(names.values())))
    assert sorted(read_json(select(tmp_path, "3x", renamed))["members"]) == sorted(names[model] for model in before)


@pytest.mark.parametrize(
    ("cost", "found"), [("", "nothing"), ("-1", "-1"), ("0", "0"), ("fast", "fast"), ("inf", "inf"), ("NA", "NA")]
)
def test_a_cost_that_is_no_time_is_refused_by_name(tmp_path, cost, found):
    files = write_library(tmp_path, costs=[cost, "1", "1", "1", "1", "1"])
    with pytest.raises(ArtefactError, match="a cost is not a time") as caught:
        select(tmp_path, "2x", files)
    assert MODELS[0] in str(caught.value) and str(caught.value.found).startswith(found)


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


def test_how_far_the_measurement_was_disturbed_is_no_cost(tmp_path):
    files = write_library(tmp_path)
    table = read_csv(files[1])
    table["other_work_percent"] = [3.0, 2.0, 1.0, 5.0, 4.0, 2.0]
    write_csv(files[1], table)
    with pytest.raises(SelectionError, match="other_work_percent"):
        select(tmp_path, "other_work_percent=2x", files)
    assert "other_work_percent" not in read_json(select(tmp_path, "2x", files))["costs"]


@pytest.mark.parametrize("loss", ["cross_entropy", "brier"])
def test_diverged_models_are_left_out_by_name(tmp_path, caplog, loss):
    def spoil(split, cached):
        if split == "valid":
            cached[0, 0] = np.nan
            cached[1] = cached[1, 0]
            cached[3, 8, (LABELS["valid"][8] + 1) % N_CLASSES] = np.nan
        cached[4, 6] = np.nan
        if split == "test":
            cached[2, 5] = np.nan
        return cached

    files = write_library(tmp_path, probabilities=spoil)
    chosen = read_json(select(tmp_path, "2x", files, SelectionConfig(loss=loss)))
    assert chosen["dropped"] == [
        {"model": MODELS[0], "reason": "probabilities that are not finite, first at sample 0"},
        {"model": MODELS[1], "reason": "the same probabilities for every sample"},
        {"model": MODELS[2], "reason": "test probabilities that are not finite, first at sample 5"},
        {"model": MODELS[3], "reason": "probabilities that are not finite, first at sample 8"},
        {"model": MODELS[4], "reason": "probabilities that are not finite, first at sample 6"},
    ]
    assert chosen["members"] == [MODELS[5]]
    assert f"5 of {N_MODELS} models left out: {MODELS[0]}: probabilities that are not finite" in caplog.text


def test_a_model_that_is_always_sure_and_right_is_chosen_whatever_is_cached(tmp_path):
    def sure(split, cached):
        cached[0] = np.eye(N_CLASSES)[LABELS[split]]
        return cached

    files = write_library(tmp_path, probabilities=sure, costs=[1.0] * N_MODELS)
    for change in (lambda file: None, without_every_class):
        chosen = read_json(select(tmp_path, "1", changed(files, change)))
        assert (chosen["members"], chosen["dropped"]) == ([MODELS[0]], [])
    every = np.stack([np.eye(2)[[0, 1, 1]], np.full((3, 2), 0.5), np.eye(2)[[1, 1, 1]] * 0.2 + 0.4])
    result = smobf(every, [0, 1, 1], [1.0, 1.0, 1.0], budget=1)
    assert result.members == [0] and list(result.dropped) == [1, 2]


def test_broken_test_predictions_are_told_where_only_the_true_class_is_cached(tmp_path, capsys):
    def spoil(file):
        without_every_class(file)
        file["test"]["true_class_probability"][2, 4] = np.nan

    files = changed(write_library(tmp_path), spoil)
    assert read_json(select(tmp_path, "2x", files))["dropped"] == [
        {"model": MODELS[2], "reason": "test probabilities that are not finite, first at sample 4"}
    ]

    def worse(file):
        file["test"]["true_class_probability"][3, 6] = 1.5

    assert run(changed(files, worse)) == 1
    assert f"{MODELS[3]}, test, sample 6" in capsys.readouterr().err


def test_constant_models_are_left_out_unless_all_of_many_labels_are_the_same():
    n_samples = 70_000
    right = np.random.default_rng(0).uniform(0.5, 0.9, n_samples)
    probabilities = np.stack([np.tile([0.9, 0.1], (n_samples, 1)), np.stack([right, 1 - right], axis=1)])
    labels = np.zeros(n_samples, dtype=int)
    assert smobf(probabilities, labels, [1.0, 1.0], budget=1).dropped == {}
    labels[-1] = 1
    assert list(smobf(probabilities, labels, [1.0, 1.0], budget=1).dropped) == [0]


def test_the_command_tells_a_mistake_in_one_message(files, capsys):
    assert main(["select", str(files[0]), "--costs", str(files[1]), "--budget", "a lot"]) == 1
    printed = capsys.readouterr()
    assert "the budget is not a cost" in printed.err and not printed.out


@pytest.mark.parametrize("cores", ["0", "-3", "many"])
def test_the_command_wants_a_number_of_cores(files, capsys, cores):
    with pytest.raises(SystemExit):
        main(["select", str(files[0]), "--costs", str(files[1]), "--budget", "3x", f"--threads={cores}"])
    assert f"{cores} is not a whole number of 1 or more" in capsys.readouterr().err
