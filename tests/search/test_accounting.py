"""Where a search's time went, checked by hand and against plain counting."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensembleflow.cli import main
from ensembleflow.config import Config
from ensembleflow.errors import ArtefactError
from ensembleflow.search.accounting import AttemptRow, account_study, assign_lanes, union_seconds, write_accounting
from support.recorded_search import ORIGIN, PARTS, drive, some_trials


def a_run(slot: int, start: float, end: float, **values: object) -> dict[str, object]:
    return {
        "slot": slot,
        "run": 0,
        "host": "node",
        "device": "a GPU",
        "device_id": "GPU-0",
        "process_id": 100 + slot,
        "process_started_at": start - 5,
        "ready_at": start - 1,
        "started_at": start,
        "ended_at": end,
        "first_epoch": 1,
        "epochs": 1,
        "energy_joules": None,
    } | values


def a_trial(slot: int, state: str = "COMPLETE", epochs: int = 1, **values: object) -> dict[str, object]:
    parts = {f"{part}_seconds": 1.0 for part in PARTS}
    return {"slot": slot, "state": state, "bracket": None, "epochs": epochs, **parts} | values


def an_epoch(slot: int, epoch: int, start: float, end: float, **values: object) -> dict[str, object]:
    times = {"started_at": start, "ended_at": end}
    return {"slot": slot, "bracket": None, "epoch": epoch, "rung": None, **times, "valid_error": 0.5} | values


def accounts_of(tmp_path: Path, trials: list, epochs: list, runs: list, max_epochs: int = 2) -> dict:
    for name, rows in (("trials", trials), ("epochs", epochs), ("runs", runs)):
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}.csv", index=False)
    return account_study(tmp_path, max_epochs)


def test_two_gpus_by_hand(tmp_path: Path) -> None:
    accounts = accounts_of(
        tmp_path,
        [a_trial(0), a_trial(1), a_trial(2, state="FAIL", epochs=0)],
        [an_epoch(0, 1, 12, 40), an_epoch(1, 1, 12, 20)],
        [
            a_run(0, 10, 45, energy_joules=100.0),
            a_run(1, 10, 25, device_id="GPU-1"),
            a_run(2, 30, 35, device_id="GPU-1", epochs=0, process_started_at=28),
        ],
    )
    assert accounts["duration_seconds"] == 40, "from the first process's start, at 5, to 45"
    assert accounts["trials"] == {"all": 3, "complete": 2, "pruned": 0, "fail": 1}
    assert accounts["epochs"] == {"trained": 2, "possible": 6, "share": pytest.approx(1 / 3)}
    assert [device["occupied_seconds"] for device in accounts["devices"]] == [35, 20]
    assert accounts["occupancy"] == pytest.approx(55 / 80)
    assert accounts["speed_up"] == pytest.approx(55 / 40)
    assert accounts["idle_tail"] == {"seconds": 10, "device_seconds": 10}
    assert accounts["energy"] == {"joules": 100, "trials": 1}
    assert accounts["time"]["start"] == 5 + 5 + 2
    assert accounts["time"]["all"] == 40 + 20 + 7
    assert sum(seconds for part, seconds in accounts["time"].items() if part != "all") == accounts["time"]["all"]
    assert accounts["nothing_ran_seconds"] == 0


def test_trials_side_by_side_on_one_gpu_occupy_it_once(tmp_path: Path) -> None:
    runs = [a_run(slot, 10 + slot, 20 + slot, energy_joules=50.0) for slot in range(3)]
    accounts = accounts_of(tmp_path, [a_trial(slot) for slot in range(3)], [an_epoch(0, 1, 12, 13)], runs)
    (device,) = accounts["devices"]
    assert device["occupied_seconds"] == 12
    assert accounts["held_seconds"] == 22 - 5, "from the first one's start to the last one's end"
    assert accounts["speed_up"] == pytest.approx(30 / 17)
    assert accounts["energy"] == {"joules": pytest.approx(12 * 5), "trials": 3}, "5 W, whoever of them counts them"


def test_a_killed_run_costs_the_time_since_its_last_epoch(tmp_path: Path) -> None:
    accounts = accounts_of(
        tmp_path,
        [a_trial(0, epochs=2)],
        [an_epoch(0, 1, 12, 20), an_epoch(0, 2, 112, 120)],
        [
            a_run(0, 10, 26),
            a_run(0, 60, 63, run=1, process_id=7, first_epoch=2, epochs=0),
            a_run(0, 110, 121, run=2, process_id=8, first_epoch=2),
        ],
    )
    assert accounts["interrupted"] == {"runs": 2, "trials": 1, "lost_seconds": 6 + 3}
    assert accounts["nothing_ran_seconds"] == (55 - 26) + (105 - 63)


def test_a_run_whose_end_nobody_wrote_ends_with_its_last_epoch(tmp_path: Path) -> None:
    accounts = accounts_of(
        tmp_path,
        [a_trial(0, epochs=2)],
        [an_epoch(0, 1, 12, 20), an_epoch(0, 2, 42, 50)],
        [a_run(0, 10, float("nan")), a_run(0, 40, 51, run=1, process_id=7, first_epoch=2)],
    )
    assert accounts["interrupted"]["lost_seconds"] == 0
    assert accounts["devices"][0]["occupied_seconds"] == 10 + 11


def test_brackets_count_who_reached_and_who_was_stopped_at_each_rung(tmp_path: Path) -> None:
    trials = some_trials(30, 9)
    found = drive(trials, 2)
    accounts = account_study(found.write(tmp_path), 9)
    by_bracket = {row["bracket"]: row for row in accounts["brackets"]}
    assert sum(row["trials"] for row in by_bracket.values()) == 30
    for bracket, row in by_bracket.items():
        own = [trial for trial in found.trials if trial["bracket"] == bracket]
        for rung in row["rungs"]:
            assert rung["epoch"] == 3 ** (bracket + rung["rung"])
            assert rung["reached"] == sum(trial["epochs"] >= rung["epoch"] for trial in own)
            assert rung["stopped"] == sum(trial["epochs"] == rung["epoch"] != 9 for trial in own)
    assert accounts["n_devices"] == 2
    assert accounts["duration_seconds"] == pytest.approx(found.duration)


INTERVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), min_size=1, max_size=15)


@given(INTERVALS)
def test_lanes_hold_one_process_at_a_time_and_are_as_few_as_can_be(spans: list[tuple[int, int]]) -> None:
    runs = [
        AttemptRow("node", "", "cpu", slot, start, start, start, start + length + 1, 1, 1, slot=slot, run=0)
        for slot, (start, length) in enumerate(spans)
    ]
    laned = assign_lanes(runs)
    at_once = max(sum(run.started_at <= second < run.ended_at for run in runs) for second in range(90))
    assert len({run.lane for run in laned}) == at_once
    for lane in {run.lane for run in laned}:
        own = sorted((run.started_at, run.ended_at) for run in laned if run.lane == lane)
        assert all(before[1] <= after[0] for before, after in pairwise(own))


@given(INTERVALS)
def test_covered_time_is_counted_once(spans: list[tuple[int, int]]) -> None:
    intervals = [(start, start + length) for start, length in spans]
    covered = sum(any(start <= second < end for start, end in intervals) for second in range(90))
    assert union_seconds(intervals) == covered


@pytest.mark.parametrize(
    ("device_id", "lane"), [("cpu", "cpu-0"), ("/physical_device:GPU:0", "/physical_device:GPU:0")]
)
def test_hosts_do_not_share_lanes(device_id: str, lane: str, tmp_path: Path) -> None:
    runs = [a_run(0, 10, 20, device_id=device_id), a_run(1, 30, 40, host="other", device_id=device_id)]
    accounts = accounts_of(tmp_path, [a_trial(0), a_trial(1)], [an_epoch(0, 1, 12, 13)], runs)
    assert [device["name"] for device in accounts["devices"]] == [f"node {lane}", f"other {lane}"]


def test_a_gpu_is_one_device_whatever_its_host_is_called(tmp_path: Path) -> None:
    runs = [a_run(0, 10, 20), a_run(1, 30, 40, host="another container")]
    accounts = accounts_of(tmp_path, [a_trial(0), a_trial(1)], [an_epoch(0, 1, 12, 13)], runs)
    assert [device["name"] for device in accounts["devices"]] == ["GPU-0"]


def test_nothing_ran_is_told(tmp_path: Path) -> None:
    drive(some_trials(2, 3), 1).write(tmp_path)
    runs = pd.read_csv(tmp_path / "runs.csv")
    runs.iloc[:0].to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(ArtefactError, match="nothing ran"):
        account_study(tmp_path, 3)


def test_the_artefact_and_the_command_tell_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    max_epochs = Config().search.max_epochs  # of a study whose config is not known
    study = tmp_path / "digits-hyperband-s0"
    found = drive(some_trials(12, max_epochs), 2, min_epochs=Config().search.min_epochs, start=5.0)
    search_dir = found.write(study / "search")
    write_accounting(search_dir, max_epochs, search_dir / "accounting.json")
    accounts = json.loads((search_dir / "accounting.json").read_text())
    assert accounts["started_at"] == ORIGIN
    assert main(["accounting", "--study-dir", str(study)]) == 0
    printed = capsys.readouterr().out
    assert f"{accounts['epochs']['trained']} of {12 * max_epochs} epochs" in printed
    assert "node cpu-1" in printed
    assert f"{accounts['occupancy']:.1%}" in printed


def test_without_a_search_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accounting", "--study-dir", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert "there is no finished search to account for" in message
    assert "no trials.csv, epochs.csv, runs.csv" in message
