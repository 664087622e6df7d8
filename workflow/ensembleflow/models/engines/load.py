"""Which engines there are, which are installed, and loading a model with one."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from ensembleflow.config import Engine
from ensembleflow.errors import EngineError
from ensembleflow.models.engines.loaded import LoadedEngine
from ensembleflow.models.tolerances import ANSWER_TOLERANCE, LONE_IMAGES, answer_tolerance

__all__ = [
    "CPU_ONLY_ENGINES",
    "DEFAULT_ENGINE",
    "ENGINES",
    "FLOAT32_ENGINES",
    "check_engine",
    "import_engine",
    "installed_engines",
    "load_engine",
    "start_engine",
]

DEFAULT_ENGINE = "tensorflow"
ENGINES: tuple[str, ...] = get_args(Engine)  # each a module here
FLOAT32_ENGINES = tuple(engine for engine in ENGINES if answer_tolerance([engine]) == ANSWER_TOLERANCE)
CPU_ONLY_ENGINES: tuple[str, ...] = ("openvino", "openvino_bfloat16")
_PACKAGES = {engine: engine.removesuffix("_bfloat16") for engine in ENGINES}


def installed_engines() -> tuple[str, ...]:
    """The engines that this Python has, found without importing them."""
    return tuple(engine for engine in ENGINES if importlib.util.find_spec(_PACKAGES[engine]) is not None)


def import_engine(engine: str) -> ModuleType:
    """An engine's package, whose import takes from half a second (OpenVINO) to several (TensorFlow).

    Raises:
        EngineError: there is no such engine, or it is not installed.
    """
    if engine not in ENGINES:
        raise EngineError("there is no such engine", found=engine, expected="one of " + ", ".join(ENGINES))
    try:
        return importlib.import_module(_PACKAGES[engine])
    except ImportError as error:
        default = engine == DEFAULT_ENGINE
        extra, lock = ("cpu", "requirements") if default else (_PACKAGES[engine], "requirements-engines")
        raise EngineError(
            f"the engine {engine} is not installed",
            found=str(error),
            expected=f"the Python package {_PACKAGES[engine]}",
            hint=f'pip install "ensembleflow[{extra}]", or, at the tested versions, pip install -r {lock}.lock',
        ) from error


def load_engine(engine: str, exported: Path, threads: int, *, gpu: bool = False) -> LoadedEngine:
    """Load a member with an engine.

    Args:
        engine: one of `ENGINES`.
        exported: the member's folder: its exported function, and with it `model.onnx` for ONNX Runtime.
        threads: CPU threads. TensorFlow's are those of the whole process, and are set once.
        gpu: compute on the GPU that this process sees.

    Raises:
        EngineError: there is no such engine, it is not installed, or it cannot compute on a GPU.
        ArtefactError: the model is missing or damaged.
    """
    package = import_engine(engine)
    loaded: LoadedEngine = importlib.import_module(f"{__package__}.{engine}").load(
        package, Path(exported), threads, gpu=gpu
    )
    return loaded


def start_engine(engine: str, threads: int, *, gpu: bool = False) -> None:
    """Bring an engine to where it can load a model: its threads made, its plugins loaded, a GPU opened.

    Args:
        engine: one of `ENGINES`.
        threads: CPU threads.
        gpu: open the GPU that this process sees.

    Raises:
        EngineError: there is no such engine, or it is not installed.
    """
    package = import_engine(engine)
    importlib.import_module(f"{__package__}.{engine}").start(package, threads, gpu=gpu)


def check_engine(
    loaded: LoadedEngine,
    images: npt.NDArray[Any],
    expected: npt.NDArray[np.floating],
    batch_size: int,
    tolerance: float = ANSWER_TOLERANCE,
) -> float:
    """Check that a loaded engine answers as the exported function does, to the first images alone as well.

    Args:
        loaded: the model, loaded by any engine.
        images: (images, ...), of the type that it was exported for.
        expected: what the exported function answers, or the cache holds, (images, classes).
        batch_size: images per call.
        tolerance: by how much a probability may differ.

    Returns:
        The largest difference of a probability.

    Raises:
        EngineError: it is larger than `tolerance`, or the number of classes differs.
    """
    answers = loaded.predict(images, batch_size)
    if answers.shape != expected.shape:
        raise EngineError("an engine answers with another shape", found=answers.shape, expected=expected.shape)
    lone = loaded.predict(images[:LONE_IMAGES], 1)
    difference = float(np.abs(np.concatenate([answers - expected, lone - expected[: len(lone)]])).max())
    if not difference <= tolerance:  # NaN is no answer either
        raise EngineError(
            "an engine answers otherwise than the exported function",
            found=f"probabilities that differ by up to {difference:.2g}",
            expected=f"at most {tolerance:.2g}",
            hint="choose another engine for this member",
        )
    return difference
