"""The processors' energy, from the counters that Linux shows as files."""

from __future__ import annotations

import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.models import open_energy_counter

RANGE = 262_143_328_850


def domain(powercap: Path, name: str, kind: str, microjoules: int) -> Path:
    """A counter as Linux shows it."""
    folder = powercap / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{kind}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder


def spend(folder: Path, microjoules: int) -> None:
    energy = folder / "energy_uj"
    energy.write_text(f"{(int(energy.read_text()) + microjoules) % (RANGE + 1)}\n")


def test_packages_are_added_up_and_their_parts_are_not_counted_twice(tmp_path: Path) -> None:
    packages = [domain(tmp_path, f"intel-rapl:{i}", f"package-{i}", 10**9 + i) for i in range(2)]
    core = domain(tmp_path, "intel-rapl:0:0", "core", 5)
    board = domain(tmp_path, "intel-rapl:2", "psys", 7)
    read_joules = open_energy_counter(use_gpu=False, powercap=tmp_path)
    assert read_joules is not None
    before = read_joules()
    for folder, microjoules in zip([*packages, core, board], (2_000_000, 3_500_000, 10**6, 10**7), strict=True):
        spend(folder, microjoules)
    assert read_joules() - before == 5.5


@given(first=st.integers(0, RANGE), spent=st.lists(st.integers(0, RANGE), max_size=6))
def test_a_counter_that_starts_again_loses_nothing(tmp_path_factory, first: int, spent: list[int]) -> None:
    powercap = tmp_path_factory.mktemp("powercap")
    package = domain(powercap, "intel-rapl:0", "package-0", first)
    read_joules = open_energy_counter(use_gpu=False, powercap=powercap)
    assert read_joules is not None
    for microjoules in spent:
        spend(package, microjoules)
        read_joules()
    assert read_joules() == sum(spent) / 1e6


def test_what_cannot_be_read_is_not_made_up(tmp_path: Path) -> None:
    assert open_energy_counter(use_gpu=False, powercap=tmp_path / "absent") is None
    package = domain(tmp_path, "intel-rapl:0", "package-0", 1)
    read_joules = open_energy_counter(use_gpu=False, powercap=tmp_path)
    (package / "energy_uj").unlink()
    assert read_joules is not None and math.isnan(read_joules())
    assert open_energy_counter(use_gpu=False, powercap=tmp_path) is None
