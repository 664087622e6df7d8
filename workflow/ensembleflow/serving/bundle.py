"""Opening a bundle: everything needed to serve an ensemble, checked before any of it is used."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from ensembleflow.arguments import file_path
from ensembleflow.config import DeviceConfig
from ensembleflow.errors import BundleError
from ensembleflow.inference import (
    Allocation,
    AnyDispatcher,
    Deployment,
    Device,
    ForkServer,
    Limits,
    Member,
    Pipeline,
    Placement,
    StopRule,
    assign_cores,
    make_dispatcher,
)
from ensembleflow.io import file_sha256
from ensembleflow.models.tolerances import LONE_IMAGES, answer_tolerance
from ensembleflow.serving.manifest import SCHEMA_VERSION, Manifest

__all__ = [
    "MANIFEST",
    "Bundle",
    "check_answers",
    "file_checksums",
    "open_bundle",
    "require_equal_answers",
    "split_check_images",
]

MANIFEST = "bundle.json"

_MAX_MANIFEST_BYTES = 16 * 2**20
_SNAKEMAKE_TIMESTAMP = ".snakemake_timestamp"  # an empty file that Snakemake puts into each folder it tracks
_MAX_FILES = 100_000
_CHECK_IMAGES_A_REQUEST = 64
_REMAKE_HINT = "copy the bundle again, or delete it and run snakemake again"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: its folder.
        manifest: its `bundle.json`.
    """

    path: Path
    manifest: Manifest

    @property
    def class_names(self) -> list[str]:
        """Name of class i at place i."""
        return self.manifest.class_names

    @property
    def members(self) -> list[Member]:
        """The ensemble, with its exported functions."""
        return [Member(model, self.path / "members" / model) for model in self.manifest.members]

    @property
    def allocation(self) -> Allocation:
        """Where the members run."""
        return tuple(
            Placement(each.model, each.device, each.batch_size, each.engine) for each in self.manifest.allocation
        )

    @property
    def stop_rule(self) -> StopRule | None:
        """When an image needs no further member; None where each is shown to all."""
        cascade = self.manifest.cascade
        return None if cascade is None else StopRule.of(cascade.members, cascade.thresholds)

    @property
    def shares(self) -> dict[str, float]:
        """In a cascade the share of the images that each member is expected to see; else empty."""
        cascade = self.manifest.cascade
        return {} if cascade is None else dict(zip(cascade.members, cascade.shares, strict=True))

    def answer_tolerance(self, allocation: Allocation) -> float:
        """By how much a probability may differ from `check_probabilities` under an allocation of these members."""
        proven = [] if self.manifest.servable is None else self.manifest.servable.engines
        return answer_tolerance([*proven, *(placement.engine for placement in allocation)])

    def devices(self) -> list[Device]:
        """The allocation's devices, on this machine.

        Cores are assigned anew: a machine with fewer of them has its devices share cores, with a warning.

        Raises:
            AllocationError: this machine lacks a GPU.
        """
        return assign_cores([DeviceConfig(**each.model_dump(exclude_none=True)) for each in self.manifest.devices])

    def pipeline(self) -> Pipeline:
        """The ensemble under the bundle's allocation, to be used in a `with` block."""
        return Pipeline(self._deployment(self.members), self.allocation)

    def dispatcher(
        self,
        *,
        members: Sequence[Member] | None = None,
        limits: Limits | None = None,
        fork_server: ForkServer | None = None,
    ) -> AnyDispatcher:
        """The ensemble for a server: its processes are started anew when they end.

        Args:
            members: the ensemble with its files in another place.
            limits: of what it takes on.
            fork_server: what members' processes may be forked from.

        Raises:
            AllocationError: the allocation names other members or unknown devices, or this machine lacks a GPU.
        """
        deployment = self._deployment(self.members if members is None else members)
        return make_dispatcher(replace(deployment, limits=limits or Limits(), fork_server=fork_server), self.allocation)

    def _deployment(self, members: Sequence[Member]) -> Deployment:
        manifest = self.manifest
        shape, dtype = manifest.image_shape, manifest.image_dtype
        rule = self.stop_rule
        return Deployment(members, self.devices(), shape, len(self.class_names), image_dtype=dtype, stop_rule=rule)

    def check_images(self) -> npt.NDArray[Any]:
        """Some validation images, (images, *image_shape), of `image_dtype`.

        Raises:
            BundleError: they have another shape or type.
        """
        return self._array("check/images.npy", np.dtype(self.manifest.image_dtype), self.manifest.image_shape)

    def check_probabilities(self) -> npt.NDArray[np.float32]:
        """The answers of the ensemble to `check_images`, float32 (images, classes), as proven when it was made.

        Raises:
            BundleError: they have another shape or type.
        """
        return self._array("check/probabilities.npy", np.dtype(np.float32), (len(self.class_names),))

    def full_probabilities(self) -> tuple[npt.NDArray[np.float32], float]:
        """The answers of all members to `check_images`, whether the bundle is a cascade or not.

        Returns:
            float32 (images, classes), and by how much they are rounded.

        Raises:
            BundleError: they have another shape or type.
        """
        if self.manifest.cascade is None:
            return self.check_probabilities(), 0.0
        full = self._array("check/full_probabilities.npy", np.dtype(np.float32), (len(self.class_names),))
        return full, self.manifest.cascade.rounding

    def _array(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        path = self.path / name
        try:
            # Mapped, so that a header that promises too much takes no memory.
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise BundleError("a file of the bundle is damaged", where=path, found=error, hint=_REMAKE_HINT) from None
        if array.dtype != dtype or array.shape[1:] != shape:
            raise BundleError(
                "a file of the bundle is damaged",
                where=path,
                found=f"{array.dtype} {array.shape}",
                expected=f"{dtype} (n, {', '.join(map(str, shape))})",
                hint=_REMAKE_HINT,
            )
        return np.asarray(array)


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle: its schema version is known, and its files are those that were written, no more and no less.

    Checksums tell damage, not malice: as with any model, run only bundles from people you trust.

    Raises:
        ArgumentError: `path` is none.
        BundleError: the bundle is missing, of another version, or a file of it is missing, changed or foreign.
    """
    path = file_path("path", path)
    manifest = _read_manifest(path / MANIFEST)
    _check_files(path, manifest.files)
    devices = {each.name for each in manifest.devices}
    for placement in manifest.allocation:
        if placement.device not in devices:
            raise BundleError(
                "a bundle is damaged",
                where=f"{path / MANIFEST}: allocation: {placement.model}",
                found=f"device {placement.device}",
                expected=f"one of {', '.join(sorted(devices))}",
                hint=_REMAKE_HINT,
            )
    return Bundle(path, manifest)


def split_check_images(
    images: npt.NDArray[Any], images_a_request: int = _CHECK_IMAGES_A_REQUEST
) -> list[npt.NDArray[Any]]:
    """Check images as requests: some alone, since an engine may compute a batch of one by other kernels.

    Args:
        images: (images, *image_shape).
        images_a_request: the most images of one request.
    """
    n_lone = min(LONE_IMAGES, len(images))
    starts = [*range(n_lone), *range(n_lone, len(images), min(images_a_request, _CHECK_IMAGES_A_REQUEST))]
    return [images[start:stop] for start, stop in pairwise([*starts, len(images)])]


def check_answers(bundle: Bundle, pipeline: Pipeline) -> None:
    """Have the running ensemble predict the bundle's check images, as a server does, and compare the answers.

    Raises:
        BundleError: an answer differs by more than the engines' tolerance.
        MemberError: a member failed.
    """
    answers = np.concatenate([pipeline.predict(part) for part in split_check_images(bundle.check_images())])
    tolerance = bundle.answer_tolerance(pipeline.allocation)
    require_equal_answers(answers, bundle.check_probabilities(), tolerance, bundle.path)


def require_equal_answers(
    answers: npt.NDArray[np.floating[Any]],
    expected: npt.NDArray[np.floating[Any]],
    tolerance: float,
    where: str | Path,
) -> float:
    """Refuse answers that differ from the expected ones.

    Args:
        answers: probabilities (images, classes), or those of one class a image, (images, 1).
        expected: likewise.
        tolerance: by how much a probability may differ.
        where: what the expected ones were read from, for the message.

    Returns:
        The largest difference of a probability.

    Raises:
        BundleError: an answer differs by more, or their shapes differ.
    """
    difference = np.abs(answers - expected).max(axis=1) if answers.shape == expected.shape else np.array([np.inf])
    worst = float(difference.max(initial=0.0))
    if not worst <= tolerance:  # a NaN is refused as well
        raise BundleError(
            "the bundle answers differently from the cached predictions",
            where=where,
            found=f"a probability that differs by {worst:.2g}; {int((~(difference <= tolerance)).sum())} of "
            f"{len(answers)} images differ",
            expected=f"at most {tolerance:.2g}",
            hint="the exported models and the cached predictions come from different runs: "
            "make the library again (snakemake library --forcerun cache_predictions)",
        )
    return worst


def file_checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under `folder` but the manifest, by relative path, in order."""
    return {name: _sha256(folder / name) for name in sorted(_walk(folder))}


def _read_manifest(path: Path) -> Manifest:
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            "there is no bundle", where=path.parent, expected=f"a folder with {MANIFEST}", hint="check the path"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(
            "a bundle is damaged", where=path, found=error, expected="JSON of less than 16 MB", hint=_REMAKE_HINT
        ) from None
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            "a bundle is of another version",
            where=f"{path}: schema_version",
            found=version,
            expected=SCHEMA_VERSION,
            hint="use the version of ensembleflow that made it, or make the bundle again",
        )
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise BundleError(
            "a bundle is damaged",
            where=f"{path}: {'.'.join(map(str, first['loc']))}",
            found=first["msg"],
            hint=_REMAKE_HINT,
        ) from None


def _check_files(folder: Path, checksums: dict[str, str]) -> None:
    present = set(_walk(folder))
    faults = [f"missing: {name}" for name in sorted(checksums.keys() - present)]
    faults += [f"not part of the bundle: {name}" for name in sorted(present - checksums.keys())]
    faults += [
        f"changed: {name}" for name in sorted(present & checksums.keys()) if _sha256(folder / name) != checksums[name]
    ]
    if faults:
        raise BundleError(
            "the bundle's files are not those that were written",
            where=folder,
            found="\n            ".join(faults[:10] + ([f"and {len(faults) - 10} more"] if len(faults) > 10 else [])),
            hint=_REMAKE_HINT,
        )


def _walk(folder: Path) -> Iterator[str]:
    n_files = 0
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink():
                raise BundleError("a bundle must not hold links", where=path, hint=_REMAKE_HINT)
        for name in files:
            relative = Path(parent, name).relative_to(folder).as_posix()
            if relative in (MANIFEST, _SNAKEMAKE_TIMESTAMP):
                continue
            n_files += 1
            if n_files > _MAX_FILES:
                raise BundleError("a bundle has too many files", where=folder, expected=f"at most {_MAX_FILES}")
            yield relative


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise BundleError("a file of the bundle cannot be read", where=path, found=error.strerror) from None
