"""Being the process of one member: bound to its device's cores, with the model loaded by its engine.

What a child process runs is here, not with the code that starts it: importing that would cost each child 40 MB.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ensembleflow.errors import EnsembleflowError
from ensembleflow.models.engines.load import import_engine, load_engine
from ensembleflow.models.engines.loaded import LoadedEngine

__all__ = [
    "count_as_if_not_forked",
    "error_text",
    "import_without_keras",
    "load_pinned",
    "peak_memory_mb",
    "pin_to_cores",
    "resident_files_mb",
]


def load_pinned(engine: str, exported: str | Path, core_ids: Sequence[int], *, gpu: bool = False) -> LoadedEngine:
    """Load a member with as many threads as cores, and bind this process to these.

    Raises:
        EngineError, ArtefactError: as `load_engine`.
    """
    import_without_keras(engine)
    # Between the import, which is long and may use any core (the members of one device would wait for each
    # other), and the first use, when an engine counts the cores that it has and makes its threads.
    pin_to_cores(core_ids)
    return load_engine(engine, Path(exported), len(core_ids), gpu=gpu)


def import_without_keras(engine: str) -> None:
    """Import an engine; for TensorFlow without Keras, for this whole process.

    Raises:
        EngineError: as `import_engine`.
    """
    # An exported function needs TensorFlow alone, which imports Keras only if it is there: half the
    # start-up time and a fifth of the memory are Keras and what it imports.
    sys.modules["keras"] = None  # type: ignore[assignment]
    import_engine(engine)


def pin_to_cores(core_ids: Iterable[int]) -> None:
    """Bind every thread of this process, the engine's included, to `core_ids`; no-op where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = set(core_ids)
    done: set[int] = set()
    while threads := {int(entry.name) for entry in Path("/proc/self/task").iterdir()} - done:
        for thread in threads:
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.sched_setaffinity(thread, cores)
        done |= threads  # a thread born meanwhile is found in the next round, or was born bound


# Libraries' pages that a process had before it forked this one, in MB.
_forked_without_mb = 0.0


def count_as_if_not_forked(files_mb: float) -> None:
    """Have `peak_memory_mb` tell what this process would have taken, had it imported its engine itself.

    A fork begins without the pages of files, of which TensorFlow's libraries take most of a small member's memory, and
    gets only those back that it uses. Those few are counted twice: rather too much than too little.

    Args:
        files_mb: `resident_files_mb` of the process that was forked.
    """
    global _forked_without_mb
    _forked_without_mb = files_mb


def resident_files_mb() -> float:
    """Resident pages of files, such as libraries, in MB; 0 where the system does not tell."""
    return _status_mb("RssFile") or 0.0


def peak_memory_mb() -> float:
    """The most resident memory that this process has had, in MB."""
    # Not getrusage's, if possible: that one survives exec, so it starts at the parent's peak.
    peak_mb = _status_mb("VmHWM")
    if peak_mb is None:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024**2 if sys.platform == "darwin" else 1024)
    return peak_mb + _forked_without_mb


def _status_mb(field: str) -> float | None:
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith(f"{field}:"))
    except (OSError, StopIteration):
        return None


def error_text(error: Exception) -> str:
    """An error as one line for the parent process."""
    if isinstance(error, EnsembleflowError):
        parts = [error.what, error.found]
    else:
        parts = [type(error).__name__, str(error)]
    text = " ".join(": ".join(filter(None, parts)).split())
    return text if len(text) <= 500 else f"{text[:500]} …"
