"""What `make run` shows: Snakemake's log records as lines about stages."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_ensembleflow.stages import StageProgress, rule_stages

REPOSITORY = Path(__file__).resolve().parents[2]
RULES = {"prepare_dataset": 1, "train_trials": 4, "plot_learning_curves": 1, "rank_models": 1, "all": 1, "total": 8}


class Run:
    """A run of Snakemake in virtual time."""

    def __init__(self, *, local: bool = True) -> None:
        self.seconds = 0.0
        self.local = local
        self.progress = StageProgress(lambda: self.seconds)
        self.told: list[str] = []
        self.log(event=LogEvent.WORKFLOW_STARTED, snakefile_main=str(REPOSITORY / "Snakefile"))
        self.log(event=LogEvent.RUN_INFO, stats=RULES)

    def log(self, text: str = "", level: int = logging.INFO, **fields: object) -> list[str]:
        record = logging.LogRecord("snakemake.logging", level, __file__, 1, text, None, None)
        vars(record).update(fields)
        lines = list(self.progress.lines(record))
        self.told += lines
        return lines

    def begin(self, job: int, rule: str) -> list[str]:
        return self.log(event=LogEvent.JOB_INFO, jobid=job, rule_name=rule, local=self.local)

    def finish(self, job: int) -> list[str]:
        return self.log(event=LogEvent.JOB_FINISHED, job_id=job)


def test_every_rule_but_the_targets_is_of_the_stage_whose_file_it_stands_in() -> None:
    stages = rule_stages(REPOSITORY / "Snakefile")
    assert stages["train_trials"] == stages["freeze_tables"] == "search"
    assert stages["measure_costs"] == "library"
    assert stages["make_bundle"] == "bundles"
    names = list(dict.fromkeys(stages.values()))
    assert names == ["datasets", "search", "library", "selection", "allocation", "bundles", "report", "paper"]


def test_each_stage_is_told_when_it_begins_and_when_it_is_done_and_targets_are_no_steps() -> None:
    run = Run()
    assert run.told == ["[0:00] steps to do: datasets 1, search 4, library 1, report 1"]
    assert run.begin(1, "prepare_dataset") == ["[0:00] datasets: stage 1 of 4, 1 step"]
    run.seconds = 4
    assert run.finish(1) == ["[0:04] datasets: done in 4 s"]
    assert run.begin(2, "train_trials") == ["[0:04] search: stage 2 of 4, 4 steps"]
    assert run.begin(3, "train_trials") == []
    assert run.begin(9, "all") == run.finish(9) == []


def test_a_stage_that_goes_on_beside_is_told_once_those_before_it_are_done() -> None:
    run = Run()
    run.begin(1, "prepare_dataset")
    run.finish(1)
    for job in range(2, 6):
        run.begin(job, "train_trials")
    assert run.begin(6, "plot_learning_curves") == []
    for job in range(2, 5):
        run.finish(job)
    run.seconds = 3725
    assert run.finish(5) == ["[1:02:05] search: done in 62 min"]
    assert run.begin(7, "rank_models") == ["[1:02:05] library: stage 3 of 4, 1 step"]
    assert run.finish(7) == ["[1:02:05] library: done in 1 s", "[1:02:05] report: stage 4 of 4, 1 step"]


def test_a_failed_job_is_told_with_what_ended_it_where_that_is_known() -> None:
    run = Run(local=False)
    run.begin(2, "train_trials")
    failed = {"event": LogEvent.JOB_ERROR, "jobid": 2, "rule_name": "train_trials", "log": ["job-0.log"]}
    assert run.log(**failed) == ["[0:00] train_trials failed; its log: job-0.log"]
    assert run.log(**failed, ended_by="its node failed") == [
        "[0:00] train_trials failed: its node failed; its log: job-0.log"
    ]


@pytest.mark.parametrize(("local", "n_lines"), [(True, 0), (False, 1)])
def test_jobs_elsewhere_are_counted_with_the_time_left(local: bool, n_lines: int) -> None:
    run = Run(local=local)
    run.begin(2, "train_trials")
    run.seconds = 600
    lines = run.finish(2)
    # Of jobs on this machine the search itself tells.
    assert lines == ["[10:00] search: 1 of 4 steps done, about 30 min left"][:n_lines]


@pytest.mark.parametrize(
    "chatter",
    ["Select jobs to execute...", "Execute 2 jobs...", "Provided cores: 2", "Complete log(s): a.log", "Building DAG"],
)
def test_chatter_is_left_out_and_what_concerns_a_person_is_not(chatter: str) -> None:
    run = Run()
    assert run.log(chatter) == []
    assert run.log("Nothing to be done (all requested files are present).") != []
    assert run.log("a file is odd", logging.WARNING) == ["a file is odd"]
    assert run.log("WorkflowError:\nan unknown key", logging.ERROR, event=LogEvent.ERROR) != []


def test_a_failed_job_is_one_line_with_its_log() -> None:
    run = Run()
    run.begin(2, "train_trials")
    failed = {"event": LogEvent.JOB_ERROR, "jobid": 2, "rule_name": "train_trials", "log": ["logs/job-0.log"]}
    assert run.log('RuleException:\nCalledProcessError in file "search.smk"', logging.ERROR) == []
    assert run.log("Error in rule", logging.ERROR, **failed) == ["[0:00] train_trials failed; its log: logs/job-0.log"]
    assert run.log("WorkflowError:\nAt least one job did not complete successfully.", logging.ERROR) == []


def test_ctrl_c_is_told() -> None:
    (line,) = Run().log("Terminating processes on user request, this might take some time.")
    assert line.startswith("[0:00] interrupted: ")
