"""The allocation stage, from artefacts to artefacts."""

from __future__ import annotations

import json
import logging

import pandas as pd
import pytest

from ensembleflow.allocation import allocate_ensemble, read_allocation
from ensembleflow.allocation.allocate import _engines_for
from ensembleflow.config import AllocationConfig, DeviceConfig
from ensembleflow.errors import AllocationError, ArtefactError
from ensembleflow.inference import allocation_text
from support.stage_artefacts import Results


def allocate(results: Results, config: AllocationConfig, n_devices: int = 2) -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    output_json, output_csv, profiles = (
        results.folder / name for name in ("devices.json", "search.csv", "profile.csv")
    )
    allocate_ensemble(
        results.selection,
        results.exported_dir,
        results.predictions,
        results.costs,
        results.dataset,
        config,
        n_devices,
        output_json,
        output_csv,
        profiles,
        results.folder / "store",
    )
    tables = (pd.read_csv(path, keep_default_na=False) for path in (output_csv, profiles))
    return json.loads(output_json.read_text()), *tables


def test_an_ensemble_is_profiled_and_placed_and_every_bench_is_recorded(exported, tmp_path, caplog):
    results = Results(tmp_path, exported, members=("trial-00002", "trial-00000"))
    config = AllocationConfig(
        batch_sizes=[16, 64], max_benches=5, bench_images=400, bench_repeats=2, latency_requests=3
    )
    with caplog.at_level(logging.INFO, logger="ensembleflow.allocation"):
        allocation, search, profiles = allocate(results, config)

    assert (allocation["study"], allocation["budget"], allocation["n_devices"]) == ("digits-random-s0", "4x", 2)
    assert [member["model"] for member in allocation["members"]] == ["trial-00002", "trial-00000"]
    assert [device["name"] for device in allocation["devices"]] == ["cpu0", "cpu1"]
    assert allocation["bench"] == {
        "kind": "measured",
        "objective": "throughput",
        "n_images": 400,
        "repeats": 2,
        "request_images": 1,
        "latency_requests": 3,
    }
    assert 0 < allocation["latency_p50_ms"] <= allocation["latency_p99_ms"]

    # Every member, on the one kind of device, at every batch size.
    assert sorted(zip(profiles["model"], profiles["batch_size"], strict=True)) == [
        (model, size) for model in ("trial-00000", "trial-00002") for size in (16, 64)
    ]
    assert (profiles["images_per_second"] > 0).all() and (profiles["failure"] == "").all()
    memory_mb = {(row.model, row.batch_size): row.peak_memory_mb for row in profiles.itertuples()}
    for member in allocation["members"]:
        assert member["memory_mb"] == pytest.approx(memory_mb[member["model"], member["batch_size"]], abs=0.1)

    assert list(search["bench"]) == list(range(1, allocation["n_benches"] + 1))
    assert len(search) <= 5
    assert search["allocation"][~search["move"].str.startswith("again: ")].is_unique
    assert search["move"][0] == "start" and search["accepted"][0]
    assert set(search["bench_kind"]) == {"measured"} and set(search["objective"]) == {"throughput"}
    # Worst-fit: one member a device, at the largest batch size.
    assert search["allocation"][0].count("/64") == 2
    assert "@cpu0" in search["allocation"][0] and "@cpu1" in search["allocation"][0]
    last = search[search["accepted"]].iloc[-1]
    assert last["images_per_second"] == pytest.approx(allocation["images_per_second"])
    assert last["allocation"] == allocation_text(read_allocation(tmp_path / "devices.json", results.members))

    messages = [record.getMessage() for record in caplog.records if getattr(record, "progress", False)]
    assert messages[-1].startswith("budget 4x on 2 devices: ")
    assert "images/s" in messages[-1] and "simulated" not in messages[-1]


def test_budgets_of_the_same_ensemble_share_one_allocation_until_something_differs(exported, tmp_path):
    results = Results(tmp_path, exported, members=("trial-00000",))
    config = AllocationConfig(batch_sizes=[16], max_benches=2, bench_images=50, bench_repeats=1)

    def allocation_of(budget: str, config: AllocationConfig = config) -> tuple[list, dict]:
        selection = json.loads(results.selection.read_text())
        results.write(results.selection, {**selection, "budget": budget})
        allocation, search, profiles = allocate(results, config, n_devices=1)
        assert allocation.pop("budget") == budget
        return [search.to_csv(), profiles.to_csv()], allocation

    first, second = allocation_of("1x"), allocation_of("2x")
    assert second == first
    # A job that is run again measures again, and the next budget takes what it finds.
    again = allocation_of("1x")
    assert again != first
    assert allocation_of("4x") == again
    assert allocation_of("8x", config.model_copy(update={"bench_images": 60})) != again
    results.write(results.selection, {**json.loads(results.selection.read_text()), "members": ["trial-00001"]})
    assert allocation_of("16x")[1]["members"][0]["model"] == "trial-00001"


def test_engines_are_profiled_checked_and_benched(exported, tmp_path):
    results = Results(tmp_path, exported, members=("trial-00000",))
    config = AllocationConfig(
        batch_sizes=[16], engines=["tensorflow", "openvino"], max_benches=6, bench_images=100, bench_repeats=1
    )
    allocation, search, profiles = allocate(results, config, n_devices=1)
    assert set(profiles["engine"]) == {"tensorflow", "openvino"} and (profiles["images_per_second"] > 0).all()
    first_two = search["allocation"].tolist()[:2]
    assert first_two == ["trial-00000@cpu0/16", "trial-00000@cpu0/16:openvino"]
    assert (search["images_per_second"] > 0).all()
    assert allocation["members"][0]["engine"] in ("tensorflow", "openvino")


def test_a_batch_size_at_which_a_member_fails_is_recorded_and_left_out(exported, tmp_path):
    results = Results(tmp_path, exported, members=("trial-00002",))
    config = AllocationConfig(batch_sizes=[16, 128], max_benches=3, bench_images=100, bench_repeats=1)
    allocation, search, profiles = allocate(results, config, n_devices=1)
    assert allocation["members"][0]["batch_size"] == 16
    (failed,) = profiles[profiles["batch_size"] == 128].itertuples()
    assert failed.images_per_second == 0 and "out of pretended memory" in failed.failure
    assert search["allocation"].tolist() == ["trial-00002@cpu0/16"]


def test_a_member_that_runs_at_no_batch_size_stops_the_stage_with_the_reason(exported, tmp_path):
    results = Results(tmp_path, exported, members=("trial-00002",))
    with pytest.raises(AllocationError) as caught:
        allocate(results, AllocationConfig(batch_sizes=[128]))
    assert "trial-00002 runs on no device" in str(caught.value)
    assert "out of pretended memory" in str(caught.value)
    assert "allocation.batch_sizes" in str(caught.value)


def test_members_that_fit_on_no_device_stop_the_stage(exported, tmp_path):
    results = Results(tmp_path, exported, members=("trial-00000",))
    config = AllocationConfig(devices=[DeviceConfig(name="small", memory_mb=20)], device_counts=[1])
    with pytest.raises(AllocationError) as caught:
        allocate(results, config, n_devices=1)
    assert "trial-00000 fits on no device" in str(caught.value)
    assert "small: 20 of 20 MB free" in str(caught.value)
    assert not (tmp_path / "devices.json").exists()


def test_a_member_that_answers_otherwise_than_the_cache_runs_nowhere(exported, tmp_path):
    results = Results(tmp_path, exported, members=("trial-00000",), disturbance=0.05)
    with pytest.raises(AllocationError, match="trial-00000 runs on no device"):
        allocate(results, AllocationConfig(batch_sizes=[16]))


def test_devices_that_are_not_here_are_planned_by_simulation_which_says_so_everywhere(exported, tmp_path, caplog):
    results = Results(tmp_path, exported, members=("trial-00000", "trial-00001"))
    fast = [DeviceConfig(name=f"fast{i}", cores=1, memory_mb=4000, speed=10) for i in range(3)]
    config = AllocationConfig(
        devices=fast, device_counts=[3], batch_sizes=[16, 64], bench="simulated", max_benches=6, max_replicas=2
    )
    with caplog.at_level(logging.INFO, logger="ensembleflow.allocation"):
        allocation, search, _ = allocate(results, config, n_devices=3)
    assert allocation["bench"]["kind"] == "simulated"
    assert allocation["bench"]["calibration"]["n_benches"] >= 2
    assert set(search["bench_kind"]) == {"simulated"}
    assert {device["speed"] for device in allocation["devices"]} == {10}
    assert {member["device"] for member in allocation["members"]} <= {"fast0", "fast1", "fast2"}
    messages = [record.getMessage() for record in caplog.records if getattr(record, "progress", False)]
    assert "images/s (simulated)" in messages[-1]


def test_more_devices_than_configured_are_refused(exported, tmp_path):
    results = Results(tmp_path, exported, members=("trial-00000",))
    with pytest.raises(AllocationError, match="there are no 3 devices"):
        allocate(results, AllocationConfig(), n_devices=3)


def test_a_member_without_cached_predictions_is_named(exported, tmp_path):
    results = Results(tmp_path, exported, members=("trial-00000",))
    results.write(results.selection, {**json.loads(results.selection.read_text()), "members": ["trial-00009"]})
    with pytest.raises(AllocationError) as caught:
        allocate(results, AllocationConfig())
    assert "trial-00009" in str(caught.value) and "predictions.h5" in str(caught.value)


def test_without_engines_of_their_own_members_run_with_that_of_the_costs(exported, tmp_path):
    results = Results(tmp_path, exported, members=("trial-00000",))
    config = AllocationConfig(batch_sizes=[16], max_benches=1, bench_images=100, bench_repeats=1)
    results.costs.write_text(results.costs.read_text().replace("tensorflow", "openvino"))
    allocation, _, profiles = allocate(results, config, n_devices=1)
    assert {*profiles["engine"]} == {"openvino"} and allocation["members"][0]["engine"] == "openvino"
    results.costs.write_text("model,cost_seconds\ntrial-00000,1\n")
    with pytest.raises(ArtefactError, match="engine"):
        allocate(results, config, n_devices=1)


@pytest.mark.parametrize(
    ("engine", "gpu", "expected"),
    [
        ("openvino", None, ["openvino"]),
        ("openvino", 0, ["openvino", "tensorflow"]),
        ("onnxruntime", 0, ["onnxruntime", "tensorflow"]),
        ("tensorflow", 0, ["tensorflow"]),
    ],
)
def test_gpus_may_take_tensorflow_whatever_the_costs_were_measured_with(engine, gpu, expected):
    devices = [DeviceConfig(name="cpu0"), DeviceConfig(name="other", gpu=gpu)]
    assert _engines_for(engine, devices) == expected
