"""What Snakemake's log says of a failed job, made complete: what ended it, and whether the attempt counts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.common import LogEvent

from ensembleflow.errors import EnsembleflowError
from ensembleflow.io.slurm import SlurmEnd, slurm_end

__all__ = ["INTERRUPTED", "OF_FAILED_JOBS", "FailureFilter", "Resumable"]

INTERRUPTED = "Terminating processes on user request"
"""What Snakemake's log says, first of all, after Ctrl-C."""
OF_FAILED_JOBS = ("CalledProcessError in file", "At least one job did not complete successfully")
"""Of what it says about jobs that failed, besides a block on each."""

_STATE = "SLURM status is: '"
# All that Snakemake's plugin for Slurm knows where it does not ask `sacct`.
_UNKNOWN = "Detailed failure reason unavailable (status command is not 'sacct')."
_ENDED = " ended: "


@dataclass(frozen=True)
class Resumable:
    """A rule whose jobs go on where an earlier attempt was ended.

    Attributes:
        progress: what is kept of a job's work, by its wildcards; a number that only grows.
        unit: what it counts, in the singular.
        too_little_time: the message on a job that made none within its time limit, by wildcards and minutes.
    """

    progress: Callable[[dict[str, str]], int]
    unit: str
    too_little_time: Callable[[dict[str, str], float], EnsembleflowError]


class FailureFilter(logging.Filter):
    """Completes what is said of failed jobs before anyone shows it, and drops it for those that Ctrl-C ended.

    A filter of Snakemake's logger sees a job's error before the scheduler does. So an attempt of a resumable job
    that made progress can be taken back from the number that Snakemake compares with the rule's `retries`: only
    attempts in a row without any are limited. A job that Ctrl-C ends says itself what is kept of it.

    Args:
        workflow: the running one, in Snakemake's main process.
    """

    def __init__(self, workflow: Any) -> None:
        super().__init__()
        self._workflow = workflow
        self._resumable: dict[str, Resumable] = {}
        # Of each job that was submitted: its progress then, and when that was.
        self._begun: dict[int, tuple[int, float]] = {}
        self._interrupted = False

    def watch(self, logger: logging.Logger) -> None:
        """Take the place of any other of its kind: a process may read a workflow more than once."""
        logger.filters[:] = [each for each in logger.filters if not isinstance(each, FailureFilter)]
        logger.addFilter(self)

    def resume(self, rule: str, how: Resumable) -> None:
        """Name a rule whose jobs are resumable."""
        self._resumable[rule] = how

    def filter(self, record: logging.LogRecord) -> bool:
        """Look at a record; whether to show it."""
        said = vars(record)
        event = said.get("event")
        self._interrupted |= str(record.msg).startswith(INTERRUPTED)
        if event in (LogEvent.JOB_INFO, LogEvent.JOB_ERROR) and not self._workflow.dryrun:
            try:
                if event == LogEvent.JOB_ERROR:
                    self._fail(next(job for job in self._workflow.dag.jobs if job.jobid == said["jobid"]), said)
                elif said["rule_name"] in self._resumable:
                    progress = self._resumable[said["rule_name"]].progress(said["wildcards"])
                    self._begun[said["jobid"]] = (progress, time.monotonic())
            except Exception:  # whatever it is, what Snakemake itself says matters more
                logging.getLogger(record.name).debug("a failed job could not be looked into", exc_info=True)
        of_failed = event == LogEvent.JOB_ERROR or any(text in str(record.msg) for text in OF_FAILED_JOBS)
        return not (self._interrupted and of_failed)

    def _fail(self, job: Any, said: dict[str, Any]) -> None:
        end = _slurm_end(said)
        told = ["it was interrupted"] if self._interrupted else [str(end)] if end else []
        advice = None
        if job.rule.name in self._resumable:
            how = self._resumable[job.rule.name]
            before, begun_at = self._begun.get(job.jobid, (0, time.monotonic()))
            more = how.progress(job.wildcards_dict) - before
            kept = f"{more} more {how.unit}{'' if more == 1 else 's'} kept"
            if self._interrupted:
                told.append(kept)
            elif more > 0:
                told.append(f"{kept}, so this attempt does not count")
                job.attempt = 0  # Snakemake adds one
            else:
                told.append(f"attempt {job.attempt} of {job.restart_times + 1} that finished no {how.unit}")
                # What Snakemake asks for, and where Slurm is not there to tell, the time since then.
                limit = (end and end.limit_minutes) or float(job.resources.get("runtime") or 0)
                over = time.monotonic() - begun_at >= 60 * limit and not self._workflow.local_exec
                if limit and (end.timed_out if end else over):
                    advice = how.too_little_time(job.wildcards_dict, limit)
        if not told:
            return
        said["ended_by"] = "; ".join(told)
        text = said["rule_msg"] or ""
        known = f"{said['ended_by']}. "
        said["rule_msg"] = text.replace(_UNKNOWN, known) if _UNKNOWN in text else known + text
        if job.log:
            _show_own_log(job, said, end)
            _append(Path(job.log[0]), advice, said["ended_by"])


def _slurm_end(said: dict[str, Any]) -> SlurmEnd | None:
    """How a job of Slurm's ended; None for any other."""
    text, job_id = said["rule_msg"] or "", said["aux"].get("external_jobid")
    if job_id is None or _STATE not in text:
        return None
    output = "".join(_end_of(Path(path)) for path in said["log"][-1:] if path)
    return slurm_end(str(job_id), text.partition(_STATE)[2].partition("'")[0], output)


def _show_own_log(job: Any, said: dict[str, Any], end: SlurmEnd | None) -> None:
    """What is shown of a failed job ends with its own log.

    Slurm's, which the Snakemakes around the job fill, is named only, unless it may be what tells the reason.
    """
    own = [str(path) for path in job.log]
    others = [path for path in said["log"] if path and path not in own]
    attempt = _end_of(Path(own[0])).rpartition(_ENDED)[2]  # the log of a job that did not begin is an earlier one's
    if others and end and (end.state != "FAILED" or " ERROR " in attempt):
        said["aux"] = {**said["aux"], "slurm_log": ", ".join(others)}
        others = []
    said["log"] = [*others, *own]


def _end_of(path: Path, n_bytes: int = 100_000) -> str:
    """The last part of a text file; nothing of one that is not there."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - n_bytes))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _append(log: Path, advice: EnsembleflowError | None, ended_by: str) -> None:
    """The job's log ends with what ended the job, for whoever reads it there."""
    at = time.strftime("%Y-%m-%d %H:%M:%S")
    lines = [f"{at} ERROR {advice}"] if advice else []
    with open(log, "a", encoding="utf-8") as file:
        file.write("\n".join([*lines, f"{at}{_ENDED}{ended_by}", ""]))
