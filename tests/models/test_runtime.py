"""What TensorFlow's start leaves in a job's log."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_jobs_log_does_not_begin_with_what_tensorflow_says_when_it_is_loaded() -> None:
    done = run("from ensembleflow.models import configure_tensorflow; configure_tensorflow(1)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_a_library_says_before_it_aborts_the_process_is_told() -> None:
    done = run(
        "import os\n"
        "from ensembleflow.models.runtime import _without_greetings\n"
        "with _without_greetings():\n"
        "    os.write(2, b'WARNING: All log messages before absl::InitializeLog() is called ...\\n')\n"
        "    os.write(2, b'I0000 00:00:1795958965.180493    6432 port.cc:153] oneDNN custom operations are on.\\n')\n"
        "    os.write(2, b'F0000 00:00:1795958965.230554    6432 cpu_feature_guard.cc:62] needs AVX512F\\n')\n"
        "    os.abort()\n"
    )
    assert done.returncode < 0
    assert done.stderr == "F0000 00:00:1795958965.230554    6432 cpu_feature_guard.cc:62] needs AVX512F\n"


def test_what_is_said_afterwards_is_told_whatever_it_looks_like() -> None:
    done = run(
        "import sys\n"
        "from ensembleflow.models.runtime import _without_greetings\n"
        "with _without_greetings():\n"
        "    print('before', file=sys.stderr)\n"
        "print('I0000 00:00:1.2 3 after', file=sys.stderr)\n"
    )
    assert done.stderr == "before\nI0000 00:00:1.2 3 after\n"
