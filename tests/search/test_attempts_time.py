"""What is told of a search job whose time limit ended it before an epoch was done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ensembleflow.planning.search_plan import model_id
from ensembleflow.search.attempts import n_finished_epochs, too_little_time
from ensembleflow.search.record import Epoch, TrialAttempt, TrialRecord, TrialStore

EPOCH = Epoch(1, None, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
RUN = TrialAttempt("n1", "cpu", "cpu", 1, 0.0, 0.0, 0.0, 0.0, first_epoch=1)
START_SECONDS = 120.0


def write_record(
    search_dir: Path, slot: int, epoch_minutes: list[float], state: str = "RUNNING", study: str = "a1b2"
) -> None:
    """A trial that began at 0, was ready after two minutes, and then trained these epochs."""
    record, now = TrialRecord(slot, state=state, runs=[RUN]), START_SECONDS
    for number, minutes in enumerate(epoch_minutes, 1):
        record.epochs.append(replace(EPOCH, epoch=number, started_at=now, ended_at=now + 60 * minutes))
        now += 60 * minutes
    folder = search_dir / "store" / study / model_id(slot)
    folder.mkdir(parents=True)
    TrialStore(folder).write(record)


def test_epochs_of_all_the_jobs_trials_are_counted_and_of_no_others(tmp_path: Path) -> None:
    assert n_finished_epochs(tmp_path, [2, 3]) == 0
    write_record(tmp_path, 2, [1, 1], state="COMPLETE")
    write_record(tmp_path, 3, [1])
    write_record(tmp_path, 4, [1])
    write_record(tmp_path, 3, [1, 1, 1], study="c3d4")
    assert n_finished_epochs(tmp_path, [2, 3]) == 6


def test_a_damaged_record_counts_as_none(tmp_path: Path) -> None:
    write_record(tmp_path, 3, [1])
    write_record(tmp_path, 2, [1])
    (tmp_path / "store/a1b2/trial-00002/record.json").write_text("{", encoding="utf-8")
    assert n_finished_epochs(tmp_path, [2, 3]) == 1


def test_the_measured_epoch_says_by_how_much_to_raise_the_limit(tmp_path: Path) -> None:
    write_record(tmp_path, 2, [90], state="COMPLETE")  # not the one that lacked time
    write_record(tmp_path, 3, [30, 40])
    error = too_little_time(tmp_path, [2, 3], 20)
    assert (
        error.found
        == "20 min ended in epoch 3 of trial-00003; an earlier one took 40 min, and starting before it 2 min"
    )
    # (2 + 40) minutes, a quarter more, and one.
    assert error.hint is not None
    assert error.hint.startswith("raise it by 34, ")
    assert error.hint.endswith("resources: {search: {runtime_minutes: 54}}")


def test_a_limit_that_should_have_sufficed_is_raised_all_the_same(tmp_path: Path) -> None:
    write_record(tmp_path, 3, [10])
    assert str(too_little_time(tmp_path, [3], 60).hint).startswith("raise it by 1, ")


def test_where_no_epoch_was_ever_measured_it_is_doubled(tmp_path: Path) -> None:
    error = too_little_time(tmp_path, [3], 60)
    assert error.found == "not one epoch was finished within 60 min; how long one takes is not known"
    assert str(error.hint).endswith("resources: {search: {runtime_minutes: 120}}")
