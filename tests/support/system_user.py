"""Commands typed by a user to whom nothing belongs, without a home, of an installation that is root's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

import pytest

# Where root may grant it: to read whatever is root's, such as an interpreter in root's home.
_CAP_DAC_READ_SEARCH = 2
_MAY_READ = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
_OF_A_HOME = ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR")


class SystemUser:
    """A context manager of such a user; skips the test, but in CI, where there can be none.

    Attributes:
        readable: a folder of root's, which all may read; pytest's are closed to others.
        folder: its own, in which it works.

    Args:
        named: it has a name, and `/nonexistent` as `HOME`; one without a name has no `HOME` either.
    """

    def __init__(self, *, named: bool = True) -> None:
        self._user_id = 65534 if named else 54321
        kept = {key: value for key, value in os.environ.items() if key not in _OF_A_HOME}
        self._environment = {**kept, "HOME": "/nonexistent"} if named else kept
        self._temporary = tempfile.TemporaryDirectory()
        self.readable = Path(self._temporary.name)
        self.folder = self.readable / "own"

    def __enter__(self) -> Self:
        self.readable.chmod(0o755)
        self.folder.mkdir()
        possible = os.geteuid() == 0 and shutil.which("setpriv")
        if possible:
            os.chown(self.folder, self._user_id, self._user_id)
        if not possible or self.run(sys.executable, "-c", "import ensembleflow").returncode != 0:
            self._temporary.cleanup()
            assert not os.environ.get("CI"), "tests run as root, of an installation that all may read"
            pytest.skip("needs root, setpriv, and an installation that all may read")
        return self

    def __exit__(self, *exception: object) -> None:
        self._temporary.cleanup()

    def run(self, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in its folder, with further environment variables; both outputs are in `stdout`."""
        ids = (f"--reuid={self._user_id}", f"--regid={self._user_id}", "--clear-groups")
        return subprocess.run(
            ["setpriv", *ids, *(_MAY_READ if _may_grant_reading() else ()), *map(str, command)],
            cwd=self.folder,
            env={**self._environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


def _may_grant_reading() -> bool:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (bounding,) = [line.split()[1] for line in lines if line.startswith("CapBnd:")]
    return bool(int(bounding, 16) >> _CAP_DAC_READ_SEARCH & 1)
