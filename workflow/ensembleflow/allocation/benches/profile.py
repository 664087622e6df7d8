"""What each member needs and reaches on each kind of device, measured in fresh processes."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensembleflow.inference.devices import Device
from ensembleflow.inference.fork_server import ForkServer, start_member_process
from ensembleflow.inference.member_process import MemberProcess, reason_of_death
from ensembleflow.inference.placement import Member
from ensembleflow.inference.shared_array import SharedArray
from ensembleflow.models.tolerances import answer_tolerance

__all__ = ["Profile", "Recall", "profile_members", "profiles_from_table", "profiles_table"]

_LOG = logging.getLogger("ensembleflow.allocation")

_SCRIPT = Path(__file__).with_name("profile_process.py")

# Importing TensorFlow takes ten seconds, and minutes where many processes read it from a cluster's file system.
_START_TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True)
class Profile:
    """One member on one kind of device, with one engine, at one batch size.

    Attributes:
        model: the member's model id.
        device_kind: `Device.kind`.
        engine: a name of `ensembleflow.models.engines.ENGINES`.
        batch_size: images per call.
        images_per_second: median over the calls; 0 after a failure.
        peak_memory_mb: the most memory that the process had of the device; 0 after a failure.
        failure: empty, or why it could not run.
    """

    model: str
    device_kind: str
    engine: str
    batch_size: int
    images_per_second: float
    peak_memory_mb: float
    failure: str = ""


Recall = Callable[[Member, Device, npt.NDArray[Any], Mapping[str, Any], Callable[[], list[Profile]]], list[Profile]]
"""Gives a run's profiles, measured before or now: from its member, its device, the images and settings that it depends
on, and the function that measures."""


def profile_members(
    members: Sequence[Member],
    devices: Sequence[Device],
    engines: Sequence[str],
    batch_sizes: Sequence[int],
    images: npt.NDArray[Any],
    *,
    expected: Mapping[str, npt.NDArray[np.floating]] | None = None,
    expected_rounding: float = 0.0,
    min_calls: int = 5,
    seconds: float = 0.5,
    timeout_seconds: float = 120.0,
    fork_server: ForkServer | None = None,
    recall: Recall | None = None,
) -> list[Profile]:
    """Measure each member on each kind of device with each engine, at each batch size.

    A member, a kind and an engine are one run. It has a fresh process, bound to the cores of the first device of that
    kind, which takes the batch sizes in ascending order, so that its peak memory is that of each. What fails at a batch
    size (out of memory, killed, hung, an error of the engine or the model) scores 0 there and at the larger ones, and
    harms nothing else. Processes run one after the other, so nothing but the rest of the machine disturbs them.

    Args:
        members: the members; for ONNX Runtime in folders of `prepare_members`.
        devices: where members may go; of a kind only the first is used.
        engines: names of `ensembleflow.models.engines.ENGINES`.
        batch_sizes: images per call.
        images: at least one, (images, *image_shape); repeated up to the largest batch.
        expected: by model id, what it must answer to the first of `images`, (at most images, classes): an engine that
            answers otherwise fails. None checks nothing.
        expected_rounding: by how much `expected` may be off by itself; beyond that an engine has its tolerance
            (`ensembleflow.models.tolerances`).
        min_calls: calls measured at a batch size, at least; their median counts. (One call before them is not.)
        seconds: calls go on for as long.
        timeout_seconds: the most that a batch size may take, from its first call to its last; the start has its own.
        fork_server: what TensorFlow's processes may be forked from; a fork is as fresh, for nothing used TensorFlow.
        recall: takes what was measured before instead; see `Recall`.

    Returns:
        A profile for each member, kind, engine and batch size, in this order, batch sizes ascending.
    """
    kinds = {device.kind: device for device in reversed(devices)}
    runs = [
        (member, kinds[kind], engine)
        for member in members
        for kind in dict.fromkeys(device.kind for device in devices)
        for engine in engines
    ]
    sizes = sorted(set(batch_sizes))
    answers = expected or {}
    n_images = max([*sizes, *map(len, answers.values())])
    shared = SharedArray((n_images, *images.shape[1:]), images.dtype)
    profiles: list[Profile] = []
    try:
        shared.array[:] = np.resize(images, shared.array.shape)  # repeats whole images
        for number, (member, device, engine) in enumerate(runs, start=1):
            settings = {
                "exported": str(Path(member.exported).resolve()),
                "engine": engine,
                "core_ids": device.core_ids,
                "gpu": device.gpu is not None,
                "images_shape": shared.array.shape,
                "images_dtype": shared.array.dtype.name,
                "expected": answers.get(member.model),
                "tolerance": answer_tolerance([engine]) + expected_rounding,
                "batch_sizes": sizes,
                "min_calls": min_calls,
                "seconds": seconds,
            }

            def measure(
                member: Member = member, device: Device = device, settings: dict[str, Any] = settings
            ) -> list[Profile]:
                measured, failure = _measure(settings, shared.fd, device.gpu, timeout_seconds, fork_server)
                measured += [(0.0, 0.0)] * (len(sizes) - len(measured))
                return [
                    Profile(member.model, device.kind, settings["engine"], size, *values, "" if values[0] else failure)
                    for size, values in zip(sizes, measured, strict=True)
                ]

            found = measure() if recall is None else recall(member, device, shared.array, settings, measure)
            profiles += found
            _log_run(found, number, len(runs))
    finally:
        shared.close()
    return profiles


def profiles_table(profiles: Iterable[Profile]) -> pd.DataFrame:
    """A row a profile, a column an attribute."""
    return pd.DataFrame([asdict(each) for each in profiles], columns=[field.name for field in fields(Profile)])


def profiles_from_table(table: pd.DataFrame) -> list[Profile]:
    """The profiles of `profiles_table`, also after the table was a CSV file."""
    rows = table.astype({"model": str, "failure": object}).fillna({"failure": ""}).to_dict("records")
    return [Profile(**{field.name: row[field.name] for field in fields(Profile)}) for row in rows]


def _measure(
    settings: Mapping[str, Any],
    images_fd: int,
    gpu: str | None,
    timeout_seconds: float,
    fork_server: ForkServer | None,
) -> tuple[list[tuple[float, float]], str]:
    """(images/s, peak memory in MB) at each batch size that worked, and why the next one did not."""
    measured: list[tuple[float, float]] = []
    with _process(settings["engine"], images_fd, gpu, fork_server) as (control, process, output):
        try:
            control.send(settings)
            for number in range(1 + len(settings["batch_sizes"])):
                limit_seconds = timeout_seconds if number else _START_TIMEOUT_SECONDS
                if not control.poll(limit_seconds):
                    return measured, f"no answer within {limit_seconds:g} seconds"
                answer, *values = control.recv()
                if answer == "failed":
                    return measured, values[0]
                if answer == "measured":
                    measured.append((values[0], values[1]))
        except (EOFError, OSError):
            return measured, reason_of_death(process, output)
    return measured, ""


@contextmanager
def _process(
    engine: str, images_fd: int, gpu: str | None, fork_server: ForkServer | None
) -> Iterator[tuple[Connection, MemberProcess, IO[bytes]]]:
    control, theirs = Pipe()
    with tempfile.TemporaryFile() as output, control:
        with theirs:
            fds = (theirs.fileno(), images_fd)
            process = start_member_process(_SCRIPT, engine, fds, output, gpu=gpu, fork_server=fork_server)
        try:
            yield control, process, output
        finally:
            process.kill()  # it has nothing to lose
            process.wait()


def _log_run(profiles: Sequence[Profile], number: int, n_runs: int) -> None:
    first, best = profiles[0], max(profiles, key=lambda each: each.images_per_second)
    failed = next((f"; fails at batch {each.batch_size}: {each.failure}" for each in profiles if each.failure), "")
    _LOG.info(
        "profiles: %d/%d: %s on %s with %s: %s",
        number,
        n_runs,
        first.model,
        first.device_kind,
        first.engine,
        f"{best.images_per_second:,.0f} images/s at batch {best.batch_size}, {best.peak_memory_mb:,.0f} MB{failed}",
        extra={"progress": True},
    )
