"""What is said of a failed job of a batch system that does not tell what ended it."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from ensembleflow.errors import SearchError
from snakemake_logger_plugin_ensembleflow import failures
from snakemake_logger_plugin_ensembleflow.failures import FailureFilter, Resumable

LIMIT_MINUTES = 60


def fail(log: Path, monkeypatch: pytest.MonkeyPatch, *, minutes: float, local: bool = False) -> dict[str, Any]:
    """What the log's record of a failure holds once the filter has seen it; the job was submitted so long before."""
    seconds = [0.0]
    monkeypatch.setattr(failures.time, "monotonic", lambda: seconds[0])
    job = SimpleNamespace(
        jobid=3,
        rule=SimpleNamespace(name="train"),
        wildcards_dict={},
        attempt=1,
        restart_times=2,
        resources={"runtime": LIMIT_MINUTES},
        log=[str(log)],
    )
    workflow = SimpleNamespace(dryrun=False, local_exec=local, dag=SimpleNamespace(jobs=[job]))
    watching = FailureFilter(workflow)
    too_little_time = lambda wildcards, minutes: SearchError(f"{minutes:g} minutes are too little")  # noqa: E731
    watching.resume("train", Resumable(lambda wildcards: 0, "epoch", too_little_time))
    said: dict[str, Any] = {"jobid": 3, "rule_name": "train", "wildcards": {}}
    for event, more in (
        (LogEvent.JOB_INFO, {}),
        (LogEvent.JOB_ERROR, {"rule_msg": None, "aux": {"external_jobid": "7.pbs"}, "log": [str(log)]}),
    ):
        record = logging.LogRecord("snakemake.logging", logging.INFO, __file__, 1, "", None, None)
        vars(record).update(event=event, **said, **more)
        assert watching.filter(record)
        seconds[0] += 60 * minutes
    return vars(record)


@pytest.mark.parametrize(
    ("minutes", "local", "advised"),
    [(LIMIT_MINUTES, False, True), (LIMIT_MINUTES - 1, False, False), (90, True, False)],
)
def test_a_time_limit_is_advised_where_it_may_have_been_over(
    minutes: float, local: bool, advised: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = fail(tmp_path / "job.log", monkeypatch, minutes=minutes, local=local)
    assert record["rule_msg"] == "attempt 1 of 3 that finished no epoch. "
    log = (tmp_path / "job.log").read_text(encoding="utf-8")
    assert ("ERROR 60 minutes are too little" in log) == advised
    assert log.endswith(" ended: attempt 1 of 3 that finished no epoch\n")
