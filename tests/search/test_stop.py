"""Being told to stop while something is written."""

from __future__ import annotations

import os
import signal

import pytest

from ensembleflow.search.stop import StopSignals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_what_is_being_written_is_finished_first(number: int) -> None:
    written = []
    with pytest.raises(SystemExit) as exit_, StopSignals() as signals:
        with signals.postponed():
            os.kill(os.getpid(), number)
            written.append("whole")
        written.append("never")
    assert written == ["whole"]
    assert exit_.value.code == 128 + number


def test_being_told_again_does_not_disturb_the_ending() -> None:
    cleared = []
    with pytest.raises(SystemExit), StopSignals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleared.append("all")
    assert cleared == ["all"]


def test_a_failure_while_writing_is_not_hidden_by_the_signal() -> None:
    with pytest.raises(OSError, match="disk"), StopSignals() as signals, signals.postponed():
        os.kill(os.getpid(), signal.SIGTERM)
        raise OSError("disk")


def test_afterwards_signals_do_what_they_did_before() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with StopSignals():
        assert signal.getsignal(signal.SIGUSR1) != before
    assert signal.getsignal(signal.SIGUSR1) == before
