"""The tests' own processes: none of them keeps pytest from ending."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from multiprocessing import Pipe
from pathlib import Path
from support.slot_study import run_process, search_config

if __name__ == "__main__":
    told, tell = Pipe(duplex=False)
    run_process(None, Path(sys.argv[1]), search_config("random", 2), range(2), (0, tell))
    assert told.poll(120)
    raise SystemExit("a test has failed while the other process waits to be killed")
"""


def test_a_process_that_waits_to_be_killed_is_not_waited_for_when_its_test_fails(tmp_path: Path) -> None:
    script = tmp_path / "failing.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, str(script), str(tmp_path / "study")]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=150)
    assert "a test has failed" in done.stderr
    assert done.returncode == 1
