"""The allocation stage, from artefacts to artefacts."""

from __future__ import annotations

import json
import logging

import pandas as pd
import pytest

from ensembleflow.allocation import allocate_ensemble
from ensembleflow.config.models import AllocationConfig, DeviceConfig
from ensembleflow.errors import AllocationError
from serving.artefacts import Results


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
    # trial-00002 fails above 64 images: worst-fit's batch size of 100 does not run, 32 does.
    results = Results(tmp_path, exported, members=("trial-00002", "trial-00000"))
    config = AllocationConfig(batch_sizes=[32, 100], max_benches=5, bench_images=400, bench_repeats=2)
    with caplog.at_level(logging.INFO, logger="ensembleflow.allocation"):
        allocation, search = allocate(results, config)


def test_members_that_fit_on_no_device_stop_the_stage(exported, tmp_path):
    results = Results(tmp_path, exported, members=("trial-00000",))
    config = AllocationConfig(devices=[DeviceConfig(name="small", memory_mb=20)], device_counts=[1])
    with pytest.raises(AllocationError) as caught:
        allocate(results, config, n_devices=1)
    assert "trial-00000 fits on no device" in str(caught.value)
    assert "small: 20 of 20 MB free" in str(caught.value)
    assert not (tmp_path / "devices.json").exists()
