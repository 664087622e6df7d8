"""A search job whose process is killed again and again, wherever it happens to be."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

from optuna.trial import TrialState

from ensembleflow.search.study import open_storage
from support.search_jobs import results, run, start
from support.small_search import search_config

N_KILLS, N_EPOCHS = 5, 10
CONFIG = search_config(algorithm="random", n_trials=3, trials_per_job=3, max_epochs=N_EPOCHS)


def epoch_seconds(search_dir: Path) -> list[float]:
    """How long each recorded epoch took, of all trials in the order of the slots."""
    records = [json.loads(path.read_text()) for path in sorted(search_dir.glob("store/*/trial-*/record.json"))]
    return [epoch["ended_at"] - epoch["started_at"] for record in records for epoch in record["epochs"]]


def test_kills_at_random_moments_lose_and_double_nothing(digits: Path, tmp_path: Path) -> None:
    search_dir = tmp_path / "killed"
    undisturbed = start(CONFIG, 0, digits, tmp_path / "undisturbed")
    moments = random.Random(0)
    for _ in range(N_KILLS):
        before = len(epoch_seconds(search_dir))
        process = start(CONFIG, 0, digits, search_dir)
        # An epoch further each time: a trial whose process dies again and again in the same epoch is given up.
        while len(seconds := epoch_seconds(search_dir)) == before:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        # Within the next few, since a process's first is its longest: in a step, the validation, the checkpoint, a
        # record, or the next trial's start.
        time.sleep(moments.uniform(0, seconds[-1]))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    run(CONFIG, 0, digits, search_dir)

    assert undisturbed.wait(300) == 0
    assert results(search_dir) == results(tmp_path / "undisturbed")
    trials = json.loads((search_dir / "trials/job-0.json").read_text())["trials"]
    assert sum(len(trial["runs"]) for trial in trials) > len(trials)
    storage = open_storage(search_dir)
    (study,) = storage.get_all_studies()
    told = storage.get_all_trials(study._study_id)
    assert [trial.state for trial in told] == [TrialState.COMPLETE] * 3
    lines = [json.loads(line) for line in (search_dir / "study.journal").read_text().splitlines()]
    reports = Counter((line["trial_id"], line["step"]) for line in lines if "step" in line)
    assert len(reports) == 3 * N_EPOCHS and set(reports.values()) == {1}
