"""`ensembleflow allocate`: a bundle on other devices than it was made for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensembleflow.allocation import read_allocation
from ensembleflow.cli import main
from ensembleflow.config import DeviceConfig
from ensembleflow.inference import Deployment, Pipeline, assign_cores
from ensembleflow.serving import open_bundle
from support.stage_artefacts import Results

MEMBERS = ("trial-00001", "trial-00002")
QUICK = "batch_sizes: [32], max_benches: 4, bench_images: 200, bench_repeats: 1, latency_requests: 5"


@pytest.fixture(scope="module")
def bundle(exported, tmp_path_factory) -> Path:
    """Its members are all on cpu0."""
    folder = tmp_path_factory.mktemp("results")
    results = Results(folder, exported, MEMBERS)
    made = folder / "bundle"
    results.make_bundle(made)
    return made


def devices_file(folder: Path, *devices: str, settings: str = QUICK) -> Path:
    path = folder / "devices.yaml"
    path.write_text(f"allocation: {{devices: [{', '.join(devices)}], device_counts: [{len(devices)}], {settings}}}\n")
    return path


def test_a_bundle_whose_device_is_gone_is_placed_on_those_that_are_there_and_answers_as_before(
    bundle, exported, tmp_path, capsys, images
):
    devices = [f"{{name: {name}, cores: 1, memory_mb: 4000}}" for name in ("here", "there")]
    output, search = tmp_path / "allocation.json", tmp_path / "search.csv"
    arguments = ["allocate", str(bundle), "--devices", str(devices_file(tmp_path, *devices))]
    arguments += ["--objective", "latency_p50", "--request-images", "4", "--output", str(output)]
    assert main([*arguments, "--search", str(search)]) == 0
    assert "ms p50 of 4-image requests" in capsys.readouterr().err

    found = json.loads(output.read_text())
    allocation = read_allocation(output, MEMBERS)
    assert (found["study"], found["budget"]) == ("digits-random-s0", "4x")
    assert found["bench"]["kind"] == "measured" and found["bench"]["objective"] == "latency_p50"
    assert {each.device for each in allocation} <= {"here", "there"}
    benches = pd.read_csv(search)
    # Worst-fit spreads the orphans.
    assert {"@here" in benches.allocation[0], "@there" in benches.allocation[0]} == {True}
    assert (benches.latency_p50_ms > 0).all()

    opened = open_bundle(bundle)
    configs = [DeviceConfig(name=each["name"], cores=1, memory_mb=each["memory_mb"]) for each in found["devices"]]
    deployment = Deployment(opened.members, assign_cores(configs), opened.manifest.image_shape, n_classes=10)
    with Pipeline(deployment, allocation) as pipeline:
        np.testing.assert_allclose(pipeline.predict(images), exported.average(images, MEMBERS), atol=1e-5)


def test_a_bundle_starts_from_its_own_allocation_where_its_device_is_still_there(bundle, tmp_path):
    devices = [f"{{name: {name}, cores: 1, memory_mb: 4000}}" for name in ("other", "cpu0")]
    search = tmp_path / "search.csv"
    arguments = ["allocate", str(bundle), "--devices", str(devices_file(tmp_path, *devices)), "--max-benches", "1"]
    assert main([*arguments, "--output", str(tmp_path / "allocation.json"), "--search", str(search)]) == 0
    assert pd.read_csv(search).allocation.tolist() == ["trial-00001@cpu0/32 trial-00002@cpu0/32"]


def test_devices_that_are_not_here_are_simulated_and_the_file_says_so(bundle, tmp_path, capsys):
    devices = ["{name: fast0, memory_mb: 4000, speed: 8}", "{name: fast1, memory_mb: 4000, speed: 8}"]
    path = devices_file(tmp_path, *devices, settings=f"bench: simulated, {QUICK}")
    output = tmp_path / "allocation.json"
    assert main(["allocate", str(bundle), "--devices", str(path), "--output", str(output)]) == 0
    assert "images/s (simulated)" in capsys.readouterr().err
    assert json.loads(output.read_text())["bench"]["kind"] == "simulated"


@pytest.mark.parametrize(
    ("devices", "settings", "message"),
    [
        ("{name: a, core: 1}", QUICK, "did you mean `cores`"),
        ("{name: a, speed: 3}", QUICK, "`bench`"),
        ("{name: a, memory_mb: 20}", QUICK, "fits on no device"),
        ("{name: a, cores: 4096, memory_mb: 4000}", f"bench: simulated, {QUICK}", "a device cannot be simulated"),
    ],
)
def test_devices_that_will_not_do_end_with_one_message_and_no_file(
    bundle, tmp_path, capsys, devices, settings, message
):
    output = tmp_path / "allocation.json"
    path = devices_file(tmp_path, devices, settings=settings)
    assert main(["allocate", str(bundle), "--devices", str(path), "--output", str(output)]) == 1
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed
    assert not output.exists()


def test_a_folder_that_is_no_bundle_is_refused(tmp_path, capsys):
    assert main(["allocate", str(tmp_path / "nothing"), "--output", str(tmp_path / "allocation.json")]) == 1
    assert "there is no bundle" in capsys.readouterr().err
