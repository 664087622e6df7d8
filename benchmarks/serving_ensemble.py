"""An ensemble of CIFAR-shaped networks as the workflow would leave it, and bundles of it for chosen engines.

    python benchmarks/serving_ensemble.py FOLDER

makes `FOLDER/datasets/cifar_shaped.h5` and `FOLDER/cifar_shaped-untrained-s0/`, with seven residual networks of mixed
sizes: weights from a fixed seed, normalisations that have seen images. `bundle_of` allocates and packs an ensemble of
any such results folder, the default workflow's as well, with the stages' own functions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from ensembleflow.allocation import allocate_ensemble
from ensembleflow.config import AllocationConfig, CostConfig, DatasetConfig, PredictionsConfig
from ensembleflow.datasets import open_dataset, prepare_dataset
from ensembleflow.io import write_csv, write_json
from ensembleflow.library import cache_predictions, measure_costs, open_predictions
from ensembleflow.models import (
    Hyperparameters,
    build_resnet,
    configure_tensorflow,
    load_model,
    save_model,
    weights_sha256,
)
from ensembleflow.models.multiply_adds import count_multiply_adds
from ensembleflow.serving import make_bundle, open_bundle

STUDY, BUDGET = "cifar_shaped-untrained-s0", "all"
DATASET = {
    "name": "cifar_shaped",
    "source": "synthetic",
    "synthetic": {"n_images": 1500, "image_shape": [32, 32, 3], "n_classes": 10},
}
# (block, stem filters, filters of the first stage, blocks in each stage): 0.08 to 1.25 million weights.
NETWORKS = (
    ("v1", 16, 8, (1, 1, 1, 1)),
    ("v2", 16, 12, (1, 1, 1, 1)),
    ("v1", 16, 16, (1, 1, 1, 1)),
    ("v2", 16, 16, (2, 2, 1, 1)),
    ("v1", 32, 20, (1, 1, 1, 1)),
    ("v2", 32, 24, (1, 1, 1, 1)),
    ("v1", 32, 32, (1, 1, 1, 1)),
)
# Normalisations of weights as drawn do nothing: values would grow from block to block until the softmax saturates.
SETTLING_BATCHES, SETTLING_IMAGES = 40, 32


def make_ensemble(folder: Path) -> None:
    """Write the dataset, the seven models, their exported functions, cached predictions, costs and the selection."""
    dataset, study = folder / "datasets" / "cifar_shaped.h5", folder / STUDY
    models_folder, library = study / "search" / "models" / "job-0", study / "library"
    for each in (dataset.parent, models_folder, library, study / "selection"):
        each.mkdir(parents=True, exist_ok=True)
    prepare_dataset(DatasetConfig.model_validate(DATASET), dataset)
    configure_tensorflow(1)
    rows = [_make_model(place, dataset, models_folder) for place in range(len(NETWORKS))]
    write_csv(library / "models.csv", pd.DataFrame(rows))
    cache_predictions(
        models_csv=library / "models.csv",
        model_folders=[models_folder],
        dataset_path=dataset,
        study=STUDY,
        config=PredictionsConfig(),
        exported_dir=library / "exported",
        predictions_h5=library / "predictions.h5",
    )
    costs = CostConfig(n_images=200, repeats=3, latency_requests=0)
    measure_costs(library / "models.csv", library / "exported", dataset, costs, library / "costs.csv")
    members = [row["model"] for row in rows]
    cost_seconds = float(pd.read_csv(library / "costs.csv")["cost_seconds"].sum())
    selection = {"study": STUDY, "budget": BUDGET, "members": members, "cost_seconds": cost_seconds}
    write_json(study / "selection" / f"budget-{BUDGET}.json", {**selection, "valid": {}, "test": {}})


def _make_model(place: int, dataset: Path, folder: Path) -> dict[str, object]:
    import keras

    block, stem_filters, stage_filters, blocks = NETWORKS[place]
    hyperparameters = Hyperparameters(
        learning_rate=1e-3,
        batch_size=32,
        l2=0.0,
        block=block,
        activation="relu",
        stem_filters=stem_filters,
        stage_filters=stage_filters,
        **{f"blocks_stage_{stage}": count for stage, count in enumerate(blocks, start=1)},
        max_zoom=0.0,
        max_translation=0.0,
        max_shear=0.0,
        max_channel_shift=0.0,
        max_rotation_degrees=0,
    )
    keras.utils.set_random_seed(place)
    with open_dataset(dataset) as data:
        model = build_resnet(hyperparameters, data.image_shape, data.n_classes, name=f"trial-{place:05d}")
        images = data.images("train")
    for batch in range(SETTLING_BATCHES):
        first = batch * SETTLING_IMAGES % (len(images) - SETTLING_IMAGES)
        model(images[first : first + SETTLING_IMAGES], training=True)
    save_model(model, folder / f"{model.name}.keras")
    return {
        "rank": place + 1,
        "model": model.name,
        "slot": place,
        "kept": True,
        "n_parameters": model.count_params(),
        "weights_sha256": weights_sha256(model),
    }


def bundle_of(study: Path, budget: str, engines: tuple[str, ...], max_benches: int, output: Path) -> None:
    """Search an allocation of two devices of one core that may use `engines`, and pack the bundle.

    Args:
        study: the study's folder in a results folder.
        budget: the budget's text, as in `selection/budget-{budget}.json`.
        engines: what members may be computed with; the first is the start's.
        max_benches: 1 leaves the worst-fit start as it is.
        output: the bundle to make.
    """
    library, selection = study / "library", study / "selection" / f"budget-{budget}.json"
    allocation = output.parent / f"{output.name}.json"
    dataset = _dataset_of(study)
    allocate_ensemble(
        selection_json=selection,
        exported_dir=library / "exported",
        predictions_h5=library / "predictions.h5",
        costs_csv=library / "costs.csv",
        dataset_h5=dataset,
        config=_allocation_config(engines, max_benches),
        n_devices=2,
        output_json=allocation,
        output_csv=output.parent / f"{output.name}.csv",
        profiles_csv=output.parent / f"{output.name}-profiles.csv",
        store_dir=output.parent / f"{output.name}-store",
    )
    make_bundle(
        selection_json=selection,
        allocation_json=allocation,
        exported_dir=library / "exported",
        predictions_h5=library / "predictions.h5",
        dataset_h5=dataset,
        output_dir=output,
        store_dir=output.parent / f"{output.name}-bundle-store",
    )
    open_bundle(output)


def _allocation_config(engines: tuple[str, ...], max_benches: int) -> AllocationConfig:
    return AllocationConfig.model_validate(
        {
            "engines": list(engines),
            "max_benches": max_benches,
            "bench_images": 512,
            "latency_requests": 0,
            "max_replicas": 2,
        }
    )


def _dataset_of(study: Path) -> Path:
    """The dataset that a study's predictions were made of."""
    with open_predictions(study / "library" / "predictions.h5") as predictions:
        checksum = predictions.dataset_checksum
    for path in sorted((study.parent / "datasets").glob("*.h5")):
        with open_dataset(path) as data:
            if data.checksum == checksum:
                return path
    raise SystemExit(f"{study.parent / 'datasets'} has no dataset with the checksum {checksum}")


def multiply_adds_of(study: Path, models: list[str]) -> list[int]:
    """Multiply-adds of one image of each model; imports TensorFlow, for one thread."""
    configure_tensorflow(1)
    files = {path.stem: path for path in study.glob("search/models/*/*.keras")}
    return [count_multiply_adds(load_model(files[model])) for model in models]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    make_ensemble(parser.parse_args().folder.resolve())


if __name__ == "__main__":
    main()
