"""How far a search is: from the first epoch on, and the same whoever asks, also between two trials."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from ensembleflow.config import Config
from ensembleflow.planning.search_plan import model_id
from ensembleflow.search.lease import Lease
from ensembleflow.search.progress import SearchProgress, progress_line, read_progress
from ensembleflow.search.progress_table import print_running
from ensembleflow.search.record import TrialRecord, TrialStore
from ensembleflow.search.storage import open_storage
from ensembleflow.search.study import claim_slot, open_study
from ensembleflow.search.tables import tables_so_far
from support.slot_study import CHECKSUM, search_config, search_plan
from support.trial_records import epoch_of, run_of

N_TRIALS = 24
EPOCH_SECONDS = 100.0


class Search:
    """A search by random trials whose records say that they took their time; leases are this process's."""

    def __init__(self, folder: Path) -> None:
        self.config: Config = search_config("random", N_TRIALS)
        self.store_dir = folder / "store" / "fingerprint"
        self.study: optuna.Study = open_study(open_storage(folder), search_plan(self.config), CHECKSUM)
        self.leases = ExitStack()
        self.now = time.time()

    def train(self, slot: int, n_epochs: int, *, process: int, ended: TrialState | None = None, ago: float = 0) -> None:
        """Leave a trial after some epochs, the last of which ended some seconds ago."""
        trial = claim_slot(self.study, slot, self.store_dir)
        last = self.now - ago
        began = last - n_epochs * EPOCH_SECONDS
        record = TrialRecord(slot=slot, started_at=began, runs=[run_of(process, began, last, epochs=n_epochs)])
        for epoch in range(1, n_epochs + 1):
            at = began + epoch * EPOCH_SECONDS
            error = 0.5 - 0.01 * slot - 0.001 * epoch
            record.epochs.append(replace(epoch_of(epoch, error), started_at=at - EPOCH_SECONDS, ended_at=at))
            trial.report(error, step=epoch)
        if ended is not None:
            record.state, record.ended_at = ended.name, last
            value = record.epochs[-1].valid_error if ended == TrialState.COMPLETE else None
            self.study.tell(trial, value, state=ended)
        TrialStore(self.store_dir / model_id(slot)).write(record)

    def hold(self, *slots: int) -> None:
        """As a live process that trains them does."""
        for slot in slots:
            self.leases.enter_context(Lease(self.store_dir / f"{model_id(slot)}.lease"))

    def progress(self) -> SearchProgress:
        return read_progress(self.study, self.store_dir, self.config.search, N_TRIALS)


@pytest.fixture
def search(tmp_path: Path) -> Search:
    made = Search(tmp_path)
    with made.leases:
        yield made


def test_after_the_first_epoch_there_is_an_estimate(search: Search) -> None:
    search.train(0, 1, process=1)
    search.hold(0)
    progress = search.progress()
    assert [(trial.slot, trial.epochs) for trial in progress.running] == [(0, 1)]
    assert progress.running[0].metric == pytest.approx(0.499)
    assert progress.running[0].epoch_seconds == pytest.approx(EPOCH_SECONDS)
    # One worker, and no trial has been stopped: all epochs of all trials but the one that is done.
    assert progress.seconds_left == pytest.approx((9 * N_TRIALS - 1) * EPOCH_SECONDS, rel=0.01)
    assert progress_line(progress).startswith("search 0/24 trials, 1 running (in epoch 2 of 9), about ")


def test_before_the_first_epoch_the_trial_is_shown_without_an_estimate(search: Search) -> None:
    search.train(0, 0, process=1)
    search.hold(0)
    progress = search.progress()
    assert progress.seconds_left is None
    assert progress_line(progress) == "search 0/24 trials, 1 running (in epoch 1 of 9)"


def test_the_estimate_is_the_same_in_a_trial_and_between_two(search: Search) -> None:
    # Two workers: one in its second trial; the other has ended its trial, then takes up the next one.
    search.train(0, 9, process=1, ended=TrialState.COMPLETE, ago=300)
    search.train(1, 4, process=1)
    search.train(2, 9, process=2, ended=TrialState.COMPLETE, ago=1)
    search.hold(1)
    told_by_the_job = search.progress()
    assert len(told_by_the_job.running) == 1
    search.train(3, 0, process=2)
    search.hold(3)
    told_later = search.progress()
    assert len(told_later.running) == 2
    assert told_later.seconds_left == pytest.approx(told_by_the_job.seconds_left, rel=0.01)


def test_a_worker_that_ended_long_ago_is_not_counted(search: Search) -> None:
    search.train(0, 9, process=1, ended=TrialState.COMPLETE, ago=600)
    search.train(1, 1, process=2)
    search.hold(1)
    left = search.progress().seconds_left
    assert left == pytest.approx((8 + 9 * (N_TRIALS - 2)) * EPOCH_SECONDS, rel=0.01)


def test_trials_that_nobody_trains_are_told_as_such(search: Search, capsys: pytest.CaptureFixture[str]) -> None:
    search.train(0, 3, process=1, ago=7200)
    progress = search.progress()
    assert progress.running == []
    assert [trial.slot for trial in progress.interrupted] == [0]
    assert progress.seconds_left is None
    print_running(progress, Console(highlight=False, width=80))
    said = capsys.readouterr().out
    assert "no trial is being trained now" in said
    assert "goes on with the next run" in said
    assert "trial-00000" in said
    assert "3/9" in said


def test_a_finished_search_has_neither_running_trials_nor_an_estimate(
    search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    for slot in range(N_TRIALS):
        search.train(slot, 9, process=1, ended=TrialState.COMPLETE)
    assert progress_line(search.progress()) == "search 24/24 trials, best error 26.10 % (trial-00023)"
    print_running(search.progress(), Console())
    assert capsys.readouterr().out == ""


def test_trials_beyond_a_lowered_number_are_not_counted(search: Search) -> None:
    for slot in range(4):
        search.train(slot, 9, process=1, ended=TrialState.COMPLETE)
    progress = read_progress(search.study, search.store_dir, search.config.search, 3)
    assert progress_line(progress) == "search 3/3 trials, best error 47.10 % (trial-00002)"


def test_the_tables_so_far_hold_every_epoch_of_every_trial(search: Search, tmp_path: Path) -> None:
    assert tables_so_far(tmp_path) == {}
    search.train(0, 0, process=1)
    assert tables_so_far(tmp_path) == {}, "no epoch yet"
    search.train(1, 3, process=1)
    search.train(2, 9, process=2, ended=TrialState.COMPLETE)
    tables = tables_so_far(tmp_path)
    assert list(tables["search/trials.csv"].state) == ["RUNNING", "RUNNING", "COMPLETE"]
    assert list(tables["search/epochs.csv"].groupby("slot").size()) == [3, 9]
