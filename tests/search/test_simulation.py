"""The simulated search, against plain counting, a plain event loop with Optuna's own pruner, and bounds that hold."""

from __future__ import annotations

import heapq
from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensembleflow.cli import main
from ensembleflow.config import Config, SearchConfig
from ensembleflow.planning.search_plan import search_jobs
from ensembleflow.search.optuna_internals import should_stop
from ensembleflow.search.simulation import (
    Limits,
    RecordedTrial,
    Recording,
    Simulation,
    TrialSource,
    assume_recording,
    read_recording,
    simulate,
    trials_to_keep_busy,
)
from ensembleflow.search.simulation.limits import Server
from ensembleflow.search.simulation.rungs import HyperbandRungs
from ensembleflow.search.trial import rung_of
from support.recorded_search import Search, Trial, drive, some_trials

FREE = Limits(
    launch_seconds=0.0, start_seconds=0.0, jobs_per_second=1e12, storage_seconds=0.0, open_seconds_per_trial=0.0
)
SECONDS = st.floats(0.01, 100)
WORK = st.lists(st.lists(SECONDS, min_size=3, max_size=3), min_size=1, max_size=12)


def recording_of(work: list[list[float]]) -> Recording:
    trials = [RecordedTrial(slot, None, 0.0, tuple(seconds), (0.5, 0.4, 0.3), 0.0) for slot, seconds in enumerate(work)]
    return Recording(tuple(trials), 0.0, 0.0, None, "made up")


def planned(n_trials: int, **values: object) -> SearchConfig:
    return SearchConfig(
        **{"algorithm": "random", "trials_per_job": 1, "max_epochs": 3, "min_epochs": 1, "n_trials": n_trials, **values}
    )


def run(work: list[list[float]], n_devices: int, limits: Limits = FREE, **values: object) -> Simulation:
    return simulate(planned(len(work), **values), TrialSource(recording_of(work), 3), n_devices, limits)


def list_schedule(durations: list[float], n_devices: int) -> float:
    """When the last of the jobs ends that are given to whoever is free first."""
    free = [0.0] * n_devices
    for duration in durations:
        heapq.heappush(free, heapq.heappop(free) + duration)
    return max(free)


@given(WORK, st.integers(1, 6), st.integers(1, 4))
def test_random_search_is_list_scheduling(work: list[list[float]], n_devices: int, trials_per_job: int) -> None:
    search = planned(len(work), trials_per_job=min(trials_per_job, len(work)))
    found = simulate(search, TrialSource(recording_of(work), 3), n_devices, FREE)
    jobs = [sum(sum(work[slot]) for slot in slots) for slots in search_jobs(search)]
    assert found.duration_seconds == pytest.approx(list_schedule(jobs, n_devices))
    assert found.epochs == (3,) * len(work)


@given(WORK, st.integers(1, 6))
def test_no_schedule_beats_the_bounds(work: list[list[float]], n_devices: int) -> None:
    totals = [sum(seconds) for seconds in work]
    found = run(work, n_devices)
    best = max(sum(totals) / n_devices, *totals)
    assert found.duration_seconds >= best * (1 - 1e-9)
    assert found.duration_seconds <= best * (2 - 1 / n_devices) * (1 + 1e-9), "Graham 1969"
    assert found.occupancy <= 1 + 1e-9
    assert found.trial_seconds == pytest.approx(sum(totals))
    assert found.occupied_seconds + found.tail_device_seconds == pytest.approx(n_devices * found.duration_seconds)


@given(WORK)
def test_one_device_takes_the_sum(work: list[list[float]]) -> None:
    found = run(work, 1)
    assert found.duration_seconds == pytest.approx(sum(map(sum, work)))
    assert (found.occupancy, found.speed_up) == (pytest.approx(1), pytest.approx(1))


@given(WORK, st.integers(1, 5))
def test_more_devices_never_take_longer(work: list[list[float]], n_devices: int) -> None:
    fewer, more = run(work, n_devices).duration_seconds, run(work, n_devices + 1).duration_seconds
    assert more <= fewer * (1 + 1e-9), "independent jobs in one order have no anomaly"


def limits_with(launch: float = 0.0, start: float = 0.0, between: float = 0.0) -> Limits:
    return replace(FREE, launch_seconds=launch, start_seconds=start, between_seconds=between)


@pytest.mark.parametrize("n_workers", [1, 2, 3, 7])
@pytest.mark.parametrize("trials_per_job", [1, 4])
def test_hyperband_on_any_devices_is_what_optunas_pruner_does_there(n_workers: int, trials_per_job: int) -> None:
    trials = some_trials(40, 9, seed=n_workers)
    overheads = {"launch": 2.0, "start": 1.5, "between": 0.25}
    real = drive(trials, n_workers, trials_per_job=trials_per_job, **overheads)
    assert len({row["state"] for row in real.trials}) == 2, "some are stopped and some not"
    recorded = [
        RecordedTrial(slot, None, trial.before, trial.epochs, trial.values, trial.after)
        for slot, trial in enumerate(trials)
    ]
    search = planned(40, algorithm="hyperband", max_epochs=9, trials_per_job=trials_per_job)
    source = TrialSource(Recording(tuple(recorded), 0, 0, None, ""), 9)
    found = simulate(search, source, n_workers, limits_with(**overheads))
    assert found.epochs == real.n_epochs
    assert found.duration_seconds == pytest.approx(real.duration)


def recorded_and_read(found: Search, folder: Path) -> Recording:
    return read_recording(found.write(folder), "error")


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_recording_replayed_on_its_own_devices_is_the_recording(n_workers: int, tmp_path: Path) -> None:
    overheads = {"launch": 3.0, "start": 2.0, "between": 0.5}
    real = drive(some_trials(30, 9), n_workers, trials_per_job=3, **overheads)
    recording = recorded_and_read(real, tmp_path)
    assert (recording.launch_seconds, recording.start_seconds, recording.between_seconds) == pytest.approx((3, 2, 0.5))
    search = planned(30, algorithm="hyperband", max_epochs=9, trials_per_job=3)
    found = simulate(search, TrialSource(recording, 9), n_workers, limits_with(**overheads))
    assert found.epochs == real.n_epochs
    assert found.stopped == {row["slot"] for row in real.trials if row["state"] == "PRUNED"}
    assert found.duration_seconds == pytest.approx(real.duration)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), min_size=1, max_size=40),
    st.integers(1, 3),
    st.integers(2, 4),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_each_rungs_decision_is_optunas(
    curves: list[tuple[int, int]], min_epochs: int, reduction_factor: int, order: object
) -> None:
    max_epochs = 9
    pruner = optuna.pruners.HyperbandPruner(min_epochs, max_epochs, reduction_factor)
    study = optuna.create_study(study_name="rungs", pruner=pruner)
    rungs = HyperbandRungs("rungs", min_epochs, max_epochs, reduction_factor)
    live = {slot: study.ask() for slot in range(len(curves))}
    epochs = dict.fromkeys(live, 0)
    while live:
        slot = order.choice(sorted(live))  # type: ignore[attr-defined]
        epochs[slot] += 1
        value = (curves[slot][1] + curves[slot][0] * epochs[slot]) / 10  # with many ties
        live[slot].report(value, epochs[slot])
        bracket = rungs.bracket(slot)
        rung = rung_of(epochs[slot], bracket, min_epochs, reduction_factor)
        expected = epochs[slot] < max_epochs and should_stop(study, slot, rung)
        asked = rungs.rung(bracket, epochs[slot])
        assert (asked is not None and rungs.stops(bracket, asked, value)) == expected
        if expected or epochs[slot] == max_epochs:
            study.tell(slot, state=optuna.trial.TrialState.PRUNED)
            del live[slot]


@given(WORK, st.integers(1, 4), st.integers(1, 3))
def test_a_generation_begins_when_the_one_before_has_ended(
    work: list[list[float]], n_devices: int, n_generations: int
) -> None:
    n_generations = min(n_generations, len(work))
    found = run(work, n_devices, algorithm="genetic", n_generations=n_generations)
    size = -(-len(work) // n_generations)
    totals = [sum(seconds) for seconds in work]
    generations = [totals[first : first + size] for first in range(0, len(totals), size)]
    assert found.duration_seconds == pytest.approx(sum(list_schedule(each, n_devices) for each in generations))
    if n_devices == 1 or len(generations) == 1:
        assert found.lost_seconds["generations"] == 0


def test_what_devices_lose_and_what_they_do_is_all_their_time() -> None:
    limits = Limits(launch_seconds=3, start_seconds=2, between_seconds=0.5, jobs_per_second=0.4, max_jobs=3)
    search = planned(30, algorithm="genetic", n_generations=3, trials_per_job=2)
    work = [list(trial.epochs) for trial in some_trials(30, 3)]
    found = simulate(search, TrialSource(recording_of(work), 3), 4, limits)
    lost = sum(found.lost_seconds[name] for name in ("scheduler", "generations", "starts", "tail"))
    assert lost + found.occupied_seconds == pytest.approx(4 * found.duration_seconds)


TEN = [[1.0, 1.0, 1.0]] * 10


def test_a_slow_storage_is_named_as_the_limit() -> None:
    limits = replace(FREE, storage_seconds=5.0)
    found = run(TEN, 10, limits)
    writes = 10 * (limits.writes_per_trial + 3 * limits.writes_per_epoch)
    assert found.limit == "storage"
    assert found.duration_seconds >= (writes - limits.writes_per_epoch) * 5.0, "one write after the other"
    assert found.storage_load > 0.9
    assert run(TEN, 10).limit == "none"


def test_a_slow_scheduler_is_named_as_the_limit() -> None:
    found = run(TEN, 10, replace(FREE, jobs_per_second=0.1))
    assert found.limit == "scheduler"
    assert found.duration_seconds == pytest.approx(90 + 3), "from the first job's start, the last one 90 s later"


def test_too_few_trials_are_named_as_a_tail() -> None:
    found = run(TEN, 40)
    assert (found.limit, found.occupancy) == ("tail", pytest.approx(0.25))
    assert found.tail_device_seconds == pytest.approx(30 * 3)


def test_no_more_jobs_run_than_may_be_submitted() -> None:
    assert run(TEN, 10, replace(FREE, max_jobs=2)).duration_seconds == pytest.approx(15)
    late = run(TEN, 10, replace(FREE, max_jobs=2, notice_seconds=1.0))
    assert late.duration_seconds == pytest.approx(5 * 3 + 4)


def test_trials_side_by_side_share_a_device() -> None:
    search = planned(8, trials_per_job=4)
    found = simulate(search, TrialSource(recording_of(TEN[:8]), 3), 1, FREE, concurrent_trials=4)
    assert found.duration_seconds == pytest.approx(2 * 3)
    assert (found.occupancy, found.speed_up) == (pytest.approx(1), pytest.approx(4))


def test_a_server_serves_in_turn() -> None:
    server = Server(2.0)
    assert [server.wait_seconds(now, n) for now, n in [(0, 1), (0, 3), (1, 1), (20, 1)]] == [0, 2, 7, 0]


def test_a_stopped_trial_goes_on_as_its_like_did() -> None:
    trials = (
        RecordedTrial(0, 0, 1.0, (4.0, 2.0, 2.0, 2.0), (0.8, 0.4, 0.2, 0.2), 0.5),
        RecordedTrial(1, 0, 1.0, (8.0, 4.0, 4.0, 4.0), (0.6, 0.3, 0.3, 0.15), 0.5),
        RecordedTrial(2, 0, 1.0, (6.0,), (0.9,), 0.5),
        RecordedTrial(3, 0, 1.0, (6.0,), (0.9,), 0.5, failed=True),
    )
    source = TrialSource(Recording(trials, 0, 0, None, ""), 5)
    assert source.trial(2).epoch_seconds == (6, 3, 3, 3, 3), "its first epoch is twice as long as the others, as theirs"
    assert source.trial(2).values == pytest.approx((0.9, 0.45, 0.3375, 0.253125, 0.253125))
    assert source.trial(0).epoch_seconds == (4, 2, 2, 2, 2)
    assert len(source.trial(3).epoch_seconds) == 1, "it failed there"
    assert len(TrialSource(Recording(trials, 0, 0, None, ""), 2).trial(0).epoch_seconds) == 2


def test_trials_beyond_the_recorded_are_drawn_the_same_each_time() -> None:
    recording = recording_of([[slot, slot, slot] for slot in range(1, 6)])
    source, again = TrialSource(recording, 3, seed=4), TrialSource(recording, 3, seed=4)
    drawn = [source.trial(slot).epoch_seconds for slot in range(5, 60)]
    assert drawn == [again.trial(slot).epoch_seconds for slot in reversed(range(5, 60))][::-1]
    assert set(drawn) == {trial.epoch_seconds for trial in recording.trials}
    assert drawn != [TrialSource(recording, 3, seed=5).trial(slot).epoch_seconds for slot in range(5, 60)]


def test_a_resumed_trials_pause_is_not_replayed(tmp_path: Path) -> None:
    found = drive([Trial(1.0, (2.0, 2.0, 2.0), (0.5, 0.4, 0.3), 0.5)] * 2, 1, hyperband=False)
    first = next(row for row in found.runs if row["slot"] == 1)
    for row in found.epochs:
        if row["slot"] == 1 and row["epoch"] > 1:
            row["started_at"] += 1000
            row["ended_at"] += 1000
    killed = {**first, "ended_at": first["started_at"] + 3.5, "epochs": 1}
    resumed = {
        **first,
        "run": 1,
        "process_id": 99,
        "process_started_at": first["started_at"] + 1000,
        "started_at": first["started_at"] + 1002,
        "ended_at": first["ended_at"] + 1000,
        "first_epoch": 2,
        "epochs": 2,
    }
    found.runs = [row for row in found.runs if row["slot"] == 0] + [killed, resumed]
    trial = recorded_and_read(found, tmp_path).trials[1]
    assert trial.epoch_seconds == pytest.approx((2, 2, 2))
    assert (trial.before_seconds, trial.after_seconds) == pytest.approx((1, 0.5))


def test_a_launch_begins_when_the_last_process_of_the_job_before_has_ended(tmp_path: Path) -> None:
    found = drive([Trial(1.0, (2.0,), (0.5,), 0.0)] * 3, 1, hyperband=False)
    for row, process_id, (start, end) in zip(found.runs, (1, 2, 3), [(0, 14), (1, 10), (17, 25)], strict=True):
        times = {"process_started_at": start, "ready_at": start, "started_at": start, "ended_at": end}
        row |= {"device_id": "GPU-0", "process_id": process_id, **times}
    assert recorded_and_read(found, tmp_path).launch_seconds == 17 - 14


def test_a_proposal_is_waited_for_before_its_trial_begins() -> None:
    found = run(TEN, 2, algorithm="gp")
    assert found.lost_seconds["sampler"] > 0
    assert found.trial_seconds == pytest.approx(10 * 3)
    lost = sum(found.lost_seconds[name] for name in ("sampler", "tail"))
    assert lost + found.occupied_seconds == pytest.approx(2 * found.duration_seconds)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_the_trials_found_keep_the_devices_busy(n_devices: int, trials_per_job: int, seed: int) -> None:
    source = TrialSource(assume_recording(10, 0.4, 3, 5, n_trials=30, seed=seed), 3)

    def simulated(n_trials: int) -> Simulation:
        return simulate(planned(n_trials, trials_per_job=trials_per_job), source, n_devices, FREE)

    found = trials_to_keep_busy(simulated, n_devices, trials_per_job)
    assert found is not None
    assert simulated(found).occupancy >= 0.8
    assert found % trials_per_job == 0


def test_devices_that_wait_for_starts_are_never_busy() -> None:
    source = TrialSource(recording_of(TEN), 3)
    limits = replace(FREE, start_seconds=30.0)
    assert trials_to_keep_busy(lambda n: simulate(planned(n), source, 4, limits), 4, 1) is None


# The command


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "digits-hyperband-s0"
    search = Config().search  # of a study whose config is not known
    found = drive(
        some_trials(24, search.max_epochs),
        2,
        min_epochs=search.min_epochs,
        trials_per_job=4,
        start=4.0,
        launch=1.0,
        study_name="digits-hyperband-s0",
    )
    found.write(folder / "search")
    return folder


def test_the_plan_says_what_was_recorded_and_what_is_simulated(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "plan.csv"
    command = ["plan", "--study-dir", str(study), "--trials", "24", "--trials-per-job", "4", "--csv", str(table)]
    assert main([*command, "--devices", "1", "2", "24"]) == 0
    printed = capsys.readouterr().out
    assert "simulated from 24 recorded trials" in printed
    assert "6 jobs use 6 devices at most" in printed
    rows = pd.read_csv(table)
    assert list(rows["source"]) == ["recorded", *["simulated"] * 3]
    recorded, simulated = rows.iloc[0], rows.iloc[2]
    assert simulated["n_devices"] == recorded["n_devices"] == 2
    for name in ("duration_seconds", "occupancy", "speed_up", "tail_seconds", "job_device_hours"):
        assert simulated[name] == pytest.approx(recorded[name], rel=0.01), name
    assert simulated["epochs"] == recorded["epochs"]
    first = printed
    assert main([*command, "--devices", "1", "2", "24"]) == 0
    assert capsys.readouterr().out == first, "the same each time"


def test_a_gpu_that_processes_share_is_held_once(study: Path, tmp_path: Path) -> None:
    runs = pd.read_csv(study / "search/runs.csv")
    runs["device_id"] = "GPU-0"
    runs.to_csv(study / "search/runs.csv", index=False)
    table = tmp_path / "plan.csv"
    assert main(["plan", "--study-dir", str(study), "--devices", "1", "--csv", str(table)]) == 0
    recorded = pd.read_csv(table).iloc[0]
    assert recorded["n_devices"] == 1
    assert recorded["speed_up"] > 1.5, "two processes, side by side"
    assert 0.9 < recorded["job_device_hours"] * 3600 / recorded["duration_seconds"] <= 1


@pytest.mark.parametrize("algorithm", ["random", "hyperband", "gp", "bohb", "smac", "tpe", "genetic"])
def test_every_algorithm_is_planned_before_anything_is_recorded(
    algorithm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--epoch-seconds", "30", "--algorithm", algorithm, "--devices", "3"]) == 0
    printed = capsys.readouterr().out
    assert "simulated from assumed trials: 30 s per epoch" in printed
    assert algorithm in printed


def test_without_a_recording_the_plan_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--study-dir", str(tmp_path / "none")]) == 1
    message = capsys.readouterr().err
    assert "there is no finished search to plan from" in message
    assert "--epoch-seconds" in message


@pytest.mark.parametrize(
    ("option", "number"),
    [
        ("--devices", "0"),
        ("--devices", "many"),
        ("--devices", "2.5"),
        ("--epoch-seconds", "-1"),
        ("--epoch-seconds", "long"),
        ("--jobs-per-second", "0"),
        ("--time-factor", "inf"),
        ("--spread", "-0.1"),
        ("--spread", "inf"),
        ("--spread", "1e200"),
    ],
)
def test_impossible_numbers_are_refused(option: str, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", f"{option}={number}"])
    assert f"argument {option}: {number} is no" in capsys.readouterr().err


@pytest.mark.parametrize("spread", ["0", "10"])
def test_the_smallest_and_the_largest_spread_are_planned(spread: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--epoch-seconds", "30", "--spread", spread, "--devices", "3"]) == 0
    assert f"spread {spread}:" in capsys.readouterr().out


def test_the_first_rung_moves_with_the_epochs_that_are_asked_for(tmp_path: Path) -> None:
    table = tmp_path / "plan.csv"
    command = ["plan", "--epoch-seconds", "30", "--trials", "24", "--trials-per-job", "4", "--devices", "2"]
    assert main([*command, "--epochs", "3", "--csv", str(table)]) == 0
    assert pd.read_csv(table).epochs.iloc[0] < 24 * 3, "with rungs at epochs 1 and 3 some trials are stopped"


def test_fewer_trials_than_generations_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--epoch-seconds", "9", "--algorithm", "genetic", "--trials", "2", "--devices", "1"]) == 1
    assert "n_generations: 3" in capsys.readouterr().err
