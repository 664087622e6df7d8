"""One trial's training, interrupted where a kill could hardly be aimed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest
import tensorflow as tf

from ensembleflow.config import Config
from ensembleflow.datasets import Dataset, open_dataset
from ensembleflow.errors import ArtefactError, ConfigError, SearchError
from ensembleflow.models import Trainer, classification_metrics, load_model, model_function, weights_sha256
from ensembleflow.models.device_memory import is_out_of_memory
from ensembleflow.planning.search_plan import model_id
from ensembleflow.search.optuna_internals import bracket_of, rung_key, should_stop
from ensembleflow.search.record import TrialRecord, TrialStore
from ensembleflow.search.storage import open_storage
from ensembleflow.search.study import claim_slot, open_study
from ensembleflow.search.trial import DoesNotFitBesideOthersError, TrainingProcess, train_trial
from support.slot_study import CHECKSUM, search_plan
from support.small_search import search_config


@pytest.fixture(scope="module")
def data(digits: Path) -> Iterator[Dataset]:
    with open_dataset(digits) as opened:
        yield opened


def study(folder: Path, config: Config) -> optuna.Study:
    return open_study(open_storage(folder), search_plan(config), CHECKSUM)


def train(
    ours: optuna.Study,
    slot: int,
    config: Config,
    data: Dataset,
    folder: Path,
    check: Callable[[], None] = lambda: None,
    alone: bool = True,
) -> TrialRecord:
    store, process = TrialStore(folder / model_id(slot), check), TrainingProcess(time.time(), time.time(), alone=alone)
    return train_trial(ours, claim_slot(ours, slot, folder), store, config.search, 0, data, process)


def until(folder: Path, slot: int, reached: Callable[[dict], object]) -> Callable[[], None]:
    """A lease's check that fails from the moment on at which the slot's record has got so far."""
    path = folder / model_id(slot) / "record.json"

    def check() -> None:
        if path.exists() and reached(json.loads(path.read_text())):
            raise SearchError("another process took over")

    return check


def in_bracket(ours: optuna.Study, bracket: int, n_slots: int, folder: Path) -> list[int]:
    return [slot for slot in range(n_slots) if claim_slot(ours, slot, folder) and bracket_of(ours, slot) == bracket]


def test_a_trial_that_was_let_on_at_a_rung_is_not_judged_there_again_after_a_kill(
    data: Dataset, tmp_path: Path
) -> None:
    config = search_config(algorithm="hyperband", n_trials=40, max_epochs=3, reduction_factor=3)
    ours = study(tmp_path, config)
    slot, *rivals = in_bracket(ours, 0, 40, tmp_path)
    with pytest.raises(SearchError):
        train(ours, slot, config, data, tmp_path, until(tmp_path, slot, lambda record: record["continued"] == 1))
    for rival in rivals[:3]:  # all of them better
        claim_slot(ours, rival, tmp_path).report(0.0, step=1)
        should_stop(ours, rival, rung=0)
    resumed = train(study(tmp_path, config), slot, config, data, tmp_path)
    assert (resumed.state, len(resumed.epochs), len(resumed.runs)) == ("COMPLETE", 3, 2)


def test_a_resumed_trial_in_a_new_storage_competes_at_the_rungs_that_it_had_passed(
    data: Dataset, tmp_path: Path
) -> None:
    config = search_config(algorithm="hyperband", n_trials=40, max_epochs=5, reduction_factor=2)
    old = study(tmp_path / "old", config)
    slot = in_bracket(old, 0, 40, tmp_path)[0]
    with pytest.raises(SearchError):
        train(old, slot, config, data, tmp_path, until(tmp_path, slot, lambda record: record["continued"] == 2))
    new = study(tmp_path / "new", config)
    record = train(new, slot, config, data, tmp_path)
    told = new.get_trials()[slot]
    assert {key: value for key, value in told.system_attrs.items() if key.startswith("completed_rung")} == {
        rung_key(rung): record.epochs[epoch - 1].valid_error for rung, epoch in enumerate((1, 2, 4))
    }


@pytest.mark.parametrize(("n_epochs", "file"), [(0, "epoch-0001.npz"), (2, "model.keras")])
def test_who_lost_the_lease_writes_no_weights_either(n_epochs: int, file: str, data: Dataset, tmp_path: Path) -> None:
    config = search_config(algorithm="random", n_trials=1, trials_per_job=1, max_epochs=2)
    lost = until(tmp_path, 0, lambda record: len(record["epochs"]) == n_epochs)
    with pytest.raises(SearchError, match="took over"):
        train(study(tmp_path, config), 0, config, data, tmp_path, lost)
    assert not (tmp_path / model_id(0) / file).exists()


@pytest.mark.parametrize("average", ["power", "none"])
@pytest.mark.parametrize("end", ["COMPLETE", "PRUNED", "FAIL"])
def test_the_kept_network_is_the_one_that_was_validated_and_reported(
    end: str, average: str, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = search_config(algorithm="random", n_trials=1, trials_per_job=1, max_epochs=3, average=average)
    if end == "PRUNED":
        monkeypatch.setattr("ensembleflow.search.trial.rung_of", lambda epoch, *_: 0 if epoch == 2 else None)
        monkeypatch.setattr("ensembleflow.search.trial.should_stop", lambda *_: True)
    if end == "FAIL":
        train_epoch = Trainer.train_epoch

        def spoilt(self: Trainer, images: object, labels: object, seed: tuple[int, ...]) -> object:
            if seed[-1] == 3:
                kernel = self.model.trainable_variables[0]
                kernel.assign(kernel * float("nan"))
            return train_epoch(self, images, labels, seed)  # type: ignore[arg-type]

        monkeypatch.setattr(Trainer, "train_epoch", spoilt)
    ours = study(tmp_path, config)
    record = train(ours, 0, config, data, tmp_path)
    assert (record.state, len(record.epochs)) == (end, 3 if end == "COMPLETE" else 2)
    kept = load_model(tmp_path / model_id(0) / "model.keras")
    assert weights_sha256(kept) == record.weights_sha256
    found = classification_metrics(model_function(kept).predict(data.images("valid"), 256), data.labels("valid"))
    last = record.epochs[-1]
    assert found["error"] == last.valid_error == ours.get_trials()[0].intermediate_values[last.epoch]
    assert found["cross_entropy"] == pytest.approx(last.valid_cross_entropy, rel=1e-5)


def test_averaged_weights_are_others_than_the_last_updates(data: Dataset, tmp_path: Path) -> None:
    def sha256(average: str) -> str:
        config = search_config(algorithm="random", n_trials=1, trials_per_job=1, max_epochs=2, average=average)
        return train(study(tmp_path / average, config), 0, config, data, tmp_path / average).weights_sha256

    assert sha256("power") != sha256("none")


def test_images_count_by_the_datasets_weights(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = search_config(algorithm="random", n_trials=1, trials_per_job=1, max_epochs=1)

    def sha256(name: str) -> str:
        return train(study(tmp_path / name, config), 0, config, data, tmp_path / name).weights_sha256

    alike = sha256("alike")
    weights = np.linspace(0.1, 1.9, len(data.labels("train")), dtype=np.float32)
    monkeypatch.setattr(Dataset, "training_weights", lambda self: weights)
    assert sha256("weighted") != alike


def test_class_weights_of_a_class_that_the_dataset_does_not_have_are_refused_and_cost_no_trial(
    data: Dataset, tmp_path: Path
) -> None:
    config = search_config(algorithm="random", n_trials=1, trials_per_job=1, class_weights={"ten": 2})
    ours = study(tmp_path, config)
    with pytest.raises(ConfigError, match="classes that the dataset does not have"):
        train(ours, 0, config, data, tmp_path)
    assert TrialStore(tmp_path / model_id(0)).read().state == "RUNNING"  # type: ignore[union-attr]


def test_a_damaged_checkpoint_is_named_with_what_to_do(data: Dataset, tmp_path: Path) -> None:
    config = search_config(algorithm="random", n_trials=1, trials_per_job=1, max_epochs=2)
    with pytest.raises(SearchError):
        train(study(tmp_path, config), 0, config, data, tmp_path, until(tmp_path, 0, lambda record: record["epochs"]))
    checkpoint = tmp_path / model_id(0) / "epoch-0001.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(ArtefactError, match="checkpoint cannot be read") as told:
        train(study(tmp_path, config), 0, config, data, tmp_path)
    assert told.value.where == str(checkpoint)
    assert f"delete {checkpoint.parent}" in str(told.value.hint)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        tf.errors.ResourceExhaustedError(None, None, "failed to allocate memory"),
        tf.errors.InternalError(
            None,
            None,
            "failed initializing StreamExecutor for CUDA device ordinal 0: INTERNAL: failed call to "
            "cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY: out of memory; total memory reported: 25393692672",
        ),
        tf.errors.InternalError(None, None, "Failed to create cuBLAS handle: CUBLAS_STATUS_NOT_INITIALIZED"),
        tf.errors.InternalError(None, None, "BLAS operation using StreamExecutor without BLAS support"),
        tf.errors.InternalError(None, None, "Dst tensor is not initialized."),
        tf.errors.UnknownError(None, None, "CUDNN_STATUS_ALLOC_FAILED in tensorflow/stream_executor/cuda/cuda_dnn.cc"),
        tf.errors.UnknownError(None, None, "Could not create cudnn handle: CUDNN_STATUS_INTERNAL_ERROR"),
        tf.errors.FailedPreconditionError(None, None, "DNN library initialization failed. Look at the errors above."),
    ],
)
def test_what_a_full_device_says_is_known(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.InternalError(None, None, "ptxas exited with non-zero error code 65280"),
        tf.errors.UnknownError(None, None, "JIT compilation failed."),
        tf.errors.InvalidArgumentError(None, None, "Incompatible shapes: [64] vs. [32]"),
        ValueError("out of memory"),
    ],
)
def test_other_errors_are_not_taken_for_a_lack_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_a_full_gpu_fails_a_trial_that_has_it_alone_and_leaves_one_beside_others_for_later(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise tf.errors.InternalError(None, None, "CUDA_ERROR_OUT_OF_MEMORY: out of memory")

    monkeypatch.setattr("ensembleflow.search.trial.build_resnet", full)  # no test can fill a GPU everywhere
    config = search_config(algorithm="random", n_trials=1, trials_per_job=1)
    with pytest.raises(DoesNotFitBesideOthersError):
        train(study(tmp_path, config), 0, config, data, tmp_path, alone=False)
    record = TrialStore(tmp_path / model_id(0)).read()
    assert record is not None
    assert (record.state, record.attempts) == ("RUNNING", 0)
    record = train(study(tmp_path, config), 0, config, data, tmp_path)
    assert record.state == "FAIL"
    assert record.reason.startswith("out of memory in epoch 1: CUDA_ERROR_OUT_OF_MEMORY")
