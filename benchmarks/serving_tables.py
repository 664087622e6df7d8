"""The serving benchmark's tables: medians over the rounds and of the rounds' ratios, as Markdown."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from serving_contenders import IN_PROCESS, OURS, PEERS, SAME_ENGINE, Contender
from serving_limit import Limit
from serving_load import ARRIVALS

__all__ = ["Results", "print_tables"]

# At least so many times the best peer's images/s, by images per request; with the searched engine twice that.
TARGETS = {1: 10.0, 8: 3.0, 64: 1.5}
_COLUMNS = ("images_per_second", "p50_ms", "p99_ms", "n_requests")


class Results:
    """All measurements of one input."""

    def __init__(self) -> None:
        self._measured: dict[tuple[str, str, int, str], list[dict[str, Any]]] = {}

    def add(self, contender: Contender, size: int, load: str, measured: dict[str, Any]) -> None:
        """Keep the measurement of one round."""
        self._measured.setdefault((contender.name, contender.setting, size, load), []).append(measured)

    def names(self) -> list[str]:
        """The contenders, in the order in which they were measured."""
        return list(dict.fromkeys(name for name, *_ in self._measured))

    def settings(self, name: str) -> list[str]:
        """A contender's settings."""
        return list(dict.fromkeys(setting for each, setting, *_ in self._measured if each == name))

    def values(self, name: str, setting: str, size: int, column: str, load: str = "closed") -> list[float]:
        """One column, a value a round."""
        return [each[column] for each in self._measured[name, setting, size, load]]

    def best(self, name: str, size: int) -> tuple[str, list[float]]:
        """The setting with the most images/s (median), and its images/s."""
        rates = {each: self.values(name, each, size, "images_per_second") for each in self.settings(name)}
        setting = max(rates, key=lambda each: median(rates[each]))
        return setting, rates[setting]


def _print_table(title: str, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table as Markdown."""
    print(f"\n{title}\n")
    for line in [columns, ["---"] * len(columns), *rows]:
        print("| " + " | ".join(_text(each) for each in line) + " |")
    sys.stdout.flush()


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(numerator: list[float], denominator: list[float]) -> float:
    return median(a / b for a, b in zip(numerator, denominator, strict=True))


def print_tables(title: str, results: Results, limits: dict[str, Limit], arguments: argparse.Namespace) -> None:
    """All tables of one input."""
    print(f"\n### {title}")
    names = results.names()
    for size in arguments.sizes:
        _print_size(size, results, limits)
    if SAME_ENGINE in names and set(names) & set(PEERS):
        _print_targets(results, arguments.sizes)
    if {SAME_ENGINE, IN_PROCESS} <= set(names):
        rows = []
        for size in arguments.sizes:
            served = results.values(SAME_ENGINE, "", size, "images_per_second")
            direct = results.values(IN_PROCESS, "", size, "images_per_second")
            rows.append([size, median(served), median(direct), f"{100 * (1 - _ratio(served, direct)):.1f} %"])
        columns = ("images per request", "server images/s", "in process images/s", "HTTP costs")
        _print_table("What the HTTP layer costs, with as many requests at once (at most 10 % at 64)", columns, rows)
    _print_half_load(results, arguments.sizes)
    rows = [
        [name, limit.images_per_second, limit.gflop_per_image * 1000, limit.gflops] for name, limit in limits.items()
    ]
    _print_table("The machine's limit", ("engines", "images/s", "MFLOP an image", "GFLOP/s"), rows)


def _print_size(size: int, results: Results, limits: dict[str, Limit]) -> None:
    ourselves = [name for name in OURS if name in results.names()]
    columns = ["contender", "setting", "images/s", "p50 ms", "p99 ms", "requests"]
    columns += [f"{name}, times it" for name in ourselves]
    columns += [f"of the limit, {name}" for name in limits]
    rows = []
    for name in results.names():
        best, _ = results.best(name, size)
        for setting in results.settings(name):
            rates = results.values(name, setting, size, "images_per_second")
            mark = " (best)" if setting == best and len(results.settings(name)) > 1 else ""
            row: list[object] = [name, setting + mark]
            row += [median(results.values(name, setting, size, each)) for each in _COLUMNS]
            row += [_ratio(results.best(each, size)[1], rates) for each in ourselves]
            row += [f"{100 * median(rates) / limit.images_per_second:.0f} %" for limit in limits.values()]
            rows.append(row)
    _print_table(f"{size} images per request", columns, rows)


def _print_targets(results: Results, sizes: Sequence[int]) -> None:
    ourselves = [name for name in OURS if name in results.names()]
    rows = []
    for size in sizes:
        rates = {name: results.best(name, size) for name in results.names() if name in PEERS}
        best = max(rates, key=lambda name: median(rates[name][1]))
        setting, theirs = rates[best]
        row: list[object] = [size, f"{best}, {setting}", median(theirs)]
        for name in ourselves:
            factor = 1 if name == SAME_ENGINE else 2
            target = f"{factor * TARGETS[size]:g}" if size in TARGETS else ""
            row += [_ratio(results.best(name, size)[1], theirs), target]
        rows.append(row)
    columns = ["images per request", "best peer", "its images/s"]
    for name in ourselves:
        columns += [f"{name}, times it", "target"]
    _print_table("Against the best peer", columns, rows)


def _print_half_load(results: Results, sizes: Sequence[int]) -> None:
    rows = []
    for name in OURS:
        for size in sizes if name in results.names() else ():
            row: list[object] = [name, size]
            for arrivals in ARRIVALS:
                offered, p50, p99 = (
                    results.values(name, "", size, each, arrivals) for each in ("images_per_second", "p50_ms", "p99_ms")
                )
                row += [median(offered), median(p50), median(p99), _ratio(p99, p50)]
            rows.append(row)
    if rows:
        columns = ["contender", "images per request"]
        for arrivals in ARRIVALS:
            columns += [f"{each}, {arrivals}" for each in ("images/s", "p50 ms", "p99 ms", "p99 over p50")]
        _print_table("At half the load, requests at even and at random moments (p99 under 3 times p50)", columns, rows)
