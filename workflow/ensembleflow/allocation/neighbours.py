"""The allocations near one, in the order in which they are worth a bench."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ensembleflow.allocation.beam_search import beam_search
from ensembleflow.allocation.benches.profile_table import ProfileTable
from ensembleflow.allocation.predicted import predicted_seconds
from ensembleflow.allocation.worst_fit import start_placement
from ensembleflow.inference.devices import Device
from ensembleflow.inference.placement import Allocation, Placement

__all__ = ["Neighbourhood"]

Move = tuple[str, Allocation]
_Key = tuple[float, float]


class Neighbourhood:
    """What allocations of some members on some devices are near each other, and how fast they should be.

    Args:
        devices: where members may go.
        profiles: the engines and batch sizes with which each member runs on each kind of device, and their memory.
        n_images: images of the request whose duration is to be short.
        max_replicas: devices that a member may run on at once.
    """

    def __init__(self, devices: Sequence[Device], profiles: ProfileTable, n_images: int, max_replicas: int = 1) -> None:
        self._devices = {device.name: device for device in devices}
        self._order = {device.name: place for place, device in enumerate(devices)}
        self._profiles = profiles
        self._n_images = n_images
        self._max_replicas = max_replicas
        n_users = Counter(core for device in devices for core in device.core_ids)
        self._alike = {
            device.name: (
                device.kind,
                device.speed,
                device.memory_mb,
                "" if all(n_users[core] == 1 for core in device.core_ids) else device.name,
            )
            for device in devices
        }

    def signature(self, allocation: Allocation) -> tuple[object, ...]:
        """Equal for allocations that differ only in which of several equal devices does what.

        Devices are equal that share their profiles, are as large and as fast, and have their cores to themselves.
        """
        on: dict[str, list[tuple[str, int, str]]] = {name: [] for name in self._devices}
        for each in allocation:
            on[each.device].append((each.model, each.batch_size, each.engine))
        return tuple(sorted((self._alike[name], tuple(sorted(placed))) for name, placed in on.items()))

    def neighbours(self, allocation: Allocation) -> list[Move]:
        """All allocations one update away that fit in memory, those that should be fastest first.

        One update gives one member another batch size or engine, another device, a replica on one more device, or
        one replica less. Only settings that have run in a profile are used. A member keeps its engine and batch size
        on another device if they run there; otherwise it has those with which worst-fit would start it.

        Returns:
            pairs of what changes (`trial-00003: cpu0 -> cpu1`, `trial-00003: batch 8 -> 32`) and the allocation.

        Source: the paper's section 2.4, "all neighborhood settings distant from 1 update"; engines and replicas are
        not in the paper.
        """
        return self._ordered(allocation, self._updates(allocation))

    def second_chances(self, allocation: Allocation) -> list[Move]:
        """More distant allocations, those that should be fastest first: where no single update is better.

        These are the exchanges of two members' devices (where devices are full, or loads differ by less than a
        member, no single update leads there), and what is best by the profiles alone among all allocations.
        """
        moves = [("predicted by the profiles", each) for each in self._far(allocation)]
        return self._ordered(allocation, itertools.chain(self._exchanges(allocation), moves))

    def best_predicted(self, allocation: Allocation) -> Allocation:
        """The best that single updates and exchanges reach by the profiles alone, without a bench."""
        start = min([allocation, *self._far(allocation)[:1]], key=self._key)
        best = self._key(start)
        while True:
            moves = [*self._updates(start), *self._exchanges(start)]
            key, place = min(
                ((self._key(changed), place) for place, (_, changed) in enumerate(moves)), default=(best, 0)
            )
            if key >= best:
                return start
            best, start = key, moves[place][1]

    def predicted_seconds(self, allocation: Allocation) -> float:
        """Seconds that the request should take, by the profiles alone."""
        return self._key(allocation)[0]

    def _key(self, allocation: Allocation) -> _Key:
        return predicted_seconds(allocation, self._devices, self._profiles, self._n_images)

    def _ordered(self, allocation: Allocation, moves: Iterable[Move]) -> list[Move]:
        running = {(each.model, each.device, each.engine) for each in allocation}

        def starts(changed: Allocation) -> int:
            return sum((each.model, each.device, each.engine) not in running for each in changed)

        # Last come those that should change nothing, such as batch sizes beyond a request's. Among equals those that
        # start no process come first; the sort keeps the order of the members.
        now = self._key(allocation)
        keys = [(move, self._key(move[1])) for move in moves]
        keys.sort(key=lambda each: (each[1] == now, each[1], starts(each[0][1])))
        return [move for move, _ in keys]

    def _far(self, allocation: Allocation) -> list[Allocation]:
        models = list(dict.fromkeys(each.model for each in allocation))
        return beam_search(models, tuple(self._devices.values()), self._profiles, self._n_images)

    def _updates(self, allocation: Allocation) -> Iterator[Move]:
        used_mb = self._profiles.used_mb(allocation, self._devices)
        groups = {model: tuple(group) for model, group in itertools.groupby(allocation, lambda each: each.model)}
        for model, group in groups.items():
            devices = {each.device for each in group}

            for old in group:
                name = model if len(group) == 1 else f"{model}@{old.device}"
                for new in self._other_settings(old):
                    if self._fits(used_mb, [old], [new]):
                        what = (
                            f"engine {old.engine} -> {new.engine}"
                            if new.engine != old.engine
                            else f"batch {old.batch_size} -> {new.batch_size}"
                        )
                        yield f"{name}: {what}", self._replaced(allocation, [old], [new])
                for new in self._elsewhere(old, devices):
                    if self._fits(used_mb, [old], [new]):
                        yield f"{model}: {old.device} -> {new.device}", self._replaced(allocation, [old], [new])
                if len(group) > 1:
                    yield f"{model}: no replica on {old.device}", self._replaced(allocation, [old], [])
            if len(group) < self._max_replicas:
                for new in self._elsewhere(group[0], devices):
                    if self._fits(used_mb, [], [new]):
                        yield f"{model}: replica on {new.device}", self._replaced(allocation, [], [new])

    def _exchanges(self, allocation: Allocation) -> Iterator[Move]:
        used_mb = self._profiles.used_mb(allocation, self._devices)
        devices_of: dict[str, set[str]] = {}
        for each in allocation:
            devices_of.setdefault(each.model, set()).add(each.device)
        for one, other in itertools.combinations(allocation, 2):
            if other.device in devices_of[one.model] or one.device in devices_of[other.model]:
                continue
            there, here = self._at(one, other.device), self._at(other, one.device)
            if there and here and self._fits(used_mb, [one, other], [there, here]):
                changed = self._replaced(allocation, [one, other], [there, here])
                yield f"{one.model} <-> {other.model}: {one.device} <-> {other.device}", changed

    def _replaced(self, allocation: Allocation, old: list[Placement], new: list[Placement]) -> Allocation:
        """The allocation without the old and with the new placements; replicas in the devices' order."""
        groups: dict[str, list[Placement]] = {each.model: [] for each in allocation}
        for each in (*(each for each in allocation if each not in old), *new):
            groups[each.model].append(each)
        for group in groups.values():
            group.sort(key=lambda each: self._order[each.device])
        return tuple(each for group in groups.values() for each in group)

    def _other_settings(self, old: Placement) -> Iterator[Placement]:
        for run in self._profiles.runs(old.model, self._devices[old.device].kind):
            if (run.engine == old.engine) != (run.batch_size == old.batch_size):
                yield replace(old, engine=run.engine, batch_size=run.batch_size)

    def _elsewhere(self, old: Placement, taken: set[str]) -> Iterator[Placement]:
        for name in self._devices:
            new = self._at(old, name)
            if name not in taken and new is not None:
                yield new

    def _at(self, old: Placement, name: str) -> Placement | None:
        device = self._devices[name]
        same = replace(old, device=name)
        return same if self._profiles.find(same, device) else start_placement(old.model, device, self._profiles)

    def _fits(self, used_mb: dict[str, float], old: list[Placement], new: list[Placement]) -> bool:
        added = dict.fromkeys((each.device for each in new), 0.0)
        for each in old:
            if each.device in added:
                added[each.device] -= self._profiles.memory_mb(each, self._devices[each.device])
        for each in new:
            added[each.device] += self._profiles.memory_mb(each, self._devices[each.device])
        # An update that frees memory is allowed even where too much is taken already.
        return all(more <= 0 or used_mb[name] + more <= self._devices[name].memory_mb for name, more in added.items())
