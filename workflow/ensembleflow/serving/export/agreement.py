"""How near an exported graph's answers come to the bundle's, computed by the runtime that the export is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensembleflow.errors import BundleError, EngineError
from ensembleflow.inference.machine import usable_cores
from ensembleflow.models.engines import import_engine, load_engine
from ensembleflow.serving.bundle import Bundle, split_check_images

__all__ = ["RUNTIMES", "Agreement", "require_agreement"]

RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
"""What can compute an exported graph: the name of its Python package, and its own."""


@dataclass(frozen=True)
class Agreement:
    """How near a graph's answers came to the bundle's, image by image and class by class.

    Attributes:
        runtime: what computed them, with its version.
        n_images: check images of the bundle, some of them alone, the others in batches.
        largest_difference: of a probability.
        tolerance: the largest difference allowed.
        n_other_classes: images whose most probable class is another.
    """

    runtime: str
    n_images: int
    largest_difference: float
    tolerance: float
    n_other_classes: int

    @property
    def share_other_classes(self) -> float:
        """Of the images, from 0 to 1."""
        return self.n_other_classes / self.n_images


def require_agreement(bundle: Bundle, graph: Path, package: str) -> Agreement:
    """Have a runtime compute the bundle's check images by an exported graph, in float32, and compare the answers.

    A graph shows each image to all members, so of a cascade's bundle it is the full ensemble.

    Args:
        bundle: what was exported.
        graph: `model.onnx`, or OpenVINO's `model.xml`.
        package: one of `RUNTIMES`.

    Raises:
        BundleError: an answer differs by more than the bundle's tolerance.
        EngineError: the runtime cannot compute the graph, or is not installed.
    """
    runtime = f"{RUNTIMES[package]} {import_engine(package).__version__.partition('-')[0]}"
    expected, rounding = bundle.full_probabilities()
    parts = split_check_images(bundle.check_images())
    # ONNX Runtime's engine takes the folder of a `model.onnx`.
    path = graph.parent if package == "onnxruntime" else graph
    try:
        engine = load_engine(package, path, len(usable_cores()))
        answers = np.concatenate([engine.predict(part, len(part)) for part in parts])
    except Exception as error:  # the runtimes' own share no base
        found = getattr(error, "found", None) or error
        raise EngineError(
            "the exported graph cannot be computed",
            where=bundle.path,
            found=f"{runtime}: {' '.join(str(found).split())[:400]}",
            hint="install the tested versions, pip install -r requirements-engines.lock, or choose another --format",
        ) from error
    tolerance = bundle.answer_tolerance(()) + rounding
    if answers.shape != expected.shape:
        raise _differs(bundle, f"{runtime}: answers of shape {answers.shape}", f"{expected.shape}")
    differences = np.abs(answers - expected).max(axis=1)
    n_wrong = int((~(differences <= tolerance)).sum())  # a NaN is wrong as well
    if n_wrong:
        worst = float(differences.max())
        raise _differs(
            bundle,
            f"{runtime}: a probability that differs by {worst:.2g}; {n_wrong} of {len(answers)} images differ",
            f"at most {tolerance:.2g}",
        )
    return Agreement(
        runtime=runtime,
        n_images=len(answers),
        largest_difference=float(differences.max()),
        tolerance=tolerance,
        n_other_classes=int((answers.argmax(axis=1) != expected.argmax(axis=1)).sum()),
    )


def _differs(bundle: Bundle, found: str, expected: str) -> BundleError:
    return BundleError(
        "the exported graph answers differently from the bundle",
        where=bundle.path,
        found=found,
        expected=expected,
        hint="nothing was written; install the tested versions, pip install -r requirements-engines.lock, "
        "or choose another --format",
    )
