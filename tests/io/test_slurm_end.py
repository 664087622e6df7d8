"""What is told of a Slurm job's end, from what Slurm's commands print. Real jobs are in tests/slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensembleflow.io.slurm import SlurmEnd, slurm_end

# Slurm 22.05, shortened.
CONTROLLER = (
    "JobId=12 JobName=ensembleflow_e3 UserId=root(0) JobState={state} Reason=TimeLimit Requeue=0 ExitCode={code} "
    "RunTime=01:00:27 TimeLimit=1-01:00:00 NodeList=n1 BatchHost=n1 MinMemoryNode=3000M StdOut=/tmp/12.log "
)


def print_instead(folder: Path, monkeypatch: pytest.MonkeyPatch, **printed: str | None) -> None:
    """Commands of these names that print a text, or fail."""
    for name, text in printed.items():
        (folder / name).write_text(
            "#!/bin/sh\n" + (f"cat <<'END'\n{text}\nEND\n" if text else "exit 1\n"), encoding="utf-8"
        )
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("state", "code", "output", "told"),
    [
        ("TIMEOUT", "0:15", "", "its time limit of 1500 min was over"),
        ("CANCELLED", "0:15", "", "it was cancelled"),
        ("OUT_OF_MEMORY", "0:125", "", "it used more memory than it had asked for (3000M)"),
        ("NODE_FAIL", "0:0", "", "its node failed"),
        ("PREEMPTED", "0:0", "", "it was preempted"),
        ("FAILED", "1:0", "", "it failed by itself, with exit code 1"),
        (
            "FAILED",
            "1:0",
            "slurmstepd-n1: error: Detected 1 oom-kill event(s) in StepId=12.0. Some of your processes may have been "
            "killed by the cgroup out-of-memory handler.",
            "it used more memory than it had asked for (3000M)",
        ),
        (
            "FAILED",
            "137:0",
            "slurmstepd-n1: error: StepId=1.0 exceeded memory limit (538021888 > 104857600), being killed\n"
            "slurmstepd-n1: error: Exceeded job memory limit",
            "it used more memory than it had asked for (3000M)",
        ),
        (
            "FAILED",
            "1:0",
            "Command 'python train_trials.py' died with <Signals.SIGKILL: 9>.",
            "SIGKILL ended its process: perhaps its node's memory was full",
        ),
        ("FAILED", "1:0", "Command 'x' died with <Signals.SIGSEGV: 11>.", "SIGSEGV ended its process"),
        ("REVOKED", "0:0", "", "Slurm says REVOKED"),
    ],
)
def test_the_controller_tells_what_ended_a_job(
    state: str, code: str, output: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    print_instead(tmp_path, monkeypatch, scontrol=CONTROLLER.format(state=state, code=code))
    end = slurm_end("12", output=output)
    assert str(end) == f"{told} (Slurm job 12 on n1, after 01:00:27)"
    assert end.timed_out == (state == "TIMEOUT")
    assert end.limit_minutes == 25 * 60


def test_the_accounting_is_asked_where_the_controller_has_forgotten_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    print_instead(tmp_path, monkeypatch, scontrol=None, sacct="CANCELLED by 1001|0:0|n7|00:12:00|01:00:00|16000M")
    assert str(slurm_end("12")) == "it was cancelled by user 1001 (Slurm job 12 on n7, after 00:12:00)"
    print_instead(tmp_path, monkeypatch, sacct="TIMEOUT|0:0|n7|01:00:12|01:00:00|16000M")
    assert str(slurm_end("12")) == "its time limit of 60 min was over (Slurm job 12 on n7, after 01:00:12)"


def test_where_neither_answers_it_is_what_snakemake_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    print_instead(tmp_path, monkeypatch, scontrol=None, sacct=None)
    assert str(slurm_end("12", "TIMEOUT")) == "its time limit was over (Slurm job 12)"
    assert slurm_end("12", "TIMEOUT").limit_minutes is None
    assert str(slurm_end("12")) == "Slurm does not tell what ended it (Slurm job 12)"


def test_a_job_that_never_had_a_node_or_a_limit_is_told_without() -> None:
    end = SlurmEnd("12", "CANCELLED", {"NodeList": "(null)", "RunTime": "00:00:00", "TimeLimit": "UNLIMITED"})
    assert str(end) == "it was cancelled (Slurm job 12, after 00:00:00)"
    assert end.limit_minutes is None
