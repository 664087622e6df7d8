"""Workers of a Dask cluster, each of which holds its own samples for the whole selection."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from distributed import Client, Future, KilledWorker, Worker, get_worker
from distributed import TimeoutError as DaskTimeoutError

from ensembleflow.errors import SelectionError
from ensembleflow.selection.sums.checks import Ranges
from ensembleflow.selection.sums.losses import Prefixes
from ensembleflow.selection.sums.partition import Partition, Source, partitions_of

__all__ = ["DaskWorkers"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_SECONDS_WITHOUT_WORKERS = 120.0
_SECONDS_BETWEEN_LOOKS = 2.0
_DEATHS_IN_A_ROW = 3


class DaskWorkers:
    """Sums over the samples by the workers of a Dask cluster.

    Each worker reads its own samples where they lie and keeps them; what travels are the members' indices, and one
    partial sum per block and candidate. A worker that dies costs nothing but time: another one reads its samples.

    Args:
        client: of the cluster; its workers must be able to read the source.
        source: where the probabilities are.
        loss: a name of `METRICS`.
        memory_bytes: what each worker may hold; a partition beyond that is read anew for each step.
        block_samples: another length of blocks, for tests.

    Raises:
        SelectionError: the cluster has no worker.
    """

    def __init__(
        self,
        client: Client,
        source: Source,
        loss: str,
        memory_bytes: int | None = None,
        block_samples: int | None = None,
    ) -> None:
        self._client, self._memory_bytes = client, memory_bytes
        self._token = uuid.uuid4().hex
        self._homes: list[str] = []
        self._deaths: Counter[int] = Counter()
        self._partitions = partitions_of(source, loss, len(self._addresses()), block_samples=block_samples)

    def ranges(self) -> Iterable[Ranges]:
        """Each partition's ranges of values, in the samples' order."""
        return self._map("ranges")

    def block_sums(self, prefixes: Prefixes, candidates: IntArray) -> Iterable[FloatArray]:
        """Each partition's sums, in the samples' order.

        Raises:
            SelectionError: every worker is gone, or the samples kill whoever holds them.
        """
        return self._map("block_sums", prefixes, candidates)

    def close(self) -> None:
        """Let the workers forget their samples."""
        self._client.run(_forget, self._token, None, on_error="ignore")

    def _map(self, method: str, *arguments: Any) -> list[Any]:
        results: dict[int, Any] = {}
        with_partition = False
        while left := [place for place in range(len(self._partitions)) if place not in results]:
            self._settle()
            futures = [self._submit(place, with_partition, method, arguments) for place in left]
            found = zip(left, map(self._result, left, futures), strict=True)
            results |= {place: value for place, value in found if value is not None}
            # What a partition is made of travels to whoever does not hold it, and only then.
            with_partition = True
        return [results[place] for place in range(len(self._partitions))]

    def _submit(self, place: int, with_partition: bool, method: str, arguments: tuple[Any, ...]) -> Future:
        return self._client.submit(
            _work,
            self._key(place),
            self._partitions[place] if with_partition else None,
            self._memory_bytes,
            method,
            arguments,
            workers=[self._homes[place]],
            # When that worker dies meanwhile, another one takes its place.
            allow_other_workers=True,
            pure=False,
            key=f"{method}-{place}-{uuid.uuid4().hex}",
        )

    def _result(self, place: int, future: Future) -> Any:
        """What a task found; None if its worker does not hold the partition, or is gone and nobody took its place."""
        alone_since = None
        while True:
            try:
                found = future.result(timeout=_SECONDS_BETWEEN_LOOKS)
            except DaskTimeoutError:
                workers = self._client.scheduler_info()["workers"]
            except KilledWorker:
                raise self._killed(place) from None
            else:
                if found is not None:
                    self._deaths[place] = 0
                return found
            if not workers:
                alone_since = alone_since or time.monotonic()
                if time.monotonic() - alone_since > _SECONDS_WITHOUT_WORKERS:
                    raise _no_worker("the last Dask worker is gone and none has come back")
            elif self._homes[place] not in workers:
                # A task whose worker was the only one is not given to one that joins later.
                future.cancel()
                self._deaths[place] += 1
                if self._deaths[place] > _DEATHS_IN_A_ROW:
                    raise self._killed(place)
                return None

    def _killed(self, place: int) -> SelectionError:
        bounds = self._partitions[place].bounds
        return SelectionError(
            "whichever worker takes up a part of the samples is killed",
            where=f"samples {bounds[0][0]} to {bounds[-1][1] - 1}",
            found=f"{_DEATHS_IN_A_ROW + 1} dead workers in a row",
            hint="out of memory, most likely: give the job more (resources.selection.mem_mb) or more nodes",
        )

    def _settle(self) -> None:
        """Give each partition a living worker, and each worker no more than its share."""
        addresses = self._addresses()
        most = -(-len(self._partitions) // len(addresses))
        load: Counter[str] = Counter(dict.fromkeys(addresses, 0))
        kept = []
        for home in self._homes or [""] * len(self._partitions):
            stays = home in load and load[home] < most
            load[home] += stays
            kept.append(home if stays else "")
        for place, home in enumerate(kept):
            if not home:
                kept[place] = min(addresses, key=lambda address: load[address])
                load[kept[place]] += 1
        if self._homes and kept != self._homes:
            homes = {self._key(place): home for place, home in enumerate(kept)}
            self._client.run(_forget, self._token, homes, on_error="ignore")
        self._homes = kept

    def _key(self, place: int) -> str:
        return f"{self._token}-{place}"

    def _addresses(self) -> list[str]:
        if not (addresses := sorted(self._client.scheduler_info()["workers"])):
            try:
                self._client.wait_for_workers(1, timeout=_SECONDS_WITHOUT_WORKERS)
            except DaskTimeoutError:
                raise _no_worker("the Dask cluster has no worker") from None
            addresses = sorted(self._client.scheduler_info()["workers"])
        return addresses


def _no_worker(what: str) -> SelectionError:
    return SelectionError(what, hint="the workers' own messages are in the rule's log")


# What the workers of this process hold, of every selection that they take part in.
_partitions: dict[tuple[str, str], Partition] = {}
_lock = threading.Lock()


def _work(
    key: str, partition: Partition | None, memory_bytes: int | None, method: str, arguments: tuple[Any, ...]
) -> Any:
    """A partition's answer, or None if this worker neither holds it nor was given it."""
    address = get_worker().address
    with _lock:
        mine = _partitions.get((address, key))
        if mine is None:
            if partition is None:
                return None
            others = [other for (holder, _), other in _partitions.items() if holder == address and other.hold]
            held = sum(other.n_bytes for other in others)
            partition.hold = memory_bytes is None or held + partition.n_bytes <= memory_bytes
            mine = _partitions[address, key] = partition
    return getattr(mine, method)(*arguments)


def _forget(token: str, homes: dict[str, str] | None, dask_worker: Worker) -> None:
    """Let go of a selection's partitions but those that are at home here."""
    with _lock:
        for holder, key in list(_partitions):
            if holder == dask_worker.address and key.startswith(token) and (homes or {}).get(key) != holder:
                del _partitions[holder, key]
