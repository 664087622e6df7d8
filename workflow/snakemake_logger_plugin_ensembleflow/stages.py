"""What Snakemake's log records say of the workflow's stages."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.common import LogEvent

from ensembleflow.search.remaining import readable_duration
from snakemake_logger_plugin_ensembleflow.failures import INTERRUPTED, OF_FAILED_JOBS

__all__ = ["StageProgress", "rule_stages"]

# A stage of many jobs says this often, at most, how far it is.
_TELL_SECONDS = 15.0
_NOTHING_TO_DO = "Nothing to be done"


def rule_stages(snakefile: Path) -> dict[str, str]:
    """The stage of each rule: the name of the included file in which it stands, in the order of the data's path.

    Targets are of no stage, since they do nothing.
    """
    found: dict[str, str] = {}
    for name in re.findall(r'^include: "(.+)"', snakefile.read_text(encoding="utf-8"), re.MULTILINE):
        path = snakefile.parent / name
        rules = re.findall(r"^rule (\w+):", path.read_text(encoding="utf-8"), re.MULTILINE)
        if path.stem != "targets":
            found |= dict.fromkeys(rules, path.stem)
        found |= rule_stages(path)
    return found


@dataclass
class _Stage:
    """One stage of this run.

    Attributes:
        n_jobs: to be done in this run.
        n_done: of them.
        started_at: when its first job began; None before.
        told: whether its beginning was told.
        told_at: when how far it is was told last.
    """

    n_jobs: int = 0
    n_done: int = 0
    started_at: float | None = None
    told: bool = False
    told_at: float = 0.0


class StageProgress:
    """Turns log records into lines.

    Args:
        clock: seconds, from any origin.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_at = clock()
        self._stage_of: dict[str, str] = {}
        self._stages: dict[str, _Stage] = {}
        self._jobs: dict[int, tuple[str, bool]] = {}

    def lines(self, record: logging.LogRecord) -> Iterator[str]:
        """What a record has to say to a person; nothing for most."""
        said = vars(record)
        event = said.get("event")
        if event == LogEvent.WORKFLOW_STARTED:
            self._stage_of = rule_stages(Path(said["snakefile_main"]).resolve())
        elif event == LogEvent.RUN_INFO:
            yield from self._plan(said["stats"])
        elif event == LogEvent.JOB_INFO:
            yield from self._begin(said)
        elif event == LogEvent.JOB_FINISHED:
            yield from self._finish(int(said["job_id"]))
        elif event == LogEvent.JOB_ERROR:
            yield from self._fail(said)
        else:
            yield from self._say(record)

    def _plan(self, jobs_of_rules: dict[str, int]) -> Iterator[str]:
        self._stages = {}
        for rule, name in self._stage_of.items():
            if rule in jobs_of_rules:
                self._stages.setdefault(name, _Stage()).n_jobs += jobs_of_rules[rule]
        if self._stages:
            counts = ", ".join(f"{name} {stage.n_jobs}" for name, stage in self._stages.items())
            yield self._at(f"steps to do: {counts}")

    def _begin(self, job: dict[str, Any]) -> Iterator[str]:
        rule = job["rule_name"]
        name = self._stage_of.get(rule)
        if name is None or name not in self._stages:
            return
        self._jobs[int(job["jobid"])] = (name, bool(job["local"]))
        stage = self._stages[name]
        if stage.started_at is None:
            stage.started_at = stage.told_at = self._clock()
        yield from self._tell_begun()

    def _tell_begun(self) -> Iterator[str]:
        """The first stage with work left, once it has begun: figures are drawn while other stages go on."""
        for number, (name, stage) in enumerate(self._stages.items(), 1):
            if stage.n_done >= stage.n_jobs:
                continue
            if stage.started_at is not None and not stage.told:
                stage.told = True
                yield self._at(f"{name}: stage {number} of {len(self._stages)}, {_steps(stage.n_jobs)}")
            return

    def _finish(self, job_id: int) -> Iterator[str]:
        if job_id not in self._jobs:
            return
        name, local = self._jobs.pop(job_id)
        stage, now = self._stages[name], self._clock()
        assert stage.started_at is not None
        stage.n_done += 1
        took = now - stage.started_at
        if stage.n_done >= stage.n_jobs:
            yield self._at(f"{name}: done in {readable_duration(took)}")
            yield from self._tell_begun()
        # On this machine the search's jobs themselves say how far it is.
        elif now >= stage.told_at + _TELL_SECONDS and not (local and name == "search"):
            stage.told_at = now
            left = took / stage.n_done * (stage.n_jobs - stage.n_done)
            yield self._at(
                f"{name}: {stage.n_done} of {_steps(stage.n_jobs)} done, about {readable_duration(left)} left"
            )

    def _fail(self, job: dict[str, Any]) -> Iterator[str]:
        self._jobs.pop(int(job["jobid"]), None)
        logs = ", ".join(job["log"] or ())
        ended_by = job.get("ended_by")
        yield self._at(
            f"{job['rule_name']} failed"
            + (f": {ended_by}" if ended_by else "")
            + (f"; its log: {logs}" if logs else "")
        )

    def _say(self, record: logging.LogRecord) -> Iterator[str]:
        text = str(record.msg or "")
        if text.startswith(INTERRUPTED):
            yield self._at("interrupted: the jobs are ended, which takes some seconds")
        # Said better by the job itself and by its stage's line.
        elif text.startswith(_NOTHING_TO_DO) or (
            record.levelno >= logging.WARNING and not any(known in text for known in OF_FAILED_JOBS)
        ):
            yield text

    def _at(self, text: str) -> str:
        minutes, seconds = divmod(int(self._clock() - self._started_at), 60)
        hours, minutes = divmod(minutes, 60)
        return f"[{f'{hours}:{minutes:02d}' if hours else minutes}:{seconds:02d}] {text}"


def _steps(n_jobs: int) -> str:
    return f"{n_jobs} step{'' if n_jobs == 1 else 's'}"
