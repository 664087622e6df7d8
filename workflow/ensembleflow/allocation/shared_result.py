"""One making of what several budgets ask for alike, whichever job asks first, on whichever machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import ensembleflow
from ensembleflow.config import canonical_json
from ensembleflow.inference.machine import usable_cores
from ensembleflow.io import atomic_directory, file_sha256, provenance, write_json
from ensembleflow.models.gpu import visible_gpus
from ensembleflow.search.lease import Lease

__all__ = ["array_checksum", "folder_checksum", "made_by", "measured_with", "shared_result"]


@contextmanager
def shared_result(
    store_dir: str | Path, key: Mapping[str, Any], taker: str, make: Callable[[Path], None]
) -> Iterator[Path]:
    """The folder of a result in the store, made unless it is there; to be copied from in a `with` block.

    Jobs that want the same at the same time wait for each other: a lease is held to the end of the block. A result is
    never taken by the same taker twice: a job that asks again is being run again, so it makes the result anew, for
    itself and for all that ask again later. What was interrupted is not in the store.

    Args:
        store_dir: shared by all takers; it may be deleted whenever no job runs.
        key: all that the result depends on, as JSON has it.
        taker: who asks.
        make: writes the result into the empty folder that it is given.
    """
    fingerprint = hashlib.sha256(canonical_json(key).encode("utf-8")).hexdigest()[:32]
    entry = Path(store_dir, fingerprint)
    taken = entry / "takers" / f"{taker}.json"
    with Lease(Path(store_dir, f"{fingerprint}.lease")):
        if taken.exists() or not entry.is_dir():
            with atomic_directory(entry) as aside:
                make(aside)
        yield entry
        write_json(taken, {"taker": taker})  # not where it was interrupted: then nothing was taken


def folder_checksum(folder: str | Path, pattern: str = "**/*") -> str:
    """SHA-256 of a folder's files that match, names and contents."""
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(folder).glob(pattern) if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\0".encode())
    return digest.hexdigest()


def array_checksum(array: np.ndarray[Any, Any]) -> str:
    """SHA-256 of an array's type, shape and values."""
    about = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(about + np.ascontiguousarray(array).tobytes()).hexdigest()


def made_by(*folders: str) -> dict[str, Any]:
    """The code in some of the package's folders, the packages and the kind of machine, for a key."""
    package, about = Path(ensembleflow.__file__).parent, provenance()
    return {
        "code": {folder: folder_checksum(package / folder, "**/*.py") for folder in folders},
        "packages": {"python": about["python"], **about["packages"]},
        # Two jobs of a machine may see different ones of its GPUs, which are alike.
        "machine": {name: value for name, value in about["machine"].items() if name != "cuda_visible_devices"},
    }


def measured_with() -> dict[str, Any]:
    """The code and the machine that speeds of members are measured with, for a key."""
    return {
        "made_by": made_by("allocation", "inference", "models"),
        "usable_cores": len(usable_cores()),
        "gpus": [gpu.name for gpu in visible_gpus()],
    }
