"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation), fine-tuned from a local file of its weights.

A family of networks, as docs/own-networks.md describes them: name this file in `search.family`.
benchmarks/fine_tuning.py makes the file of weights from the published ones.
"""

import keras
from keras import layers

# Kernel, stride, expansion, filters and repeats of each stage (EfficientNet-B0's).
STAGES = [
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
]


def space(image_shape, n_classes):
    side = max(64, *image_shape[:2])
    return {
        "weights": ["random"],
        "side": [side, side],
        "dropout": [0.0, 0.3],
        "frozen_epochs": [1, 3],
        "unfrozen_blocks": [0, 16],
        "fine_tuning_rate": {"low": 0.05, "high": 0.5, "log": True},
    }


def build(hyperparameters, image_shape, n_classes):
    hp = hyperparameters
    images = keras.Input(image_shape)
    x = layers.Resizing(hp["side"], hp["side"])(images)
    if image_shape[-1] == 1:
        x = layers.Concatenate()([x, x, x])
    base = backbone((hp["side"], hp["side"], 3))
    if hp["weights"] != "random":
        base.load_weights(hp["weights"])
    x = layers.GlobalAveragePooling2D(name="pool")(base(x))
    x = layers.Dropout(hp["dropout"], name="dropout")(x)
    probabilities = layers.Dense(n_classes, activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(images, probabilities)


def phases(hyperparameters, model):
    if hyperparameters["weights"] == "random":
        return [{"trainable": ["backbone", "probabilities"]}]
    names = [layer.name for layer in model.get_layer("backbone").layers]
    last = [f"block{16 - place}_" for place in range(hyperparameters["unfrozen_blocks"])]
    tuned = [name for name in names if name.startswith(("head_", *last))]
    return [
        {"epochs": hyperparameters["frozen_epochs"], "trainable": ["probabilities"]},
        {"trainable": ["probabilities", *tuned], "learning_rate": hyperparameters["fine_tuning_rate"]},
    ]


def backbone(shape):
    """From images of 0 to 255 to the features of the last convolution."""
    images = keras.Input(shape)
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(images)
    x = _normalised(layers.Conv2D(32, 3, 2, padding="same", use_bias=False, name="stem_conv")(x), "stem")
    block = 0
    for kernel, first_stride, expansion, filters, repeats in STAGES:
        for repeat in range(repeats):
            block += 1
            x = _block(x, f"block{block}", kernel, 1 if repeat else first_stride, expansion, filters)
    x = _normalised(layers.Conv2D(1280, 1, use_bias=False, name="head_conv")(x), "head")
    return keras.Model(images, x, name="backbone")


def _block(x, name, kernel, stride, expansion, filters):
    inputs, n_inputs = x, x.shape[-1]
    if expansion > 1:
        x = layers.Conv2D(n_inputs * expansion, 1, use_bias=False, name=f"{name}_expand")(x)
        x = _normalised(x, f"{name}_expand")
    x = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    x = _normalised(x, f"{name}_depthwise")
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project")(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_project_bn")(x)
    if stride == 1 and n_inputs == filters:
        x = layers.Add(name=f"{name}_add")([x, inputs])
    return x


def _normalised(x, name):
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu6")(x)
