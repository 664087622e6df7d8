"""The kept models' predictions, cached by their exported functions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ensembleflow.datasets import open_dataset
from ensembleflow.library import open_predictions


def test_the_cache_holds_what_the_exported_functions_answer(cached) -> None:
    library, _ = cached
    library.answers()
    with (
        open_predictions(library.folder / "predictions.h5") as predictions,
        open_dataset(library.folder / "digits.h5") as data,
    ):
        assert predictions.models == list(library.models), "in rank order, the kept ones only"
        assert (predictions.study, predictions.dataset_checksum) == ("digits-random-s0", data.checksum)
        for split in ("valid", "test"):
            assert len(data.labels(split)) > 256, "more than one batch"
            np.testing.assert_array_equal(predictions.probabilities(split), np.load(library.folder / f"{split}.npy"))
            np.testing.assert_array_equal(predictions.labels(split), data.labels(split))


def test_a_cache_made_again_is_the_same_byte_for_byte(cached) -> None:
    folder = cached[0].folder
    assert (folder / "again.h5").read_bytes() == (folder / "predictions.h5").read_bytes()


def test_half_precision_rounds_the_same_predictions_and_takes_half_the_space(cached) -> None:
    folder = cached[0].folder
    with open_predictions(folder / "predictions.h5") as whole, open_predictions(folder / "half.h5") as half:
        stored = half.probabilities("test")
        assert stored.dtype == np.float16
        np.testing.assert_allclose(stored, whole.probabilities("test"), rtol=2**-11, atol=6e-8)
        saved = sum(whole.probabilities(s).nbytes + whole.true_class_probability(s).nbytes for s in ("valid", "test"))
    sizes = [(folder / f"{name}.h5").stat().st_size for name in ("predictions", "half")]
    assert sizes[0] - sizes[1] == pytest.approx(saved / 2, rel=0.05)


def test_the_true_class_alone_is_cached_where_that_is_asked_for(cached) -> None:
    folder = cached[0].folder
    with open_predictions(folder / "predictions.h5") as whole, open_predictions(folder / "true_class.h5") as alone:
        assert not alone.has_every_class
        for split in ("valid", "test"):
            np.testing.assert_array_equal(alone.true_class_probability(split), whole.true_class_probability(split))


def test_each_cached_model_is_told(cached) -> None:
    told = [line for line in cached[1].splitlines() if line.startswith("predictions of kept models")]
    assert told == 4 * [f"predictions of kept models: {done}/3 cached" for done in (1, 2, 3)]


def test_other_weights_than_the_trials_are_refused_and_leave_nothing(cached) -> None:
    library, _ = cached
    table = pd.read_csv(library.folder / "models.csv")
    try:
        table.assign(weights_sha256="0" * 64).to_csv(library.folder / "models.csv", index=False)
        told = library.cache({"other": {}}, expected_status=1)
    finally:
        table.to_csv(library.folder / "models.csv", index=False)
    assert "a model's weights are not those that its trial recorded" in told
    assert not (library.folder / "other.h5").exists()
    assert not list(library.folder.glob(".*")), "nothing half-written"
