"""A disk that refuses a write is no fault of the trial."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

from support.small_search import search_config

RUN_JOB = Path(__file__).resolve().parents[1] / "support/run_job.py"
SMALLER_THAN_A_CHECKPOINT_BYTES = 50_000


def run_job(search_dir: Path, dataset: Path, largest_file_bytes: int) -> subprocess.CompletedProcess[str]:
    search_dir.mkdir(exist_ok=True)
    config_json = search_dir / "config.json"
    config_json.write_text(search_config(n_trials=1, trials_per_job=1).model_dump_json())
    return subprocess.run(
        [sys.executable, str(RUN_JOB), str(config_json), "0", str(dataset), str(search_dir)],
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_FSIZE, (largest_file_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        ),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_refused_checkpoint_ends_the_job_and_is_not_held_against_the_trial(digits: Path, tmp_path: Path) -> None:
    search_dir = tmp_path / "search"
    refused = run_job(search_dir, digits, SMALLER_THAN_A_CHECKPOINT_BYTES)
    assert refused.returncode == 1
    assert "File too large" in refused.stderr
    assert "Traceback" not in refused.stderr
    (record,) = search_dir.glob("store/*/trial-00000/record.json")
    assert json.loads(record.read_text())["attempts"] == 0
    assert [path.name for path in record.parent.iterdir()] == ["record.json"]

    done = run_job(search_dir, digits, resource.RLIM_INFINITY)
    assert done.returncode == 0, done.stderr
    (trial,) = json.loads((search_dir / "trials/job-0.json").read_text())["trials"]
    assert trial["state"] == "COMPLETE"
