"""The allocation stage, from artefacts to artefacts."""

from __future__ import annotations

import json
import logging

import pandas as pd
import pytest

from ensembleflow.allocation import allocate_ensemble
from ensembleflow.config.models import AllocationConfig, DeviceConfig
from ensembleflow.errors import AllocationError
from stage_artefacts import Results


def allocate(results: Results, config: AllocationConfig, n_devices: int = 2) -> tuple[dict, pd.DataFrame]:
    output_json, output_csv = results.folder / "devices.json", results.folder / "search.csv"
    allocate_ensemble(
        results.selection,
        results.exported_dir,
        results.costs,
        results.dataset,
        config,
        n_devices,
        output_json,
        output_csv,
    )
    return json.loads(output_json.read_text()), pd.read_csv(output_csv, keep_default_na=False)


def test_an_ensemble_is_placed_and_every_bench_is_recorded(exported, tmp_path, caplog):
    results = Results(tmp_path, exported, members=("trial-00002", "trial-00000"))
    config = AllocationConfig(batch_sizes=[16, 64], max_benches=4, bench_images=400, bench_repeats=2)
    with caplog.at_level(logging.INFO, logger="ensembleflow.allocation"):
        allocation, search = allocate(results, config)

    assert (allocation["study"], allocation["budget"], allocation["n_devices"]) == ("digits-random-s0", "4x", 2)
    assert [member["model"] for member in allocation["members"]] == ["trial-00002", "trial-00000"]
    assert all(100 < member["memory_mb"] < 2000 for member in allocation["members"])
    assert [device["name"] for device in allocation["devices"]] == ["cpu0", "cpu1"]
    assert allocation["bench"] == {"n_images": 400, "repeats": 2}
    assert allocation["images_per_second"] >= allocation["worst_fit_images_per_second"] > 0

    assert list(search["bench"]) == list(range(1, allocation["n_benches"] + 1))
    assert len(search) <= 4
    assert search["allocation"].is_unique
    assert search["move"][0] == "start" and search["accepted"][0]
    # Worst-fit: one member a device, at the largest batch size.
    assert search["allocation"][0].count("/64") == 2
    assert "@cpu0" in search["allocation"][0] and "@cpu1" in search["allocation"][0]
    last = search[search["accepted"]].iloc[-1]
    assert last["images_per_second"] == pytest.approx(allocation["images_per_second"])
    placed = " ".join(f"{each['model']}@{each['device']}/{each['batch_size']}" for each in allocation["members"])
    assert last["allocation"] == placed

    told = [record.getMessage() for record in caplog.records if getattr(record, "progress", False)]
    assert told[-1].startswith("budget 4x on 2 devices: ")
    assert "images/s" in told[-1]


def test_a_member_that_cannot_run_at_the_largest_batch_size_stops_the_stage_with_a_hint(exported, tmp_path):
    results = Results(tmp_path, exported, members=("trial-00002",))
    with pytest.raises(AllocationError) as caught:
        allocate(results, AllocationConfig(batch_sizes=[16, 128]))
    assert "trial-00002" in str(caught.value) and "out of pretended memory" in str(caught.value)
    assert "allocation.batch_sizes (128)" in str(caught.value)


def test_members_that_fit_on_no_device_stop_the_stage(exported, tmp_path):
    results = Results(tmp_path, exported, members=("trial-00000",))
    config = AllocationConfig(devices=[DeviceConfig(name="small", memory_mb=20)], device_counts=[1])
    with pytest.raises(AllocationError) as caught:
        allocate(results, config, n_devices=1)
    assert "trial-00000 fits on no device" in str(caught.value)
    assert "small: 20 of 20 MB free" in str(caught.value)
    assert not (tmp_path / "devices.json").exists()


def test_more_devices_than_configured_are_refused(exported, tmp_path):
    results = Results(tmp_path, exported, members=("trial-00000",))
    with pytest.raises(AllocationError, match="there are no 3 devices"):
        allocate(results, AllocationConfig(), n_devices=3)


def test_a_member_without_a_cost_is_named(exported, tmp_path):
    results = Results(tmp_path, exported, members=("trial-00000",))
    results.costs.write_text("model,cost_seconds\ntrial-00001,0.1\n")
    with pytest.raises(AllocationError) as caught:
        allocate(results, AllocationConfig())
    assert "trial-00000" in str(caught.value) and "costs.csv" in str(caught.value)
