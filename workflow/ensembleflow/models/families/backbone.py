"""Networks of `keras.applications`, by name: from random weights, or fine-tuned from weights in a local file."""

from __future__ import annotations

import inspect
import math
from typing import Any

import keras
from keras import layers

# The module that has the network's own preprocessing, and the smallest image's side, of names that begin so; the first
# that fits counts.
_MODULES = {
    "Xception": ("xception", 71),
    "VGG16": ("vgg16", 32),
    "VGG19": ("vgg19", 32),
    "ResNet50V2": ("resnet_v2", 32),
    "ResNet101V2": ("resnet_v2", 32),
    "ResNet152V2": ("resnet_v2", 32),
    "ResNet": ("resnet", 32),
    "InceptionV3": ("inception_v3", 75),
    "InceptionResNetV2": ("inception_resnet_v2", 75),
    "MobileNetV3": ("mobilenet_v3", 32),
    "MobileNetV2": ("mobilenet_v2", 32),
    "MobileNet": ("mobilenet", 32),
    "DenseNet": ("densenet", 32),
    "NASNet": ("nasnet", 32),
    "EfficientNetV2": ("efficientnet_v2", 32),
    "EfficientNet": ("efficientnet", 32),
    "ConvNeXt": ("convnext", 32),
}


# Float images come on about the scale of pixels, which each network's own preprocessing expects.
FLOAT_SCALE = (127.5, 63.75)


def space(image_shape: tuple[int, int, int], n_classes: int) -> dict[str, Any]:
    """What may vary; by default a small network from random weights, trained as a whole."""
    side = max(32, *image_shape[:2])
    return {
        # A name in keras.applications.
        "backbone": ["MobileNetV3Small", "MobileNetV2"],
        # `random`, or a file of weights without the classifier (`…_notop.h5`, `….weights.h5`).
        "weights": ["random"],
        # The images' longer side within the network, in pixels.
        "side": [side, side],
        # Of MobileNets: their filters, as a multiple (`alpha`). Weights from a file are of one width.
        "width": {"choices": [1.0]},
        "dropout": [0.0, 0.4],
        # Fine-tuning: epochs in which only the last layer is trained; then the share of the backbone's layers, from the
        # last, that are trained too, and the learning rate by which, as a multiple.
        "frozen_epochs": [0, 0],
        "unfrozen": [1.0, 1.0],
        "fine_tuning_rate": [1.0, 1.0],
    }


def build(hyperparameters: dict[str, Any], image_shape: tuple[int, int, int], n_classes: int) -> keras.Model:
    """The backbone with its own preprocessing before it, and dropout and one dense layer after it."""
    hp = hyperparameters
    make = getattr(keras.applications, hp["backbone"], None)
    found = [module for start, module in _MODULES.items() if hp["backbone"].startswith(start)]
    if make is None or not found:
        raise ValueError(f"keras.applications has no {hp['backbone']}")
    module, smallest = found[0]
    height, width, channels = image_shape
    scale = max(hp["side"], smallest) / max(height, width)
    side = tuple(max(smallest, math.ceil(length * scale)) for length in (height, width))

    images = keras.Input(image_shape)
    x = images if side == (height, width) else layers.Resizing(*side)(images)
    if channels == 1:
        x = layers.Concatenate()([x, x, x])
    elif channels != 3:
        x = layers.Conv2D(3, 1, name="to_three_channels")(x)
    x = getattr(keras.applications, module).preprocess_input(x)
    alpha = {"alpha": hp["width"]} if "alpha" in inspect.signature(make).parameters else {}
    backbone = make(include_top=False, weights=None, input_shape=(*side, 3), pooling="avg", **alpha)
    if hp["weights"] != "random":
        backbone.load_weights(hp["weights"])
    x = backbone(x)
    x = layers.Dropout(hp["dropout"], name="dropout")(x)
    probabilities = layers.Dense(n_classes, activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(images, probabilities)


def phases(hyperparameters: dict[str, Any], model: keras.Model) -> list[dict[str, Any]]:
    """First what comes after the backbone, then the backbone's last layers too."""
    hp = hyperparameters
    (backbone,) = (layer for layer in model.layers if hasattr(layer, "layers"))
    within = [layer.name for layer in backbone.layers]
    around = [layer.name for layer in model.layers if layer is not backbone]
    n_trained = math.ceil(hp["unfrozen"] * len(within))
    return [
        {"epochs": hp["frozen_epochs"], "trainable": around},
        {"trainable": [*around, *within[len(within) - n_trained :]], "learning_rate": hp["fine_tuning_rate"]},
    ]
