"""Energy that a device has used, where its counter can be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ensembleflow.models.gpu import gpu_energy_joules

__all__ = ["open_energy_counter"]

_POWERCAP = Path("/sys/class/powercap")


def open_energy_counter(*, use_gpu: bool, powercap: Path = _POWERCAP) -> Callable[[], float] | None:
    """A function that tells the joules used since some fixed time, by all processes; None where nothing tells them.

    Args:
        use_gpu: of the GPU that this process computes on (NVML's counter), rather than of the machine's processors,
            all cores of them (RAPL's counters, which many systems let only the administrator read).
        powercap: where Linux shows RAPL's counters.

    Returns:
        The counter, which gives not a number when it can no longer be read.
    """
    if use_gpu:
        return _gpu_joules if gpu_energy_joules() is not None else None
    try:
        packages = [
            _Package(domain)
            for domain in sorted(powercap.glob("intel-rapl:*"))  # AMD's are called so too
            # Parts of a package stand beside it, as `intel-rapl:0:0`; `psys` is the whole board, packages included.
            if domain.name.count(":") == 1 and (domain / "name").read_text(encoding="ascii").startswith("package")
        ]
    except (OSError, ValueError):
        return None
    return (lambda: sum(package.joules() for package in packages)) if packages else None


def _gpu_joules() -> float:
    joules = gpu_energy_joules()
    return float("nan") if joules is None else joules


class _Package:
    """One processor's counter, which starts again at 0 after some minutes of full load; to be read before it has twice.

    Raises:
        OSError: it cannot be read.
    """

    def __init__(self, domain: Path) -> None:
        self._energy = domain / "energy_uj"
        self._range = int((domain / "max_energy_range_uj").read_text(encoding="ascii"))
        self._last = int(self._energy.read_text(encoding="ascii"))
        self._total = 0

    def joules(self) -> float:
        try:
            now = int(self._energy.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return float("nan")
        self._total += now - self._last if now >= self._last else now - self._last + self._range + 1
        self._last = now
        return self._total / 1e6
