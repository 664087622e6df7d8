"""A member's profiles, measured once for all ensembles that it is in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ensembleflow.allocation.benches.profile import Profile, Recall
from ensembleflow.allocation.shared_result import array_checksum, folder_checksum, measured_with, shared_result
from ensembleflow.inference.devices import Device
from ensembleflow.inference.placement import Member
from ensembleflow.io import read_json, write_json

__all__ = ["remembered_profiles"]

_PROFILES = "profiles.json"


def remembered_profiles(store_dir: str | Path, taker: str) -> Recall:
    """A `Recall` that takes what another job has measured from the store, and leaves there what it measures itself.

    A run is found by all that it depends on: what is in the member's folder, not its name; the kind of device, engine,
    batch sizes, images, the answers to be given, code, packages and machine. A job that is run again measures again:
    see `shared_result`. Failures are not taken from others: what kills one process need not kill the next.

    Args:
        store_dir: shared by all jobs of a study.
        taker: the job, by a name that it has each time it runs.
    """

    def recall(
        member: Member,
        device: Device,
        images: npt.NDArray[Any],
        settings: Mapping[str, Any],
        measure: Callable[[], list[Profile]],
    ) -> list[Profile]:
        depends = {name: value for name, value in settings.items() if name not in ("exported", "core_ids", "expected")}
        expected = settings["expected"]
        key = {
            **depends,
            "member": folder_checksum(member.exported),
            "device": [device.kind, len(device.core_ids)],
            "images": array_checksum(images),
            "expected": None if expected is None else array_checksum(expected),
            **measured_with(),
        }
        measured: list[Profile] = []

        def make(folder: Path) -> None:
            measured.extend(measure())
            write_json(folder / _PROFILES, {"profiles": [asdict(each) for each in measured]})

        with shared_result(store_dir, key, taker, make) as folder:
            if measured:
                return measured
            rows = read_json(folder / _PROFILES, ["profiles"])["profiles"]
        found = [replace(Profile(**row), model=member.model) for row in rows]
        return measure() if any(each.failure for each in found) else found

    return recall
