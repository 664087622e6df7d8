"""A family of networks: a Python file with a space of hyperparameters and what builds a network from a point of it."""

from __future__ import annotations

import hashlib
import math
import sys
import threading
import traceback
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ensembleflow.config import Values, family_name, read_values
from ensembleflow.datasets.standardisation import Standardisation
from ensembleflow.errors import FamilyError
from ensembleflow.models.augmentation import Augmentation
from ensembleflow.models.device_memory import is_out_of_memory
from ensembleflow.models.family_input import read_float_scale, read_input_ranks
from ensembleflow.models.hyperparameters import FAMILY, FamilyHyperparameters, TrainingHyperparameters
from ensembleflow.models.layers import layers_by_names
from ensembleflow.models.phases import Phase
from ensembleflow.models.precision import dtype_policy
from ensembleflow.models.standardised_input import with_standardised_input

if TYPE_CHECKING:
    import keras

__all__ = ["Family", "load_family"]

_MANUAL = "docs/own-networks.md has a file to start from"


@dataclass(frozen=True)
class Family:
    """A family's file, run.

    Attributes:
        path: the file.
        source: its content.
        module: what it defines: `space`, `build`, and `augment`, `phases`, `INPUT_RANKS` or `FLOAT_SCALE` where it has
            such of its own.
    """

    path: Path
    source: bytes
    module: types.ModuleType

    @property
    def name(self) -> str:
        """The file's name without `.py`."""
        return family_name(str(self.path))

    @property
    def sha256(self) -> str:
        """Of the file's content."""
        return hashlib.sha256(self.source).hexdigest()

    @property
    def has_augmentation(self) -> bool:
        """Whether it augments images itself."""
        return hasattr(self.module, "augment")

    @property
    def augmentation(self) -> Augmentation | None:
        """`augment` where the file has its own, else None."""
        return self.augment if self.has_augmentation else None

    @property
    def input_ranks(self) -> frozenset[int]:
        """How many axes the samples may have that its networks take: 3 (height, width, channels) unless it says others.

        Raises:
            FamilyError: `INPUT_RANKS` is something else than numbers of axes.
        """
        return read_input_ranks(self.module)

    @property
    def float_scale(self) -> tuple[float, float]:
        """The mean and standard deviation that float samples' channels are brought to: 0 and 1 unless it says others.

        Raises:
            FamilyError: `FLOAT_SCALE` is something else than these two numbers.
        """
        return read_float_scale(self.module)

    def space(self, image_shape: tuple[int, ...], n_classes: int) -> dict[str, Values]:
        """The ranges and choices that the file gives to its hyperparameters.

        Args:
            image_shape: (height, width, channels) in pixels, or of other samples their shape.
            n_classes: number of classes.

        Raises:
            FamilyError: `space` raises, or gives something else, or a name that the training has already.
        """
        with _blaming(self.path, "space"):
            found = self.module.space(image_shape, n_classes)
        names = list(found) if isinstance(found, Mapping) else [found]
        if wrong := [repr(name)[:200] for name in names if not (isinstance(name, str) and name.isidentifier())]:
            raise FamilyError(
                "a family's space is no mapping from names to ranges or choices",
                where=f"{self.path}: space",
                found=", ".join(wrong),
                expected="names of letters, digits and _, with ranges or choices",
                hint=_MANUAL,
            )
        if taken := sorted({*TrainingHyperparameters.names(), FAMILY, "epochs"} & found.keys()):
            raise FamilyError(
                "a family's space has a name that the training has already",
                where=f"{self.path}: space",
                found=", ".join(taken),
                hint=f"set search.space.{taken[0]} in the config, or give it another name in the file",
            )
        told = {}
        for name, values in found.items():
            try:
                told[name] = read_values(values)
            except ValueError as error:
                raise FamilyError(
                    "a family's space has something else than a range or choices",
                    where=f"{self.path}: space, {name}",
                    found=repr(values)[:200],
                    expected=str(error).removeprefix("must be "),
                ) from None
        return told

    def build(
        self,
        hyperparameters: FamilyHyperparameters,
        image_shape: tuple[int, ...],
        n_classes: int,
        name: str = "network",
        precision: str = "float32",
        standardisation: Standardisation | None = None,
    ) -> keras.Model:
        """Build the network of one point of the space.

        Args:
            hyperparameters: of a trial; the file's `build` is given all of its values.
            image_shape: (height, width, channels) in pixels, or of other samples their shape.
            n_classes: number of classes.
            name: the model's name.
            precision: Keras's dtype policy: `float32`, `mixed_float16`, `mixed_bfloat16`.
            standardisation: of float samples, what they are standardised by before the file's network; None for uint8.

        Returns:
            An uncompiled model from samples (batch, *image_shape), images from 0 to 255 or float32 of any values, to
            float32 probabilities (batch, classes).

        Raises:
            FamilyError: `build` raises, or gives something else.
        """
        import keras

        with dtype_policy(precision), _blaming(self.path, "build"):
            model = self.module.build(hyperparameters.to_dict(), image_shape, n_classes)
        where = f"{self.path}: build"
        if not isinstance(model, keras.Model):
            raise FamilyError(
                "a family builds something else than a network", where=where, found=repr(model)[:200], hint=_MANUAL
            )
        inputs, outputs = (getattr(model, name, None) or [] for name in ("inputs", "outputs"))
        if not (len(inputs) == len(outputs) == 1):
            raise FamilyError(
                "a family's network has not one input and one output",
                where=where,
                found=f"{len(inputs)} inputs and {len(outputs)} outputs, of a {type(model).__name__}",
                expected="keras.Model(images, probabilities), not a subclass with a call of its own",
                hint=_MANUAL,
            )
        output = model.outputs[0]
        if tuple(model.input_shape) != (None, *image_shape) or tuple(output.shape) != (None, n_classes):
            raise FamilyError(
                "a family's network is of another shape than images and classes",
                where=where,
                found=f"{tuple(model.input_shape)} to {tuple(output.shape)}",
                expected=f"{(None, *image_shape)} to {(None, n_classes)}",
            )
        if output.dtype != "float32":
            raise FamilyError(
                "a family's probabilities are not float32",
                where=where,
                found=output.dtype,
                hint='give the last layer dtype="float32"',
            )
        if standardisation is not None:
            model = with_standardised_input(model, standardisation, *self.float_scale)
            output = model.outputs[0]
        # The layers as they are, under the trial's name, and without what they may have been compiled with.
        return keras.Model(model.inputs[0], output, name=name)

    def phases(self, hyperparameters: FamilyHyperparameters, model: keras.Model) -> list[Phase]:
        """Which layers of a network are trained when; empty where the file does not say.

        Args:
            hyperparameters: of the trial.
            model: what `build` made of them.

        Raises:
            FamilyError: `phases` raises, or gives something else, or names a layer that the network does not have.
        """
        if not hasattr(self.module, "phases"):
            return []
        with _blaming(self.path, "phases"):
            found = self.module.phases(hyperparameters.to_dict(), model)
        if not isinstance(found, list | tuple):
            found = [found]
        where, names = f"{self.path}: phases", frozenset().union(*(names for _, names in layers_by_names(model)))
        phases = []
        for place, each in enumerate(found):
            last = place == len(found) - 1
            try:
                phases.append(_phase(each, last=last))
            except (ValueError, TypeError, AttributeError) as error:
                raise FamilyError(
                    "a family's phase is none",
                    where=where,
                    found=f"{repr(each)[:200]}: {error}",
                    expected='{"epochs": …, "trainable": [names of layers], "learning_rate": factor}, the last without '
                    "epochs",
                    hint=_MANUAL,
                ) from None
            if unknown := sorted(phases[-1].trainable - names):
                raise FamilyError(
                    "a family's phase trains layers that the network does not have",
                    where=where,
                    found=", ".join(unknown[:10]),
                    expected=f"names such as {', '.join(sorted(names)[-5:])}",
                )
        return phases

    def augment(
        self, images: npt.NDArray[Any], hyperparameters: TrainingHyperparameters, rng: np.random.Generator
    ) -> npt.NDArray[Any]:
        """Augment a batch as the file does it; arguments and result as of `models.augmentation.augment`.

        Raises:
            FamilyError: `augment` raises, or gives other images' shape or type.
        """
        with _blaming(self.path, "augment"):
            found = self.module.augment(images, hyperparameters.to_dict(), rng)
        if not isinstance(found, np.ndarray) or found.dtype != images.dtype or found.shape != images.shape:
            raise FamilyError(
                "a family's augmentation gives something else than images",
                where=f"{self.path}: augment",
                found=f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else repr(found)[:200],
                expected=f"{images.dtype} {images.shape}",
            )
        return found


def _phase(values: Any, *, last: bool) -> Phase:
    if unknown := set(values) - {"epochs", "trainable", "learning_rate"}:
        raise ValueError(f"{', '.join(sorted(unknown))} is unknown")
    epochs, trainable, factor = values.get("epochs"), values.get("trainable"), values.get("learning_rate", 1.0)
    if (epochs is None) != last:
        raise ValueError("the last phase takes all epochs that are left" if last else "it has no epochs")
    if epochs is not None and (type(epochs) is not int or epochs < 0):
        raise ValueError("epochs is no whole number from 0 on")
    if isinstance(trainable, str) or not all(isinstance(name, str) for name in trainable):
        raise ValueError("trainable is no list of layers' names")
    if not trainable:
        raise ValueError("it trains nothing")
    if isinstance(factor, bool) or not 0 < float(factor) < math.inf:
        raise ValueError("learning_rate is no number above 0")
    return Phase(frozenset(trainable), float(factor), epochs)


def load_family(path: str | Path) -> Family:
    """Run a family's file.

    Layers that the file registers (`keras.saving.register_keras_serializable`) are known to Keras from then on.

    Raises:
        FamilyError: the file is missing, is no Python, raises, or lacks `space` or `build`.
    """
    path = Path(path)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise FamilyError(
            "a family's file cannot be read", where=path, found=error.strerror, hint="name it in search.family"
        ) from None
    # Where layers of it are saved, this name stands in the file: it is the same for the copy beside the results.
    module = types.ModuleType(f"ensembleflow_family_{family_name(str(path))}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    with _blaming(path, None):
        exec(compile(source, str(path), "exec"), module.__dict__)
    for name in ("space", "build"):
        if not callable(getattr(module, name, None)):
            raise FamilyError("a family's file lacks a function", where=path, found=f"no `{name}`", hint=_MANUAL)
    return Family(path, source, module)


@contextmanager
def _blaming(path: Path, function: str | None) -> Iterator[None]:
    """Tell what goes wrong in the file as the file's fault, with its line."""
    where = f"{path}: {function}" if function else str(path)
    try:
        with _without_network():
            yield
    except SyntaxError as error:
        line = f"{error.filename}, line {error.lineno}" if error.filename else path  # none of a file with null bytes
        raise FamilyError("a family's file is no Python", where=line, found=error.msg) from None
    except FamilyError:
        raise
    except (Exception, SystemExit) as error:
        # A job that is told to stop ends by one too, raised elsewhere.
        if isinstance(error, SystemExit) and traceback.extract_tb(error.__traceback__)[-1].filename != str(path):
            raise
        if _here.refused:
            raise FamilyError(
                "a family needs another machine",
                where=_line(path, error) or where,
                found=f"it asks {_here.refused}",
                hint="load weights from a local file: a cluster's nodes have no internet, and what is downloaded again "
                "may be another network",
            ) from None
        if is_out_of_memory(error):
            raise
        told = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        raise FamilyError(
            f"a family's {function} raises" if function else "a family's file raises",
            where=_line(path, error) or where,
            found=told.rstrip(": ")[:400],
        ) from error


def _line(path: Path, error: BaseException) -> str:
    """The file's own line that was running, the innermost; empty where there is none."""
    lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else ""


_here = threading.local()
_hook_added = threading.Event()


@contextmanager
def _without_network() -> Iterator[None]:
    """Refuse this thread's connections; the process's other threads, which may renew leases, keep theirs."""
    if not _hook_added.is_set():
        _hook_added.set()
        sys.addaudithook(_refuse_connections)
    _here.guarded, _here.refused = True, ""
    try:
        yield
    finally:
        _here.guarded = False


def _refuse_connections(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in ("socket.getaddrinfo", "socket.connect") or not getattr(_here, "guarded", False):
        return
    host = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
    if isinstance(host, tuple):
        host = host[0]
    elif event == "socket.connect":
        return  # of this machine: a file's name
    _here.refused = str(host)
    raise ConnectionRefusedError(f"families are run without a network: no connection to {host}")
