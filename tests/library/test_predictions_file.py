"""A predictions cache written batch by batch."""

from __future__ import annotations

import itertools
import math
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.errors import ArtefactError, LibraryError
from ensembleflow.library import FileSource, open_predictions
from support.probability_files import MODELS, N_CLASSES, N_SAMPLES, labels, open_writer, probabilities, write

ORDER = list(itertools.product(N_SAMPLES, range(len(MODELS))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predictions")


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 12),
    order=st.permutations(ORDER),
    dtype=st.sampled_from(["float32", "float16"]),
    every_class=st.booleans(),
    given_dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_any_batches_in_any_order_make_the_same_file(folder, batch, order, dtype, every_class, given_dtype) -> None:
    values = probabilities(dtype=given_dtype)
    write(folder / "one.h5", values, dtype=dtype, every_class=every_class)
    write(folder / "other.h5", values, order, batch, dtype=dtype, every_class=every_class)
    assert (folder / "one.h5").read_bytes() == (folder / "other.h5").read_bytes()


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 12),
    dtype=st.sampled_from(["float32", "float16"]),
    every_class=st.booleans(),
    broken=st.sets(st.tuples(st.sampled_from(ORDER), st.integers(0, 6), st.integers(0, N_CLASSES - 1)), max_size=6),
)
def test_each_models_first_sample_that_is_no_number_is_recorded(folder, batch, dtype, every_class, broken) -> None:
    values = probabilities()
    for (split, model), sample, k in broken:
        values[split][model, sample, k] = np.nan
    write(folder / "broken.h5", values, batch=batch, dtype=dtype, every_class=every_class)
    with open_predictions(folder / "broken.h5") as predictions:
        for split in N_SAMPLES:
            expected = [
                min((sample for place, sample, _ in broken if place == (split, model)), default=-1)
                for model in range(len(MODELS))
            ]
            assert list(predictions.first_not_finite(split)) == expected


def test_a_cache_that_was_not_checked_as_it_was_written_is_read_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "predictions.h5"
    write(path, probabilities())
    with h5py.File(path, "r+") as file:
        for split in N_SAMPLES:
            del file[split]["first_not_finite"]
    with open_predictions(path) as predictions:
        assert [predictions.first_not_finite(split) for split in N_SAMPLES] == [None, None]
        assert predictions.probabilities("test").shape == (len(MODELS), N_SAMPLES["test"], N_CLASSES)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_read_is_what_was_written(tmp_path: Path, dtype: str) -> None:
    path, values = tmp_path / "predictions.h5", probabilities()
    write(path, values, dtype=dtype)
    with open_predictions(path) as predictions:
        assert (predictions.study, predictions.dataset_checksum) == ("digits-random-s0", "abc")
        assert (predictions.models, predictions.has_every_class) == (list(MODELS), True)
        assert predictions.class_names == [f"class {index}" for index in range(N_CLASSES)]
        for split in N_SAMPLES:
            truth = labels()[split]
            every, of_truth = predictions.probabilities(split), predictions.true_class_probability(split)
            assert isinstance(every, np.memmap) and isinstance(of_truth, np.memmap)
            assert every.dtype == of_truth.dtype == dtype
            np.testing.assert_allclose(every, values[split], rtol=0 if dtype == "float32" else 2**-11, atol=6e-8)
            np.testing.assert_array_equal(of_truth, every[:, np.arange(len(truth)), truth])
            np.testing.assert_array_equal(predictions.labels(split), truth)
    with h5py.File(path) as file:
        assert (file.attrs["schema"], file.attrs["schema_version"]) == ("predictions", 1)
        assert file.attrs["dtype"] == dtype
        assert list(file.attrs["weights_sha256"]) == [f"{index:064}" for index in range(len(MODELS))]


def test_without_every_class_only_the_true_class_is_stored(tmp_path: Path) -> None:
    path, values = tmp_path / "predictions.h5", probabilities()
    write(path, values, every_class=False)
    with h5py.File(path) as file:
        assert set(file["valid"]) == {"labels", "true_class_probability", "first_not_finite"}
    with open_predictions(path) as predictions:
        assert not predictions.has_every_class
        expected = values["test"][:, np.arange(N_SAMPLES["test"]), labels()["test"]]
        np.testing.assert_array_equal(predictions.true_class_probability("test"), expected)
        with pytest.raises(ArtefactError, match="true class's probabilities only") as caught:
            predictions.probabilities("test")
        assert "library.predictions.every_class: true" in str(caught.value) and str(path) in str(caught.value)
    source = pickle.loads(pickle.dumps(FileSource(path, "test", every_class=False)))
    read, truth = source.read(2, 5)
    np.testing.assert_array_equal(read, expected[:, 2:5])
    np.testing.assert_array_equal(truth, labels()["test"][2:5])
    with pytest.raises(ArtefactError, match="every_class"):
        FileSource(path, "test", every_class=True).read(0, 1)


def test_a_probability_above_0_is_stored_above_0(tmp_path: Path) -> None:
    values = probabilities()
    values["valid"][1, 3] = [1, 1e-30, 0, 1e-9]
    write(tmp_path / "predictions.h5", values, dtype="float16")
    with open_predictions(tmp_path / "predictions.h5") as predictions:
        stored = predictions.probabilities("valid")[1, 3]
        assert stored[0] == 1 and stored[2] == 0
        assert 0 < stored[1] == stored[3] < 1e-7


def test_a_diverged_models_predictions_are_stored(tmp_path: Path) -> None:
    values = probabilities()
    values["valid"][1] = np.nan
    write(tmp_path / "predictions.h5", values, dtype="float16")
    with open_predictions(tmp_path / "predictions.h5") as predictions:
        assert np.isnan(predictions.probabilities("valid")[1]).all()
        assert np.isfinite(predictions.probabilities("valid")[[0, 2]]).all()


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ([4.2, -1.3, 0.1, 2.0], "outside 0 … 1"),
        ([1.4, -0.2, -0.1, -0.1], "outside 0 … 1"),
        ([math.inf, 0, 0, 0], "outside 0 … 1"),
        ([0.9, 0.8, 0.1, 0.6], "do not add up to 1"),
        ([0.4, 0.5, 0.1, 0.003], "do not add up to 1"),
        ([0, 0, 0, 0], "do not add up to 1"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_no_distribution_is_refused_with_model_split_and_sample(
    tmp_path: Path, row: list[float], what: str, dtype: str
) -> None:
    path, values = tmp_path / "predictions.h5", probabilities()
    write(path, values)
    before = path.read_bytes()
    values["test"][2, 5] = row
    with pytest.raises(LibraryError, match=what) as caught:
        write(path, values, dtype=dtype)
    assert "model trial-00005, test, sample 5" in str(caught.value)
    assert path.read_bytes() == before, "the file before is left as it was"
    assert list(tmp_path.iterdir()) == [path]


def test_probabilities_that_come_in_half_precision_may_be_rounded_more(tmp_path: Path) -> None:
    values = probabilities(dtype=np.float16)
    values["test"][2, 5] = [0.4, 0.5, 0.1, 0.01]
    write(tmp_path / "predictions.h5", values)
    with pytest.raises(LibraryError, match="do not add up"):
        write(tmp_path / "predictions.h5", {split: array.astype(np.float32) for split, array in values.items()})


def test_samples_that_were_not_written_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="lacks predictions") as caught:
        write(tmp_path / "predictions.h5", probabilities(), ORDER[:-1])
    assert "model trial-00005, test" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "batch", "what"),
    [
        (1, np.full((3, N_CLASSES), 0.25), "out of place"),
        (0, np.full((12, N_CLASSES), 0.25), "out of place"),
        (0, np.full((3, N_CLASSES + 1), 0.2), "another shape"),
        (0, np.full(N_CLASSES, 0.25), "another shape"),
    ],
)
def test_a_batch_of_another_shape_or_place_is_refused(tmp_path: Path, place: int, batch: np.ndarray, what: str) -> None:
    with pytest.raises(LibraryError, match=what), open_writer(tmp_path / "predictions.h5") as writer:
        writer.write("valid", 0, place, batch)
    with pytest.raises(LibraryError, match="out of place"), open_writer(tmp_path / "predictions.h5") as writer:
        for _ in range(2):
            writer.write("valid", 0, 0, probabilities()["valid"][0, :4])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", ["trial-00003", "u net", ""])
def test_ids_that_a_table_could_not_tell_apart_are_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(LibraryError, match="cannot be told apart") as caught:
        open_writer(tmp_path / "predictions.h5", models=["trial-00003", wrong, "trial-00005"]).__enter__()
    assert wrong in str(caught.value.found)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [[0, 4], [-1, 0], [0.0, 1.0], [[0], [1]]])
def test_labels_that_are_no_classes_are_refused(tmp_path: Path, wrong: list) -> None:
    given = {**labels(), "test": np.array(wrong)}
    with pytest.raises(LibraryError, match="label") as caught:
        open_writer(tmp_path / "predictions.h5", labels=given).__enter__()
    assert "test" in str(caught.value)
    assert not list(tmp_path.iterdir())
