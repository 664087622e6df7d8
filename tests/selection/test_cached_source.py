"""Samples that workers read from a cache: the right ones, in memory of their own, or one message."""

import os

import h5py
import numpy as np
import pytest

from ensembleflow.errors import ArtefactError, SelectionError
from ensembleflow.library import FileSource, create_predictions, open_predictions
from ensembleflow.selection import read_candidates

N_MODELS, N_SAMPLES, N_CLASSES = 3, 1000, 4


@pytest.fixture
def cache(tmp_path):
    rng = np.random.default_rng(0)
    labels = {split: rng.integers(0, N_CLASSES, N_SAMPLES) for split in ("valid", "test")}
    path = tmp_path / "predictions.h5"
    with create_predictions(
        path,
        study="study",
        dataset_checksum="0" * 64,
        class_names=list("abcd"),
        models=[f"m{i}" for i in range(N_MODELS)],
        weights_sha256=["0" * 64] * N_MODELS,
        labels=labels,
        dtype="float16",
    ) as writer:
        for split in labels:
            for model in range(N_MODELS):
                writer.write(split, model, 0, rng.dirichlet(np.ones(N_CLASSES), N_SAMPLES).astype(np.float32))
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
    monkeypatch.setattr("ensembleflow.selection.candidates._LABELS_AT_ONCE", 100)
    with h5py.File(cache, "r+") as file:
        file["valid/labels"][731] = N_CLASSES
    with open_predictions(cache) as predictions, pytest.raises(SelectionError, match="sample 731"):
        read_candidates(predictions, None, np.ones(N_MODELS), "cross_entropy")
