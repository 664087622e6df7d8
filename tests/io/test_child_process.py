"""Files of the package that run as processes of their own: what they answer, and how their failures are told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from ensembleflow.child_process import ChildEndedError, ChildProcess, child_environment, describe_end
from ensembleflow.errors import ArtefactError, SearchError

_SCRIPT = """
import os, signal, sys, time
from ensembleflow.child_process import end_with_parent, run_child
from ensembleflow.errors import ArtefactError, SearchError

class OwnError(SearchError):
    def __init__(self):
        super().__init__("its own", found=3)

def work(settings, answer):
{work}

if __name__ == "__main__":
    sys.exit(run_child(work))
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Make a child's script of the lines of its `work`."""

    def script(work: str) -> Path:
        path = tmp_path / "child.py"
        path.write_text(_SCRIPT.format(work="\n".join(f"    {line}" for line in work.splitlines())), encoding="utf-8")
        return path

    return script


def test_answers_come_in_order_whatever_else_is_printed(write: Write) -> None:
    script = write('print("a library says so", flush=True)\nfor each in settings["values"]:\n    answer([each, None])')
    with ChildProcess(script, {"values": [1, "zwei", "…"]}) as child:
        assert list(child.answers()) == [[1, None], ["zwei", None], ["…", None]]


def test_it_has_the_environment_that_it_is_given_and_finds_this_package(write: Write) -> None:
    script = write('import ensembleflow\nanswer([os.environ["COLOUR"], ensembleflow.__file__])')
    with ChildProcess(script, None, environment={"COLOUR": "red"}) as child:
        import ensembleflow

        assert list(child.answers()) == [["red", ensembleflow.__file__]]


def test_its_error_is_raised_again_after_its_answers(write: Write) -> None:
    script = write(
        'answer(1)\nraise ArtefactError("it is gone", where="/a", found=None, expected="a file", hint="look")'
    )
    with ChildProcess(script, None) as child:
        answers = child.answers()
        assert next(answers) == 1
        with pytest.raises(ArtefactError, match="it is gone") as caught:
            next(answers)
    assert str(caught.value) == "it is gone\n  where:    /a\n  expected: a file\n  hint:     look"


def test_an_error_of_a_class_of_its_own_is_raised_as_what_it_is_derived_from(write: Write) -> None:
    with ChildProcess(write("raise OwnError"), None) as child, pytest.raises(SearchError, match="its own") as caught:
        child.wait()
    assert type(caught.value) is SearchError
    assert caught.value.found == "3"


@pytest.mark.parametrize(
    ("work", "told"),
    [
        ('raise ValueError("seven")', "its process ended with exit status 1: .*ValueError: seven"),
        ("sys.exit(3)", "its process ended with exit status 3: no message"),
        ("os.kill(os.getpid(), signal.SIGKILL)", r"its process was killed by SIGKILL \(out of memory\?\)"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "its process was killed by SIGTERM$"),
    ],
)
def test_any_other_end_is_told_with_its_last_words(write: Write, work: str, told: str) -> None:
    with ChildProcess(write(work), None, quoted=True) as child, pytest.raises(ChildEndedError, match=told):
        child.wait()


def test_without_a_file_the_log_is_pointed_at() -> None:
    assert describe_end(2) == "its process ended with exit status 2: the log has what it printed"


def test_a_child_that_ends_before_it_reads_its_settings_is_told_like_any_other(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text("raise SystemExit(5)")
    with (
        ChildProcess(script, ["x" * 10_000_000], quoted=True) as child,
        pytest.raises(ChildEndedError, match="exit status 5"),
    ):
        child.wait()


@pytest.mark.parametrize(
    ("seconds_to_stop", "left"), [(0.0, False), (60.0, True)], ids=["killed at once", "given time"]
)
def test_leaving_the_block_ends_it(write: Write, tmp_path: Path, seconds_to_stop: float, left: bool) -> None:
    note = tmp_path / "note"
    script = write(
        "def stop(*_):\n    open(settings, 'w').close()\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\nanswer('ready')\ntime.sleep(600)"
    )
    with ChildProcess(script, str(note), seconds_to_stop=seconds_to_stop) as child:
        assert next(child.answers()) == "ready"
        assert not child.has_ended()
    assert child.has_ended()
    assert note.exists() == left


def test_it_ends_with_its_parent(write: Write) -> None:
    script = write("end_with_parent()\nanswer(os.getpid())\ntime.sleep(600)")
    code = (
        "import sys, time\nfrom ensembleflow.child_process import ChildProcess\n"
        "child = ChildProcess(sys.argv[1], None)\nprint(next(child.answers()), flush=True)\ntime.sleep(600)"
    )
    command: list[Any] = [sys.executable, "-c", code, script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment()) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "an orphan goes on"
        time.sleep(0.05)
