"""Auto-Keras's image classifier until the processor time is used up; for an environment made of envs/autokeras.txt.

python peers/autokeras_timed.py DATASET.h5 RESULT.json '{"cpu_seconds": 600, "epochs": 30, "seed": 0}'

A trial that the time ends is left out, as its search has no result for it; the answers are those of the best complete
one by validation loss, fitted to the training images and not to those of validation as well.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")

import autokeras
import h5py
import keras
import keras_tuner
from judging import judge


class OutOfTime(keras_tuner.errors.FatalError):
    """The one kind of error that ends Keras Tuner's search at once."""


class Clock(keras.callbacks.Callback):
    def __init__(self, cpu_seconds: float) -> None:
        super().__init__()
        self.cpu_seconds = cpu_seconds

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if time.process_time() > self.cpu_seconds:
            raise OutOfTime(f"{self.cpu_seconds:.0f} s are used up")

    def __deepcopy__(self, memo: dict[int, Any]) -> Clock:
        return Clock(self.cpu_seconds)


def main(dataset_h5: str, result_json: str, options: dict[str, Any]) -> None:
    with h5py.File(dataset_h5, "r", locking=False) as file:
        data = {split: (file[split]["images"][...], file[split]["labels"][...]) for split in ("train", "valid", "test")}
    n_classes = int(data["train"][1].max()) + 1
    train, valid = (
        (data[split][0], keras.utils.to_categorical(data[split][1], n_classes)) for split in ("train", "valid")
    )
    keras.utils.set_random_seed(options["seed"])
    with tempfile.TemporaryDirectory() as scratch:
        search = autokeras.ImageClassifier(max_trials=1000, seed=options["seed"], directory=scratch, overwrite=True)
        try:
            search.fit(
                *train,
                validation_data=valid,
                epochs=options["epochs"],
                callbacks=[Clock(options["cpu_seconds"])],
                verbose=2,
            )
        except OutOfTime as end:
            print(end, flush=True)
        complete = [trial for trial in search.tuner.oracle.trials.values() if trial.status == "COMPLETED"]
        if not complete:
            answers: dict[str, Any] = {}
        else:
            network = search.tuner.get_best_models()[0]
            probabilities = network.predict(data["test"][0], batch_size=500, verbose=0)
            answers = {"Auto-Keras": {"networks": 1, **judge(probabilities, data["test"][1].astype("int64"))}}
    print(f"{len(complete)} complete trials")
    Path(result_json).write_text(json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
