"""Auto-Keras on a prepared dataset: a program of its own, for an environment that has Auto-Keras and not this package.

`python autokeras_process.py DATASET.h5 RESULT.json OPTIONS`, where OPTIONS is JSON: `max_trials`, `epochs`, `seed` and
`threads`. The best model is the one of lowest validation loss, fitted to the training images and not to those of
validation as well, as everywhere in the comparison.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main(dataset_h5: str, result_json: str, options: dict[str, int]) -> None:
    """Search, and write version, settings, seconds, networks' parameters and errors (shares) as JSON."""
    threads = options["threads"]
    os.environ.update(TF_NUM_INTRAOP_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
    try:
        import autokeras  # type: ignore[import-not-found]
        import h5py
        import keras
    except ImportError as error:
        sys.exit(
            f"Auto-Keras cannot be imported by {sys.executable}: {error}\n"
            f"  hint:     {_command()}, or make an environment with\n"
            "            `pip install -r envs/autokeras.txt` and name its python in paper.autokeras_python"
        )
    with h5py.File(dataset_h5, "r", locking=False) as file:
        splits = ("train", "valid", "test")
        data = {split: (file[split]["images"][...], file[split]["labels"][...]) for split in splits}
    n_classes = int(data["train"][1].max()) + 1
    keras.utils.set_random_seed(options["seed"])
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        search = autokeras.ImageClassifier(
            max_trials=options["max_trials"], seed=options["seed"], directory=scratch, overwrite=True
        )
        # Its 2.0.0 cannot read its own pre- and postprocessors back with a recent Keras: classes as it would encode
        # them, and the network's own answers, do without.
        train, valid = ((data[split][0], keras.utils.to_categorical(data[split][1], n_classes)) for split in splits[:2])
        search.fit(*train, validation_data=valid, epochs=options["epochs"], verbose=2)
        seconds = time.monotonic() - started_at
        network = search.export_model()
        errors = {f"{split}_error": _error(network, *data[split]) for split in ("valid", "test")}
        n_parameters = int(network.count_params())
    result = {"version": autokeras.__version__, **options, "devices": threads, "seconds": seconds}
    aside = Path(f"{result_json}.part")
    aside.write_text(json.dumps({**result, "n_parameters": n_parameters, **errors}, indent=1) + "\n", encoding="utf-8")
    aside.replace(result_json)


def _command() -> str:
    how = ("--software-deployment-method", "conda")
    try:
        from ensembleflow.io import snakemake_command
    except ImportError:
        return " ".join(["snakemake", *how, "run_autokeras"])
    return snakemake_command("run_autokeras", how=how)


def _error(network: Any, images: Any, labels: Any) -> float:
    return float((network.predict(images, verbose=0).argmax(axis=1) != labels).mean())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
