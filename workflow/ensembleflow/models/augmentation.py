"""The five augmentations of the paper's Table 5, and flips, cutout and mixup."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ensembleflow.datasets.standardisation import Standardisation
from ensembleflow.models.hyperparameters import TrainingHyperparameters

__all__ = ["Augmentation", "augment", "augmentation_of", "mix_up", "random_affines"]

Augmentation = Callable[[npt.NDArray[Any], TrainingHyperparameters, np.random.Generator], npt.NDArray[Any]]
"""What changes a batch of samples (batch, ...), and keeps their type and shape, with a generator of its own."""

# A mean image's pixels reach over about so many from black to white.
_DEVIATIONS_OF_FULL_SCALE = 4.0


@functools.cache
def _opencv() -> Any:
    """Loaded late: a host that serves has no need of it."""
    import cv2

    cv2.setNumThreads(1)  # batches are prepared by threads of ours
    return cv2


def random_affines(
    n_images: int, image_shape: tuple[int, ...], hyperparameters: TrainingHyperparameters, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Random zoom, translation, shear and rotation about the image's centre, one matrix an image.

    Returns:
        float32 (n_images, 8): the rows of the 3x3 matrix that takes an output pixel (x, y) to the input
        pixel it is read from, without the last 1.
    """
    height, width = image_shape[:2]
    hp = hyperparameters
    angle = np.deg2rad(rng.uniform(-hp.max_rotation_degrees, hp.max_rotation_degrees, n_images))
    shear = rng.uniform(-hp.max_shear, hp.max_shear, n_images)
    zoom_x, zoom_y = rng.uniform(1 - hp.max_zoom, 1 + hp.max_zoom, (2, n_images))
    shift_x = rng.uniform(-hp.max_translation, hp.max_translation, n_images) * width
    shift_y = rng.uniform(-hp.max_translation, hp.max_translation, n_images) * height

    rotation = np.zeros((n_images, 2, 2))
    rotation[:, 0, 0] = rotation[:, 1, 1] = np.cos(angle)
    rotation[:, 0, 1], rotation[:, 1, 0] = -np.sin(angle), np.sin(angle)
    shearing = np.zeros((n_images, 2, 2))
    shearing[:, 0, 0], shearing[:, 0, 1], shearing[:, 1, 1] = 1, -np.sin(shear), np.cos(shear)
    zooming = np.zeros((n_images, 2, 2))
    zooming[:, 0, 0], zooming[:, 1, 1] = 1 / zoom_x, 1 / zoom_y
    linear = rotation @ shearing @ zooming

    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = centre + np.stack([shift_x, shift_y], axis=1) - linear @ centre
    matrix = np.zeros((n_images, 8), dtype=np.float32)
    matrix[:, 0:2], matrix[:, 2] = linear[:, 0], offset[:, 0]
    matrix[:, 3:5], matrix[:, 5] = linear[:, 1], offset[:, 1]
    return matrix


def augmentation_of(
    image_shape: tuple[int, ...], standardisation: Standardisation | None, own: Augmentation | None = None
) -> Augmentation:
    """What changes batches of such samples: the family's own, else `augment` for images, and nothing for other ranks.

    Args:
        image_shape: the samples' shape.
        standardisation: of float images, of which four standard deviations are the full scale; None for uint8.
        own: the family's; None where it has none.
    """
    if own is not None:
        return own
    if len(image_shape) != 3:
        return lambda images, hyperparameters, rng: images
    if standardisation is None:
        return augment
    return functools.partial(augment, full_scale=_DEVIATIONS_OF_FULL_SCALE * standardisation.deviation)


def augment(
    images: npt.NDArray[Any],
    hyperparameters: TrainingHyperparameters,
    rng: np.random.Generator,
    full_scale: float | npt.NDArray[np.float64] = 255.0,
) -> npt.NDArray[Any]:
    """Augment a batch; pixels read from outside an image take its nearest pixel's value.

    Args:
        images: uint8 or float32 (batch, height, width, channels).
        hyperparameters: its five `max_*` values bound the random transforms; flips and cutout follow them.
        rng: the batch's own generator; the same state gives the same batch.
        full_scale: what shifts of channels are shares of, for all channels or (channels,).

    Returns:
        The type and shape of `images`.
    """
    hp = hyperparameters
    matrices = random_affines(len(images), images.shape[1:], hp, rng)
    shifts = rng.uniform(-hp.max_channel_shift, hp.max_channel_shift, (len(images), images.shape[-1])) * full_scale
    if images.dtype == np.uint8:
        shifts = np.rint(shifts)
    shifts = np.pad(shifts, ((0, 0), (0, 3)))  # OpenCV wants four numbers, whatever the channels
    moves = hp.max_zoom > 0 or hp.max_translation > 0 or hp.max_shear > 0 or hp.max_rotation_degrees > 0
    changed, opencv = np.empty_like(images), _opencv()
    for into, image, matrix, shift in zip(changed, images, matrices, shifts, strict=True):
        for channels in _channels_at_once(image.shape[-1]):
            part = np.ascontiguousarray(image[..., channels])
            if moves:
                part = _moved(part, matrix)
            if hp.max_channel_shift > 0:
                part = opencv.add(part, shift[channels.start : channels.start + 4])  # uint8 saturates
            into[..., channels] = part.reshape(into[..., channels].shape)
    # What is off draws no number, so that the others' are what they were before these were there.
    for share, axis in ((hp.horizontal_flips, 2), (hp.vertical_flips, 1)):
        if share > 0:
            flipped = rng.random(len(changed)) < share
            changed[flipped] = np.flip(changed[flipped], axis)
    if hp.cutout > 0:
        _blank_squares(changed, hp.cutout, rng)
    return changed


def _blank_squares(images: npt.NDArray[Any], share: float, rng: np.random.Generator) -> None:
    """Fill a square of each image, its centre anywhere, with the image's mean colour (DeVries and Taylor 2017)."""
    height, width = images.shape[1:3]
    side = max(1, round(share * min(height, width)))
    tops = rng.integers(0, height, len(images)) - side // 2
    lefts = rng.integers(0, width, len(images)) - side // 2
    colours = _rounded(images.mean(axis=(1, 2)), images.dtype)
    for image, top, left, colour in zip(images, tops, lefts, colours, strict=True):
        image[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = colour


def _rounded(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Values as a type: to the nearest whole number where it holds no others."""
    return (values if dtype.kind == "f" else np.rint(values)).astype(dtype)


def mix_up(
    images: npt.NDArray[Any], alpha: float, rng: np.random.Generator
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Mix each image with another one of its batch (Zhang et al. 2018).

    Args:
        images: uint8 or float32 (batch, ...).
        alpha: both parameters of the Beta distribution that the shares are drawn from.
        rng: the batch's own generator.

    Returns:
        The mixed images; the place in the batch of each one's partner, int64 (batch,); and the share that is the
        image's own, float32 (batch,), at least a half, so that its own label is still the likelier one.
    """
    drawn = rng.beta(alpha, alpha, len(images))
    shares = np.maximum(drawn, 1 - drawn).astype(np.float32)
    partners = rng.permutation(len(images))
    own = shares.reshape(-1, *[1] * (images.ndim - 1))
    mixed = own * images + (1 - own) * images[partners]
    return _rounded(mixed, images.dtype), partners, shares


def _channels_at_once(n_channels: int) -> list[slice]:
    """Channels that OpenCV takes in one call, where it computes each pixel exactly: four, three or one."""
    ends, first = [], 0
    while first < n_channels:
        left = n_channels - first
        n_taken = min(left, 4) if left != 2 else 1
        ends.append(slice(first, first + n_taken))
        first += n_taken
    return ends


def _moved(image: npt.NDArray[Any], matrix: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """One image, each pixel read from between the four that its matrix takes it to."""
    height, width = image.shape[:2]
    cv2 = _opencv()
    moved = cv2.warpAffine(
        image,
        matrix[:6].reshape(2, 3).astype(np.float64),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(moved, image.dtype).reshape(image.shape)
