"""The metrics of many ensembles at once, held against those of each alone."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.library import create_predictions, open_predictions
from ensembleflow.models.metrics import ALL_METRICS, calibration_error, classification_metrics
from ensembleflow.selection.combiners import COMBINERS, MajorityVote
from ensembleflow.selection.ensemble_metrics import Ensemble, ensemble_metrics

N_MODELS, N_CLASSES = 5, 3
# More than two chunks, the last of them short.
SPLITS = {"valid": 12_007, "test": 40}


def probabilities_of(split, dtype):
    rng = np.random.default_rng([0, SPLITS[split]])
    return rng.dirichlet(np.ones(N_CLASSES), (N_MODELS, SPLITS[split])).astype(dtype)


def labels_of(split):
    return np.random.default_rng([1, SPLITS[split]]).integers(0, N_CLASSES, SPLITS[split])


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """A cache a type of storage, and one with the true class's probabilities alone."""
    folder, paths = tmp_path_factory.mktemp("caches"), {}
    for name, dtype, every_class in (
        ("float16", "float16", True),
        ("float32", "float32", True),
        ("true", "float32", False),
    ):
        paths[name] = folder / f"{name}.h5"
        with create_predictions(
            paths[name],
            study="digits-random-s0",
            dataset_checksum="0" * 64,
            class_names=list("abc"),
            models=[f"trial-{slot:05d}" for slot in range(N_MODELS)],
            weights_sha256=["0"] * N_MODELS,
            labels={split: labels_of(split) for split in SPLITS},
            dtype=dtype,
            every_class=every_class,
        ) as writer:
            for split in SPLITS:
                for model in range(N_MODELS):
                    writer.write(split, model, 0, probabilities_of(split, dtype)[model])
    return paths


def chunked(path, copy):
    """The cache as another tool would write it: compressed, in chunks."""
    with h5py.File(path) as source, h5py.File(copy, "w") as target:
        target.attrs.update(source.attrs)
        source.copy("models", target)
        for split in SPLITS:
            group = target.create_group(split)
            for name, stored in source[split].items():
                group.create_dataset(name, data=stored[...], chunks=True, compression="gzip", compression_opts=1)
    return copy


@st.composite
def many_ensembles(draw):
    """Ensembles of every combiner, of which some begin alike."""
    members = draw(st.permutations(range(N_MODELS)))
    found = []
    for _ in range(draw(st.integers(1, 6))):
        combiner = draw(st.sampled_from(list(COMBINERS.values())))
        order = draw(st.one_of(st.just(members), st.permutations(range(N_MODELS))))
        times = draw(st.integers(1, 2)) if combiner is not MajorityVote else 1
        size = draw(st.integers(1, N_MODELS))
        found.append(
            Ensemble(tuple((member, times if place == 0 else 1) for place, member in enumerate(order[:size])), combiner)
        )
    return found


def alone(ensemble, probabilities):
    together = ensemble.combiner(probabilities.shape[1:])
    for member, times in ensemble.members:
        together.add(probabilities[member].astype(np.float64), times)
    return together.probabilities()


@settings(deadline=None, max_examples=15)
@given(ensembles=many_ensembles(), dtype=st.sampled_from(["float16", "float32"]), split=st.sampled_from(list(SPLITS)))
def test_each_has_the_metrics_of_its_own_prediction(caches, ensembles, dtype, split):
    with open_predictions(caches[dtype]) as predictions:
        found = ensemble_metrics(predictions, split, ensembles, ALL_METRICS)
        assert found == ensemble_metrics(predictions, split, ensembles, ALL_METRICS, n_threads=3)
    assert set(found) == set(ensembles)
    labels, probabilities = labels_of(split), probabilities_of(split, dtype)
    for ensemble, metrics in found.items():
        matrix = alone(ensemble, probabilities)
        expected = {**classification_metrics(matrix, labels), "calibration_error": calibration_error(matrix, labels)}
        assert metrics == pytest.approx(expected, abs=1e-12)


def test_the_digits_do_not_depend_on_the_other_ensembles(caches):
    paths = [Ensemble.average([3, 0, 4, 1][:size]) for size in (1, 2, 3, 4)]
    others = [Ensemble.average([3, 0, 2]), Ensemble.average([0, 3]), Ensemble(((3, 1), (0, 1)), MajorityVote)]
    with open_predictions(caches["float32"]) as predictions:
        together = ensemble_metrics(predictions, "valid", [*paths, *others], ALL_METRICS)
        for ensemble in paths:
            assert ensemble_metrics(predictions, "valid", [ensemble], ALL_METRICS)[ensemble] == together[ensemble]


def test_of_true_classes_alone_the_cross_entropy_is_known(caches):
    ensemble = Ensemble.average([1, 2])
    found = []
    for name in ("true", "float32"):
        with open_predictions(caches[name]) as predictions:
            found.append(ensemble_metrics(predictions, "valid", [ensemble], ALL_METRICS)[ensemble])
    assert found[0].pop("cross_entropy") == pytest.approx(found[1]["cross_entropy"], abs=1e-12)
    assert all(np.isnan(value) for value in found[0].values()) and set(found[0]) < set(found[1])


def test_a_compressed_cache_gives_the_same_digits(caches, tmp_path):
    ensembles = [Ensemble.average([1, 2]), Ensemble.average([1, 2, 0]), Ensemble(((4, 1), (0, 1)), MajorityVote)]
    found = []
    for path in (caches["float32"], chunked(caches["float32"], tmp_path / "chunked.h5")):
        with open_predictions(path) as predictions:
            found.append(ensemble_metrics(predictions, "valid", ensembles, ALL_METRICS, n_threads=2))
    assert found[0] == found[1]


def test_a_member_with_a_probability_that_is_not_finite_gives_no_metric_to_its_ensembles(caches, tmp_path):
    spoilt = chunked(caches["float32"], tmp_path / "spoilt.h5")
    with h5py.File(spoilt, "a") as file:
        file["valid"]["probabilities"][2, 6000, 0] = np.nan
    before, after = Ensemble.average([0]), Ensemble.average([0, 2])
    with open_predictions(spoilt) as predictions:
        found = ensemble_metrics(predictions, "valid", [before, after], ALL_METRICS)
    assert all(np.isfinite(value) for value in found[before].values())
    assert all(np.isnan(value) for value in found[after].values())
