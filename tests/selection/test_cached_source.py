"""Samples that workers read from a cache: the right ones, in memory of their own, or one message."""

import gc
import os
import pickle

import h5py
import numpy as np
import pytest

from ensembleflow.errors import ArtefactError, SelectionError
from ensembleflow.library import FileSource, create_predictions, open_predictions
from ensembleflow.selection import read_candidates
from ensembleflow.selection.cache_checks import models_diverged_in_cache

N_MODELS, N_SAMPLES, N_CLASSES = 3, 1000, 4


def write(path, values, labels, **options):
    with create_predictions(
        path,
        study="study",
        dataset_checksum="0" * 64,
        class_names=list("abcd"),
        models=[f"m{i}" for i in range(N_MODELS)],
        weights_sha256=["0" * 64] * N_MODELS,
        labels=labels,
        **options,
    ) as writer:
        for split, arrays in values.items():
            for model, array in enumerate(arrays):
                writer.write(split, model, 0, array)


@pytest.fixture
def cache(tmp_path):
    rng = np.random.default_rng(0)
    labels = {split: rng.integers(0, N_CLASSES, N_SAMPLES) for split in ("valid", "test")}
    values = {split: rng.dirichlet(np.ones(N_CLASSES), (N_MODELS, N_SAMPLES)).astype(np.float32) for split in labels}
    path = tmp_path / "predictions.h5"
    write(path, values, labels, dtype="float16")
    return path


@pytest.mark.parametrize("every_class", [True, False])
@pytest.mark.parametrize(("start", "stop"), [(0, N_SAMPLES), (137, 138), (500, 1000)])
def test_a_part_of_the_samples_is_read_as_it_was_written(cache, every_class, start, stop):
    values, labels = FileSource(cache, "valid", every_class).read(start, stop)
    with h5py.File(cache) as file:
        stored = file["valid/probabilities" if every_class else "valid/true_class_probability"][:, start:stop]
        assert np.array_equal(labels, file["valid/labels"][start:stop])
    assert np.array_equal(values, stored)
    assert values.dtype == stored.dtype
    for array in (values, labels):
        assert array.flags.c_contiguous and array.flags.owndata and not isinstance(array, np.memmap)


def test_a_cache_that_is_cut_off_while_workers_read_it_ends_in_one_message(cache):
    source = FileSource(cache, "valid", every_class=False)
    assert source.n_samples == N_SAMPLES
    os.truncate(cache, 4096)
    with pytest.raises(ArtefactError, match="cut off"):
        source.read(0, N_SAMPLES)


def test_a_wrong_label_is_told_by_its_number_however_far_it_lies_in_the_cache(cache, monkeypatch):
    monkeypatch.setattr("ensembleflow.library.predictions._LABELS_AT_ONCE", 100)
    with h5py.File(cache, "r+") as file:
        file["valid/labels"][731] = N_CLASSES
    with open_predictions(cache) as predictions, pytest.raises(ArtefactError, match="valid, sample 731"):
        read_candidates(predictions, None, np.ones(N_MODELS), "cross_entropy")


@pytest.mark.parametrize("every_class", [True, False])
def test_a_compressed_cache_is_read_by_whoever_the_source_is_given_to(cache, every_class):
    expected, truth = FileSource(cache, "valid", every_class).read(0, N_SAMPLES)
    with h5py.File(cache, "r+") as file:
        for name in ("probabilities", "true_class_probability", "labels"):
            stored = file["valid"][name][...]
            del file["valid"][name]
            file["valid"].create_dataset(name, data=stored, chunks=True, compression="gzip")
    source = FileSource(cache, "valid", every_class)
    assert source.n_samples == N_SAMPLES
    for reader in (source, source.part(137, 500), pickle.loads(pickle.dumps(source))):
        values, labels = reader.read(137, 500)
        assert np.array_equal(values, expected[:, 137:500]) and values.dtype == expected.dtype
        assert np.array_equal(labels, truth[137:500])
    del source, reader
    gc.collect()
    with h5py.File(cache, "r+") as file:  # HDF5 refuses this while anyone has the file open to read
        assert file["valid/labels"].chunks


def stored_as_not_finite(cache, split, model, samples):
    """NaN in one class, and in the true class's array where it is that one; whoever wrote the cache has not seen it."""
    with h5py.File(cache, "r+") as file:
        for sample in samples:
            file[split]["probabilities"][model, sample, 0] = np.nan
            if file[split]["labels"][sample] == 0:
                file[split]["true_class_probability"][model, sample] = np.nan


def not_checked(cache):
    with h5py.File(cache, "r+") as file:
        for split in ("valid", "test"):
            del file[split]["first_not_finite"]


def test_a_cache_is_looked_through_only_if_that_was_not_done_as_it_was_written(cache, monkeypatch):
    monkeypatch.setattr("ensembleflow.selection.cache_checks._BYTES_AT_ONCE", 2000)
    stored_as_not_finite(cache, "valid", 1, [700, 431])
    stored_as_not_finite(cache, "test", 1, [3])
    stored_as_not_finite(cache, "test", 2, [999])
    with open_predictions(cache) as predictions:
        assert models_diverged_in_cache(predictions) == {}
    not_checked(cache)
    with open_predictions(cache) as predictions:
        assert models_diverged_in_cache(predictions) == {
            1: "probabilities that are not finite, first at sample 431",
            2: "test probabilities that are not finite, first at sample 999",
        }


@pytest.mark.parametrize(("every_class", "first"), [(True, "valid"), (False, "valid"), (True, "test"), (False, "test")])
def test_what_was_not_finite_when_it_was_written_is_known_without_reading(tmp_path, every_class, first):
    rng = np.random.default_rng(0)
    values = {split: rng.dirichlet(np.ones(N_CLASSES), (N_MODELS, 50)) for split in ("valid", "test")}
    labels = {split: rng.integers(1, N_CLASSES, 50) for split in values}
    values[first][1, 20:, 0] = np.nan  # never the true class
    path = tmp_path / "predictions.h5"
    write(path, values, labels, every_class=every_class)
    expected = {1: f"{'' if first == 'valid' else 'test '}probabilities that are not finite, first at sample 20"}
    with open_predictions(path) as predictions:
        assert models_diverged_in_cache(predictions) == expected
        candidates = read_candidates(predictions, None, np.ones(N_MODELS), "cross_entropy")
    assert candidates.dropped == expected and list(candidates.usable) == [0, 2]


def test_sums_are_judged_in_the_precision_in_which_they_came(tmp_path):
    rng = np.random.default_rng(0)
    values = {split: rng.dirichlet(np.ones(N_CLASSES), (N_MODELS, 50)) * 1.01 for split in ("valid", "test")}
    values = {split: np.minimum(array, 1).astype(np.float16) for split, array in values.items()}
    labels = {split: rng.integers(0, N_CLASSES, 50) for split in values}
    path = tmp_path / "predictions.h5"
    write(path, values, labels, dtype="float32")
    with open_predictions(path) as predictions:
        assert len(read_candidates(predictions, None, np.ones(N_MODELS), "brier").usable) == N_MODELS
    not_checked(path)
    with open_predictions(path) as predictions, pytest.raises(SelectionError, match="do not add up to 1"):
        read_candidates(predictions, None, np.ones(N_MODELS), "brier")
