"""How often a job that goes on where it was ended is tried again: real runs of Snakemake on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.clone import Clone, edited

PACKAGE_PARENT = Path(__file__).resolve().parents[2] / "workflow"

# A job's name is its fate, a letter an attempt: it fails with an epoch finished (e) or none (n), or it is done (d).
SNAKEFILE = """
import sys
from pathlib import Path

sys.path.insert(0, {package_parent!r})
from snakemake.logging import logger

from ensembleflow.errors import SearchError
from snakemake_logger_plugin_ensembleflow.failures import FailureFilter, Resumable

FAILURES = FailureFilter(workflow)
if workflow.is_main_process:
    FAILURES.watch(logger)

rule train:
    output: "{{fate}}.txt"
    log: "{{fate}}.log"
    retries: 2
    shell:
        "echo attempt >> {{wildcards.fate}}.attempts; "
        "now=$(echo {{wildcards.fate}} | cut -c $(wc -l < {{wildcards.fate}}.attempts)); "
        "echo \\"now: $now\\" > {{log}}; "
        "case $now in e) echo epoch >> {{wildcards.fate}}.epochs; false ;; n) false ;; d) touch {{output}} ;; esac"

def n_epochs(wildcards):
    path = Path(wildcards["fate"] + ".epochs")
    return len(path.read_text().splitlines()) if path.exists() else 0

FAILURES.resume("train", Resumable(n_epochs, "epoch", lambda wildcards, minutes: SearchError("too little")))
"""
# Snakemake knows the number once it plans.
ASK = """
include: "Snakefile"

rule ask:
    output: "asked"
    params: retries=lambda wildcards: workflow.get_rule("train_trials").restart_times
    message: "retries: {params.retries}"
    shell: "true"
"""
SUCCEED = ["eeeeeed", "nneed", "enneed", "nnd"]
FAIL = {"nnnd": 3, "eennnd": 5}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("attempts")
    (folder / "Snakefile").write_text(SNAKEFILE.format(package_parent=str(PACKAGE_PARENT)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--keep-going", "--show-failed-logs"]
        + [f"{fate}.txt" for fate in [*SUCCEED, *FAIL]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_PARENT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return folder, done.stdout + done.stderr


def n_attempts(run: tuple[Path, str], fate: str) -> int:
    return len((run[0] / f"{fate}.attempts").read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("fate", SUCCEED)
def test_attempts_that_finish_an_epoch_do_not_count_and_start_the_count_anew(run: tuple[Path, str], fate: str) -> None:
    assert (run[0] / f"{fate}.txt").exists(), run[1]
    assert n_attempts(run, fate) == len(fate)


@pytest.mark.parametrize("fate", FAIL)
def test_attempts_in_a_row_that_finish_none_are_limited(run: tuple[Path, str], fate: str) -> None:
    assert not (run[0] / f"{fate}.txt").exists()
    assert n_attempts(run, fate) == FAIL[fate]


@pytest.mark.parametrize(("retries", "n_retries"), [({}, 2), ({"resources.search.retries": 5}, 5)])
def test_the_config_says_how_often_a_search_job_is_tried_again_whatever_the_profile_says(
    fresh_copy: Clone, retries: dict[str, object], n_retries: int
) -> None:
    fresh_copy.write_config(edited(retries))
    (fresh_copy.folder / "ask.smk").write_text(ASK, encoding="utf-8")
    printed = fresh_copy.run("asked", "--dry-run", "--snakefile", "ask.smk", "--retries", "7")
    assert f"retries: {n_retries}\n" in printed


def test_the_log_ends_with_what_became_of_the_attempt(run: tuple[Path, str]) -> None:
    log = (run[0] / "nnnd.log").read_text(encoding="utf-8").splitlines()
    assert log[0] == "now: n"
    assert log[-1].endswith(" ended: attempt 3 of 3 that finished no epoch")
    assert "1 more epoch kept, so this attempt does not count" in run[1]
