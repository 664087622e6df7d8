"""How far the simulated bench is from real ones, and what the allocation search gains.

    python benchmarks/allocation.py results/STUDY/bundles/budget-4x                  # searches on this machine
    python benchmarks/allocation.py BUNDLE --devices devices.yaml --max-benches 40   # with a config's `allocation`
    python benchmarks/allocation.py --exported FOLDER --image-shape 32 32 3 --classes 100
    python benchmarks/allocation.py --recorded results/STUDY/allocation/budget-4x --n 2

The first three run a real search; the last takes one that the workflow recorded. A share of the benches calibrates the
simulation, drawn evenly from the order in which they ran; the others tell how far off it is. The machine must be quiet.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ensembleflow.allocation import (
    Ensemble,
    ProfileTable,
    Score,
    SimulatedBench,
    calibrate,
    compare_benches,
    profiles_from_table,
    profiles_table,
    search_table,
    tune_allocation,
)
from ensembleflow.config import AllocationConfig, load_config
from ensembleflow.inference import Allocation, Device, Member, Placement, detect_devices
from ensembleflow.io import provenance, read_csv, read_json, write_csv
from ensembleflow.models.engines import DEFAULT_ENGINE
from ensembleflow.serving import open_bundle

Benches = list[tuple[Allocation, Score]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", help="folder of a bundle")
    parser.add_argument("--exported", type=Path, help="folder of exported functions, instead of a bundle")
    parser.add_argument("--image-shape", type=int, nargs=3, metavar=("H", "W", "C"), help="of the exported functions")
    parser.add_argument("--classes", type=int, help="likewise")
    parser.add_argument("--recorded", type=Path, help="folder with devices-n.json, search-n.csv and profile-n.csv")
    parser.add_argument("--n", type=int, default=2, help="number of devices of the recorded search (2)")
    parser.add_argument("--devices", type=Path, help="YAML with a block `allocation` (default: this machine's devices)")
    parser.add_argument("--max-benches", type=int, help="of the search")
    parser.add_argument("--calibrate-share", type=float, default=1 / 3, help="of the benches (a third)")
    parser.add_argument("--folder", type=Path, help="where to keep the tables")
    arguments = parser.parse_args()
    if sum(map(bool, (arguments.bundle, arguments.exported, arguments.recorded))) != 1:
        parser.error("name one of: BUNDLE, --exported, --recorded")
    bench, benches = recorded(arguments) if arguments.recorded else searched(arguments)
    report(bench, benches, arguments.calibrate_share, arguments.folder)


def recorded(arguments: argparse.Namespace) -> tuple[SimulatedBench, Benches]:
    folder, n = arguments.recorded, arguments.n
    found = read_json(folder / f"devices-{n}.json", ["bench", "devices"])
    about = found["bench"]
    table = ProfileTable(profiles_from_table(read_csv(folder / f"profile-{n}.csv")))
    bench = SimulatedBench(
        [Device(**{**each, "core_ids": tuple(each["core_ids"])}) for each in found["devices"]],
        table,
        bench_images=about["n_images"],
        request_images=about["request_images"],
        latency_requests=about["latency_requests"],
    )
    return bench, read_benches(folder / f"search-{n}.csv")


def read_benches(search_csv: Path) -> Benches:
    """The allocations and the medians of their scores, in the order in which they ran."""
    table = read_csv(search_csv, dtype={"allocation": str, "failure": str}).fillna({"failure": ""})
    benches = []
    for row in table.to_dict("records"):
        names = ("images_per_second", "latency_p50_ms", "latency_p99_ms")
        medians = (() if row["failure"] or pd.isna(row[name]) else (row[name],) for name in names)
        benches.append((read_placements(row["allocation"]), Score(row["objective"], *medians, row["failure"])))
    return benches


def read_placements(text: str) -> Allocation:
    """The allocation of a text such as `trial-00003@cpu0/32 trial-00007@cpu1/128:openvino`."""
    placements = []
    for each in text.split():
        model, _, rest = each.partition("@")
        device, _, setting = rest.partition("/")
        batch_size, _, engine = setting.partition(":")
        placements.append(Placement(model, device, int(batch_size), engine or DEFAULT_ENGINE))
    return tuple(placements)


def searched(arguments: argparse.Namespace) -> tuple[SimulatedBench, Benches]:
    if arguments.devices:
        config = load_config([arguments.devices]).allocation
    else:
        devices = detect_devices()
        config = AllocationConfig(devices=devices, device_counts=[len(devices)])
    if arguments.max_benches:
        config = config.model_copy(update={"max_benches": arguments.max_benches})
    tuning = tune_allocation(read_ensemble(arguments, config.bench_images), config)
    start, best = tuning.found.benches[0].score, tuning.found.best.score
    print(f"{start.value:,.1f} -> {best.value:,.1f} ({config.objective}) after {len(tuning.found.benches)} benches")
    print(tuning.found.stop_reason)
    if arguments.folder:
        write_csv(arguments.folder / "search.csv", search_table(tuning.found, tuning.bench))
        write_csv(arguments.folder / "profile.csv", profiles_table(tuning.profiles))
    bench = SimulatedBench(
        tuning.devices,
        tuning.table,
        bench_images=config.bench_images,
        request_images=config.request_images,
        latency_requests=config.latency_requests,
    )
    return bench, [(each.state, each.score) for each in tuning.found.benches]


def read_ensemble(arguments: argparse.Namespace, n_images: int) -> Ensemble:
    if arguments.bundle:
        bundle = open_bundle(arguments.bundle)
        images = np.resize(bundle.check_images(), (n_images, *bundle.manifest.image_shape))
        return Ensemble(bundle.members, images, len(bundle.class_names))
    members = [Member(path.name, path) for path in sorted(arguments.exported.iterdir()) if path.is_dir()]
    images = np.random.default_rng(0).integers(0, 256, (n_images, *arguments.image_shape), dtype=np.uint8)
    return Ensemble(members, images, arguments.classes)


def report(bench: SimulatedBench, benches: Benches, share: float, folder: Path | None) -> None:
    benches = [each for each in benches if not each[1].failure]
    n_calibrating = min(len(benches), max(3, round(share * len(benches))))
    calibrating = {int(place) for place in np.linspace(0, len(benches) - 1, n_calibrating)}
    calibration = calibrate(bench, [benches[place] for place in sorted(calibrating)])
    print(f"calibrated on {len(calibrating)} of {len(benches)} benches: {calibration}")
    others = [each for place, each in enumerate(benches) if place not in calibrating]
    for title, simulated in (("profiles alone", bench), ("calibrated", replace(bench, calibration=calibration))):
        found = compare_benches(simulated, others)
        print(f"\n{title}, on the {len(others)} other benches (simulated against measured)")
        if found.empty:
            continue
        print(found.to_string(index=False, float_format=lambda value: f"{value:,.3g}"))
        errors = found.relative_error.abs()
        # Spearman's, of the images/s.
        correlation = found.measured_images_per_second.rank().corr(found.simulated_images_per_second.rank())
        print(
            f"relative error: median {errors.median():.1%}, worst {errors.max():.1%}; "
            f"rank correlation {correlation:.2f}"
        )
        if folder:
            write_csv(folder / f"comparison-{title.split()[0]}.csv", found)
    print(json.dumps(provenance(), indent=1))


if __name__ == "__main__":
    main()
