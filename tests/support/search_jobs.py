"""Search jobs in processes of their own, and what they left."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from ensembleflow.config import Config

RUN_JOB = Path(__file__).with_name("run_job.py")


def start(config: Config, job: int, dataset: Path, search_dir: Path) -> subprocess.Popen[str]:
    search_dir.mkdir(parents=True, exist_ok=True)
    config_json = search_dir / "config.json"
    config_json.write_text(config.model_dump_json())
    command = [sys.executable, str(RUN_JOB), str(config_json), str(job), str(dataset), str(search_dir)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def run(config: Config, job: int, dataset: Path, search_dir: Path) -> str:
    process = start(config, job, dataset, search_dir)
    stderr = process.communicate(timeout=300)[1]
    assert process.returncode == 0, stderr
    return stderr


def results(search_dir: Path, job: int = 0) -> list[dict]:
    """The trials without what may differ between two runs: times and places."""
    trials = json.loads((search_dir / f"trials/job-{job}.json").read_text())["trials"]
    for trial in trials:
        for key in ("started_at", "ended_at", "attempts", "seconds", "runs"):
            del trial[key]
        for epoch in trial["epochs"]:
            del epoch["started_at"], epoch["ended_at"]
    return trials


def wait_for_epochs(search_dir: Path, slot: int, n_epochs: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for path in search_dir.glob(f"store/*/trial-{slot:05d}/record.json"):
            if len(json.loads(path.read_text())["epochs"]) >= n_epochs:
                return
        time.sleep(0.02)
    raise AssertionError("the trial made no progress")
