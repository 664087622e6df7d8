"""When a process was started, against the clock of the one that starts it."""

from __future__ import annotations

import subprocess
import sys
import time

SCRIPT = """
import time
from ensembleflow.search.process_start import process_started_at
first = process_started_at()
time.sleep(0.1)
print(first, process_started_at())
"""


def test_a_process_knows_its_start_to_a_clock_tick_and_tells_the_same_each_time() -> None:
    before = time.time()
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True) as process:
        after = time.time()
        told, told_again = map(float, process.communicate()[0].split())
    tick_seconds = 0.01
    assert before - 2 * tick_seconds <= told <= after
    assert told == told_again
