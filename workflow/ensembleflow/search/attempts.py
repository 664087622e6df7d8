"""What an attempt of a search job came to: the epochs that it finished, or the time that it lacked for one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ensembleflow.errors import ArtefactError, SearchError
from ensembleflow.planning.search_plan import model_id
from ensembleflow.search.record import TrialRecord, TrialStore
from ensembleflow.search.remaining import readable_duration

__all__ = ["n_finished_epochs", "too_little_time"]

# Over what was measured: the next epoch may be slower, and what surrounds the job's process takes time as well.
_MARGIN = 1.25
_MARGIN_SECONDS = 60.0


def n_finished_epochs(search_dir: str | Path, slots: Sequence[int]) -> int:
    """How many epochs are kept of a job's trials, whoever trained them.

    Args:
        search_dir: `{study}/search`.
        slots: the job's.
    """
    return sum(len(record.epochs) for record in _records(search_dir, slots))


def too_little_time(search_dir: str | Path, slots: Sequence[int], limit_minutes: float) -> SearchError:
    """The error of a job that its time limit ended before it had finished an epoch.

    Args:
        search_dir: `{study}/search`.
        slots: the job's.
        limit_minutes: the time that the job had.
    """
    measured = [each for each in _records(search_dir, slots) if each.epochs and not each.finished]
    if measured:
        record = max(measured, key=_epoch_seconds)
        epoch, start = _epoch_seconds(record), _start_seconds(record)
        found = (
            f"{limit_minutes:g} min ended in epoch {len(record.epochs) + 1} of {model_id(record.slot)}; an earlier one "
            f"took {readable_duration(epoch)}, and starting before it {readable_duration(start)}"
        )
        enough = ((start + epoch) * _MARGIN + _MARGIN_SECONDS) / 60
    else:
        found = f"not one epoch was finished within {limit_minutes:g} min; how long one takes is not known"
        enough = 2 * limit_minutes
    minutes = math.ceil(max(enough, limit_minutes + 1))
    return SearchError(
        "a search job's time limit is too short for one epoch",
        where="resources.search.runtime_minutes",
        found=found,
        expected="time for an epoch: a trial may take any number of jobs that finish one",
        hint=f"raise it by {minutes - limit_minutes:g}, and run the same command again; in the config: "
        f"resources: {{search: {{runtime_minutes: {minutes}}}}}",
    )


def _records(search_dir: str | Path, slots: Sequence[int]) -> Iterator[TrialRecord]:
    """The readable records of some slots; those of earlier configs too, which no longer change."""
    for slot in slots:
        for folder in Path(search_dir).glob(f"store/*/{model_id(slot)}"):
            try:
                record = TrialStore(folder).read_alone()
            except (ArtefactError, OSError):  # which the job itself raises
                continue
            if record is not None:
                yield record


def _epoch_seconds(record: TrialRecord) -> float:
    """The longest of the last epochs: early ones may be of another device."""
    return max(each.ended_at - each.started_at for each in record.epochs[-3:])


def _start_seconds(record: TrialRecord) -> float:
    """From a process's start to its first epoch, at the longest."""
    begun = {each.epoch: each.started_at for each in record.epochs}
    return max(
        (begun[run.first_epoch] - run.process_started_at for run in record.runs if run.first_epoch in begun),
        default=0.0,
    )
